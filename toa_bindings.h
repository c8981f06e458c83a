/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What toa needs of the kernel beyond the `kernel` crate. Kbuild runs bindgen over this file with
 * the flags and the headers of the kernel that the module is built for; the result is
 * toa_bindings.rs. Nothing here is compiled into an object.
 *
 * Two kinds of things live here:
 *
 * - offsets of single fields of big structures (struct sock and its kin), so that toa does not
 *   depend on how bindgen names anonymous unions;
 * - assertions on every kernel interface that toa is called by, or reads without the compiler
 *   checking it. A kernel that changed one of them stops the build here, with a sentence.
 */
#include <linux/ftrace.h>
#include <linux/ipv6.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/net.h>
#include <linux/netdevice.h>
#include <linux/netfilter.h>
#include <linux/percpu.h>
#include <linux/proc_fs.h>
#include <linux/rcupdate_trace.h>
#include <linux/sched.h>
#include <linux/seq_file.h>
#include <linux/skbuff.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/srcu.h>
#include <linux/threads.h>
#include <linux/tracepoint.h>
#include <linux/user_namespace.h>
#include <net/addrconf.h>
#include <net/inet_common.h>
#include <net/inet_sock.h>
#include <net/ipv6.h>
#include <net/net_namespace.h>
#include <net/netns/generic.h>
#include <net/route.h>
#include <net/sock.h>
#include <net/tcp.h>
#include <net/tcp_states.h>
#include <trace/events/tcp.h>

#if !defined(CONFIG_X86_64)
#error "toa: only x86-64 is supported so far: another architecture needs its own block of TOA_FTRACE_ARG offsets in toa_bindings.h"
#endif
#if !defined(CONFIG_SMP)
#error "toa: this kernel is built without CONFIG_SMP, which toa needs"
#endif
#if !defined(CONFIG_DYNAMIC_FTRACE_WITH_ARGS)
#error "toa: this kernel is built without CONFIG_DYNAMIC_FTRACE_WITH_ARGS, which toa needs to hook getname and accept"
#endif
#if !defined(CONFIG_TRACEPOINTS)
#error "toa: this kernel is built without CONFIG_TRACEPOINTS, which toa needs to see sockets die"
#endif
#if !defined(CONFIG_NETFILTER)
#error "toa: this kernel is built without CONFIG_NETFILTER, which toa needs to answer getsockopt"
#endif
#if !defined(CONFIG_MODULE_UNLOAD)
#error "toa: this kernel is built without CONFIG_MODULE_UNLOAD, so that nothing counts who is in a module: toa needs that to take back a failed load"
#endif
#if !defined(CONFIG_PROC_FS) || !defined(CONFIG_NET_NS) || !defined(CONFIG_INET)
#error "toa: this kernel is built without CONFIG_PROC_FS, CONFIG_NET_NS or CONFIG_INET, which toa needs"
#endif

/* linux/raw_spinlock.rs makes unlocked locks of zeroes. */
#if defined(CONFIG_DEBUG_SPINLOCK) || defined(CONFIG_DEBUG_LOCK_ALLOC)
#error "toa: this kernel is built with CONFIG_DEBUG_SPINLOCK or CONFIG_DEBUG_LOCK_ALLOC, which linux/raw_spinlock.rs cannot initialise yet"
#endif

/* The functions that toa hooks, and the C prototypes that its Rust code assumes. */
#define TOA_ASSERT_PROTOTYPE(what, ret, ...)					\
	_Static_assert(__builtin_types_compatible_p(typeof(&what),		\
						    ret (*)(__VA_ARGS__)),	\
		       "toa: the prototype of " #what " changed in this kernel: adapt linux/callbacks.rs")

TOA_ASSERT_PROTOTYPE(tcp_child_process, enum skb_drop_reason,
		     struct sock *, struct sock *, struct sk_buff *);
TOA_ASSERT_PROTOTYPE(tcp_disconnect, int, struct sock *, int);
TOA_ASSERT_PROTOTYPE(inet_getname, int, struct socket *, struct sockaddr *, int);
#if IS_ENABLED(CONFIG_IPV6)
TOA_ASSERT_PROTOTYPE(inet6_getname, int, struct socket *, struct sockaddr *, int);
#endif
/* The probe's prototype: the private pointer first, then TP_PROTO of include/trace/events/tcp.h. */
TOA_ASSERT_PROTOTYPE(check_trace_callback_type_tcp_destroy_sock, void,
		     void (*)(void *, struct sock *));
_Static_assert(__builtin_types_compatible_p(ftrace_func_t,
		void (*)(unsigned long, unsigned long, struct ftrace_ops *, struct ftrace_regs *)),
	"toa: ftrace_func_t changed in this kernel: adapt linux/ftrace.rs");

/* One offset, and the assertion that the field still has the size that linux/sock.rs reads. */
#define TOA_OFFSET(name, type, field, size)					\
	enum { name = offsetof(type, field) };					\
	_Static_assert(sizeof_field(type, field) == (size),			\
		       "toa: the size of " #field " changed in this kernel: adapt linux/sock.rs")

TOA_OFFSET(TOA_SOCKET_SK, struct socket, sk, 8);
TOA_OFFSET(TOA_SOCK_FAMILY, struct sock, sk_family, 2);
TOA_OFFSET(TOA_SOCK_STATE, struct sock, sk_state, 1);
TOA_OFFSET(TOA_SOCK_DADDR, struct sock, sk_daddr, 4);
TOA_OFFSET(TOA_SOCK_RCV_SADDR, struct sock, sk_rcv_saddr, 4);
TOA_OFFSET(TOA_SOCK_DPORT, struct sock, sk_dport, 2);
TOA_OFFSET(TOA_SOCK_BOUND_DEV_IF, struct sock, sk_bound_dev_if, 4);
TOA_OFFSET(TOA_SOCK_TYPE, struct sock, sk_type, 2);
TOA_OFFSET(TOA_SOCK_PROTOCOL, struct sock, sk_protocol, 2);
TOA_OFFSET(TOA_SOCK_NET, struct sock, sk_net, 8);
TOA_OFFSET(TOA_INET_SPORT, struct inet_sock, inet_sport, 2);
#if IS_ENABLED(CONFIG_IPV6)
TOA_OFFSET(TOA_SOCK_V6_DADDR, struct sock, sk_v6_daddr, 16);
TOA_OFFSET(TOA_SOCK_V6_RCV_SADDR, struct sock, sk_v6_rcv_saddr, 16);
TOA_OFFSET(TOA_INET_FLAGS, struct inet_sock, inet_flags, 8);
TOA_OFFSET(TOA_INET_PINET6, struct inet_sock, pinet6, 8);
TOA_OFFSET(TOA_IPV6_FLOW_LABEL, struct ipv6_pinfo, flow_label, 4);
enum { TOA_INET_FLAGS_SNDFLOW = INET_FLAGS_SNDFLOW };
#else
/* Never read: linux/sock.rs asks for CONFIG_IPV6 first. */
enum { TOA_SOCK_V6_DADDR, TOA_SOCK_V6_RCV_SADDR, TOA_INET_FLAGS, TOA_INET_PINET6,
       TOA_IPV6_FLOW_LABEL, TOA_INET_FLAGS_SNDFLOW };
#endif
TOA_OFFSET(TOA_SKB_HEAD, struct sk_buff, head, 8);
TOA_OFFSET(TOA_SKB_TRANSPORT_HEADER, struct sk_buff, transport_header, 2);
TOA_OFFSET(TOA_SKB_DEV, struct sk_buff, dev, 8);
TOA_OFFSET(TOA_SKB_IIF, struct sk_buff, skb_iif, 4);
TOA_OFFSET(TOA_SKB_PROTOCOL, struct sk_buff, protocol, 2);
TOA_OFFSET(TOA_SEQ_PRIVATE, struct seq_file, private, 8);
TOA_OFFSET(TOA_NET_GEN, struct net, gen, 8);
TOA_OFFSET(TOA_NET_PROC_NET, struct net, proc_net, 8);
TOA_OFFSET(TOA_NET_USER_NS, struct net, user_ns, 8);

_Static_assert(offsetof(struct sock, __sk_common) == 0 && offsetof(struct inet_sock, sk) == 0,
	"toa: struct sock no longer begins with struct sock_common: adapt linux/sock.rs");
_Static_assert(offsetof(struct net_generic, ptr) == 0,
	"toa: the layout of struct net_generic changed in this kernel: adapt linux/pernet.rs");

/* What Rust code makes itself: bindgen and the compiler of the kernel must agree on its size. */
enum {
	TOA_SIZEOF_FTRACE_OPS = sizeof(struct ftrace_ops),
	TOA_SIZEOF_PERNET_OPERATIONS = sizeof(struct pernet_operations),
	TOA_SIZEOF_NF_SOCKOPT_OPS = sizeof(struct nf_sockopt_ops),
	TOA_SIZEOF_RAW_SPINLOCK = sizeof(raw_spinlock_t),
	TOA_SIZEOF_SOCKADDR_IN = sizeof(struct sockaddr_in),
	TOA_SIZEOF_SOCKADDR_IN6 = sizeof(struct sockaddr_in6),
};

/* Values that are macros or enumerators of C and no constants to bindgen. */
enum {
	TOA_TCP_SYN_SENT = TCP_SYN_SENT,
	TOA_TCP_CLOSE = TCP_CLOSE,
	TOA_SOCK_STREAM = SOCK_STREAM,
	TOA_IPPROTO_TCP = IPPROTO_TCP,
	TOA_AF_INET = AF_INET,
	TOA_AF_INET6 = AF_INET6,
	TOA_PF_KTHREAD = PF_KTHREAD,
	TOA_NUMA_NO_NODE = NUMA_NO_NODE,
	TOA_ETH_P_IPV6 = ETH_P_IPV6,
	TOA_RTN_UNICAST = RTN_UNICAST,
	TOA_NR_CPUS = NR_CPUS,
	TOA_HZ = HZ,
	TOA_KMALLOC_MINALIGN = ARCH_KMALLOC_MINALIGN,
};
/* linux/ftrace.rs: where a hooked function's arguments and its resume address are, one block per architecture. */
TOA_OFFSET(TOA_FTRACE_ARG0, struct __arch_ftrace_regs, regs.di, 8);
TOA_OFFSET(TOA_FTRACE_ARG1, struct __arch_ftrace_regs, regs.si, 8);
TOA_OFFSET(TOA_FTRACE_ARG2, struct __arch_ftrace_regs, regs.dx, 8);
TOA_OFFSET(TOA_FTRACE_IP, struct __arch_ftrace_regs, regs.ip, 8);
enum {
	TOA_FTRACE_PERMANENT = FTRACE_OPS_FL_PERMANENT,
	TOA_FTRACE_IPMODIFY = FTRACE_OPS_FL_IPMODIFY,
	TOA_PAGE_SHIFT = PAGE_SHIFT,
};
