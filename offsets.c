/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The kernel's side of linux/c.rs. The kernel's own compiler turns this file into assembly, with the
 * kernel's flags and headers, and Kbuild makes toa_offsets.rs of the constants in it, as the kernel
 * makes asm-offsets.h. Nothing here is linked into the module.
 *
 * Each PROTOTYPE has a declaration in linux/c.rs. A host test compares the two lists.
 *
 * Where kernels differ, a macro of the header, a type, or an export decides, never the version. Kbuild
 * defines TOA_EXPORTS_… for the symbols of its list that are in Module.symvers. Rust code tests the
 * constants: the branch of another kernel is not compiled into the module.
 *
 * A kernel that changed one of them stops the build here, with a sentence.
 */
#include <linux/capability.h>
#include <linux/cpuhotplug.h>
#include <linux/ftrace.h>
#include <linux/ipv6.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/net.h>
#include <linux/netdevice.h>
#include <linux/netfilter.h>
#include <linux/nsproxy.h>
#include <linux/percpu.h>
#include <linux/proc_fs.h>
#include <linux/random.h>
#include <linux/ratelimit.h>
#include <linux/rcupdate_trace.h>
#include <linux/sched.h>
#include <linux/semaphore.h>
#include <linux/seq_file.h>
#include <linux/seq_file_net.h>
#include <linux/skbuff.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/srcu.h>
#include <linux/sysctl.h>
#include <linux/threads.h>
#include <linux/timekeeping.h>
#include <linux/tracepoint.h>
#include <linux/user_namespace.h>
#include <linux/workqueue.h>
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

#include "offsets.h"

#if !defined(CONFIG_X86_64)
#error "toa: only x86-64 is supported so far: another architecture needs its own block of FTRACE_ARG offsets in offsets.c"
#endif
#if !defined(CONFIG_SMP)
#error "toa: this kernel is built without CONFIG_SMP, which toa needs"
#endif
#if !defined(CONFIG_DYNAMIC_FTRACE_WITH_ARGS) && !defined(CONFIG_DYNAMIC_FTRACE_WITH_REGS)
#error "toa: this kernel is built without CONFIG_DYNAMIC_FTRACE_WITH_ARGS and CONFIG_DYNAMIC_FTRACE_WITH_REGS: toa needs one of them to hook getname and accept"
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
#if !defined(CONFIG_SYSCTL)
#error "toa: this kernel is built without CONFIG_SYSCTL, which toa needs for its policy"
#endif

/* Hooked functions, see linux/callbacks.rs. */
PROTOTYPE(typeof(tcp_child_process(NULL, NULL, NULL)), tcp_child_process,
	  struct sock *, struct sock *, struct sk_buff *);
PROTOTYPE(void, tcp_clear_retrans, struct tcp_sock *);
PROTOTYPE(int, inet_getname, struct socket *, struct sockaddr *, int);
#if IS_ENABLED(CONFIG_IPV6)
PROTOTYPE(int, inet6_getname, struct socket *, struct sockaddr *, int);
#endif
/* The probe's prototype: the private pointer first, then TP_PROTO of include/trace/events/tcp.h. */
PROTOTYPE(void, check_trace_callback_type_tcp_destroy_sock, void (*)(void *, struct sock *));
/*
 * The registers that a handler gets: a structure that holds a struct pt_regs, hidden by a macro since
 * 6.13, and the struct pt_regs itself before 5.11.
 */
#if defined(arch_ftrace_regs)
#define FTRACE_REGISTER(name, register)						\
	OFFSET_OF(name, struct __arch_ftrace_regs, regs.register, 8)
#elif defined(CONFIG_DYNAMIC_FTRACE_WITH_ARGS)
#define FTRACE_REGISTER(name, register) OFFSET_OF(name, struct ftrace_regs, regs.register, 8)
#else
#define FTRACE_REGISTER(name, register) OFFSET_OF(name, struct pt_regs, register, 8)
#endif
struct ftrace_regs;
_Static_assert(__builtin_types_compatible_p(ftrace_func_t,
		void (*)(unsigned long, unsigned long, struct ftrace_ops *, struct ftrace_regs *)) ||
	       (!IS_ENABLED(CONFIG_DYNAMIC_FTRACE_WITH_ARGS) &&
		__builtin_types_compatible_p(ftrace_func_t,
		void (*)(unsigned long, unsigned long, struct ftrace_ops *, struct pt_regs *))),
	"toa: ftrace_func_t changed in this kernel: adapt linux/ftrace.rs");

/* Called functions, in the order of linux/c.rs. */
PROTOTYPE(int, register_ftrace_function, struct ftrace_ops *);
PROTOTYPE(int, unregister_ftrace_function, struct ftrace_ops *);
PROTOTYPE(int, ftrace_set_filter, struct ftrace_ops *, unsigned char *, int, int);
PROTOTYPE(void, ftrace_free_filter, struct ftrace_ops *);
PROTOTYPE(int, tracepoint_probe_register, struct tracepoint *, void *, void *);
PROTOTYPE(int, tracepoint_probe_unregister, struct tracepoint *, void *, void *);
PROTOTYPE(void, for_each_kernel_tracepoint, void (*)(struct tracepoint *, void *), void *);
PROTOTYPE(void, synchronize_srcu, struct srcu_struct *);
PROTOTYPE(void, synchronize_rcu, void);
/* Without CONFIG_PREEMPT_RCU they are inline functions. */
PROTOTYPE(void, __rcu_read_lock, void);
PROTOTYPE(void, __rcu_read_unlock, void);
PROTOTYPE(int, register_pernet_subsys, struct pernet_operations *);
PROTOTYPE(void, unregister_pernet_subsys, struct pernet_operations *);
PROTOTYPE(int, nf_register_sockopt, struct nf_sockopt_ops *);
PROTOTYPE(void, nf_unregister_sockopt, struct nf_sockopt_ops *);
PROTOTYPE(int, module_refcount, struct module *);
PROTOTYPE(struct proc_dir_entry *, proc_create_net_single, const char *, umode_t,
	  struct proc_dir_entry *, int (*)(struct seq_file *, void *), void *);
PROTOTYPE(struct proc_dir_entry *, proc_create_net_data, const char *, umode_t,
	  struct proc_dir_entry *, const struct seq_operations *, unsigned int, void *);
PROTOTYPE(void, remove_proc_entry, const char *, struct proc_dir_entry *);
PROTOTYPE(void, seq_printf, struct seq_file *, const char *, ...);
PROTOTYPE(int, net_ratelimit, void);
#ifdef CONFIG_DEBUG_SPINLOCK
PROTOTYPE(void, __raw_spin_lock_init, raw_spinlock_t *, const char *, struct lock_class_key *, short);
#endif
PROTOTYPE(unsigned long, _raw_spin_lock_irqsave, raw_spinlock_t *);
PROTOTYPE(void, _raw_spin_unlock_irqrestore, raw_spinlock_t *, unsigned long);
PROTOTYPE(u64, ktime_get_mono_fast_ns, void);
/* Since 6.10 __alloc_percpu is a macro. */
#ifdef __alloc_percpu
PROTOTYPE(void __percpu *, pcpu_alloc_noprof, size_t, size_t, bool, gfp_t);
#define HAS_PCPU_ALLOC_NOPROF 1
#else
PROTOTYPE(void __percpu *, __alloc_percpu, size_t, size_t);
#define HAS_PCPU_ALLOC_NOPROF 0
#endif
PROTOTYPE(void, free_percpu, void __percpu *);
/*
 * Since 6.12 a macro chooses the way to make a cache, by its arguments. Before, a function had them
 * all. Since 6.10 the profiled allocation has another name.
 */
#ifdef TOA_EXPORTS___kmem_cache_create_args
PROTOTYPE(struct kmem_cache *, __kmem_cache_create_args, const char *, unsigned int,
	  struct kmem_cache_args *, slab_flags_t);
#else
PROTOTYPE(struct kmem_cache *, kmem_cache_create, const char *, unsigned int, unsigned int,
	  slab_flags_t, void (*)(void *));
#endif
PROTOTYPE(void, kmem_cache_destroy, struct kmem_cache *);
#ifdef TOA_EXPORTS_kmem_cache_alloc_noprof
PROTOTYPE(void *, kmem_cache_alloc_noprof, struct kmem_cache *, gfp_t);
#else
PROTOTYPE(void *, kmem_cache_alloc, struct kmem_cache *, gfp_t);
#endif
PROTOTYPE(void, kmem_cache_free, struct kmem_cache *, void *);
#ifdef CONFIG_DEBUG_OBJECTS_WORK
PROTOTYPE(void, __init_work, struct work_struct *, int);
#endif
#ifdef CONFIG_LOCKDEP
PROTOTYPE(void, lockdep_init_map_type, struct lockdep_map *, const char *, struct lock_class_key *,
	  int, u8, u8, u8);
#endif
PROTOTYPE(bool, queue_work_on, int, struct workqueue_struct *, struct work_struct *);
PROTOTYPE(bool, cancel_work_sync, struct work_struct *);
PROTOTYPE(int, __cpuhp_setup_state, enum cpuhp_state, const char *, bool, int (*)(unsigned int),
	  int (*)(unsigned int), bool);
PROTOTYPE(void, __cpuhp_remove_state, enum cpuhp_state, bool);
PROTOTYPE(u64, get_random_u64, void);
PROTOTYPE(void, schedule, void);
PROTOTYPE(long, schedule_timeout_idle, long);
PROTOTYPE(unsigned int, inet_addr_type_dev_table, struct net *, const struct net_device *, __be32);
#if IS_ENABLED(CONFIG_IPV6)
PROTOTYPE(int, ipv6_chk_addr_and_flags, struct net *, const struct in6_addr *,
	  const struct net_device *, bool, int, u32);
/* Exported until that function became an inline one that reads the variable. */
#ifdef TOA_EXPORTS_ipv6_mod_enabled
PROTOTYPE(bool, ipv6_mod_enabled, void);
#else
_Static_assert(__builtin_types_compatible_p(typeof(disable_ipv6_mod), int),
	"toa: the type of disable_ipv6_mod changed in this kernel: adapt linux/c.rs");
#endif
#endif
PROTOTYPE(struct net_device *, dev_get_by_index_rcu, struct net *, int);
/*
 * From 7.3 on the head is a structure that is a pointer or a `struct rcu_head`: never larger. Before
 * 6.2 the second argument was the offset of the head, instead of the object.
 */
struct kvfree_rcu_head;
#define KVFREE_TAKES_OFFSET							\
	__builtin_types_compatible_p(typeof(&kvfree_call_rcu), void (*)(struct rcu_head *, rcu_callback_t))
_Static_assert(__builtin_types_compatible_p(typeof(&kvfree_call_rcu),
					    void (*)(struct kvfree_rcu_head *, void *)) ||
	       __builtin_types_compatible_p(typeof(&kvfree_call_rcu),
					    void (*)(struct rcu_head *, void *)) ||
	       KVFREE_TAKES_OFFSET,
	"toa: the prototype of kvfree_call_rcu changed in this kernel: adapt linux/rcu_pointer.rs");
/*
 * Since 6.6 the registration takes the table's size, and its function has another name. The table
 * and the handler's entry are const since 6.11 and later: no difference for the calls, but kCFI hashes
 * the handler's prototype.
 */
#ifdef TOA_EXPORTS_register_net_sysctl_sz
_Static_assert(__builtin_types_compatible_p(typeof(&register_net_sysctl_sz),
		struct ctl_table_header *(*)(struct net *, const char *, const struct ctl_table *, size_t)) ||
	       __builtin_types_compatible_p(typeof(&register_net_sysctl_sz),
		struct ctl_table_header *(*)(struct net *, const char *, struct ctl_table *, size_t)),
	"toa: the prototype of register_net_sysctl_sz changed in this kernel: adapt linux/sysctl.rs");
#else
PROTOTYPE(struct ctl_table_header *, register_net_sysctl, struct net *, const char *,
	  struct ctl_table *);
#endif
_Static_assert(__builtin_types_compatible_p(proc_handler *,
		int (*)(const struct ctl_table *, int, void *, size_t *, loff_t *)) ||
	       (!IS_ENABLED(CONFIG_CFI) && !IS_ENABLED(CONFIG_CFI_CLANG) &&
		__builtin_types_compatible_p(proc_handler *,
		int (*)(struct ctl_table *, int, void *, size_t *, loff_t *))),
	"toa: the prototype of proc_handler changed in this kernel: adapt linux/sysctl.rs");
PROTOTYPE(void, unregister_net_sysctl_table, struct ctl_table_header *);
PROTOTYPE(void, down, struct semaphore *);
PROTOTYPE(void, up, struct semaphore *);
PROTOTYPE(bool, ns_capable, struct user_namespace *, int);
PROTOTYPE(int, ___ratelimit, struct ratelimit_state *, const char *);

/* Variables. */
VARIABLE(struct srcu_struct, tracepoint_srcu);
#ifdef TOA_EXPORTS_rcu_tasks_trace_srcu_struct
VARIABLE(struct srcu_struct, rcu_tasks_trace_srcu_struct);
#endif
/* The queue has a second name since 6.17, and only that one later. */
#ifdef TOA_EXPORTS_system_dfl_wq
VARIABLE(struct workqueue_struct *, system_dfl_wq);
#else
VARIABLE(struct workqueue_struct *, system_unbound_wq);
#endif
#ifdef CONFIG_X86_64
/* Its type also has the address space of per-CPU variables. */
_Static_assert(sizeof(this_cpu_off) == sizeof(unsigned long),
	"toa: the type of this_cpu_off changed in this kernel: adapt linux/percpu.rs");
#endif
VARIABLE(unsigned long [NR_CPUS], __per_cpu_offset);
VARIABLE(struct cpumask, __cpu_possible_mask);
VARIABLE(atomic_long_t, _totalram_pages);
VARIABLE(struct net, init_net);
VARIABLE(struct user_namespace, init_user_ns);

_Static_assert(offsetof(struct sock, __sk_common) == 0 && offsetof(struct inet_sock, sk) == 0,
	"toa: struct sock no longer begins with struct sock_common: adapt linux/sock.rs");
_Static_assert(offsetof(struct tcp_sock, inet_conn) == 0 &&
	       offsetof(struct inet_connection_sock, icsk_inet) == 0,
	"toa: struct tcp_sock no longer begins with struct inet_sock: adapt linux/callbacks.rs");
/* The two addresses of an IPv4 connection, in this order. */
_Static_assert(offsetof(struct sock, sk_daddr) == offsetof(struct sock, __sk_common.skc_addrpair) &&
	       offsetof(struct sock, sk_rcv_saddr) == offsetof(struct sock, __sk_common.skc_addrpair) + 4,
	"toa: struct sock_common changed in this kernel: adapt linux/sock.rs");
_Static_assert(sizeof(enum cpuhp_state) == sizeof(int),
	"toa: enum cpuhp_state changed in this kernel: adapt linux/cpu_hotplug.rs");
_Static_assert(WORK_STRUCT_NO_POOL == (unsigned long)WORK_OFFQ_POOL_NONE << WORK_OFFQ_POOL_SHIFT,
	"toa: struct work_struct changed in this kernel: adapt linux/c.rs");
/* The bit-field skc_net_refcnt lies in the byte between these two fields. */
_Static_assert(offsetof(struct sock_common, skc_bound_dev_if) -
	       offsetof(struct sock_common, skc_state) == 2,
	       "toa: skc_net_refcnt moved in this kernel: adapt offsets.c");
_Static_assert(__builtin_types_compatible_p(typeof_member(struct seq_operations, start),
					    void *(*)(struct seq_file *, loff_t *)) &&
	       __builtin_types_compatible_p(typeof_member(struct seq_operations, stop),
					    void (*)(struct seq_file *, void *)) &&
	       __builtin_types_compatible_p(typeof_member(struct seq_operations, next),
					    void *(*)(struct seq_file *, void *, loff_t *)) &&
	       __builtin_types_compatible_p(typeof_member(struct seq_operations, show),
					    int (*)(struct seq_file *, void *)),
	"toa: struct seq_operations changed in this kernel: adapt linux/proc_net.rs");
_Static_assert(offsetof(struct net_generic, ptr) == 0,
	"toa: the layout of struct net_generic changed in this kernel: adapt linux/pernet.rs");
/* Writing one after the other to the words of `struct in6_addr`, as to `struct sockaddr_in6`. */
_Static_assert(sizeof(struct in6_addr) == 16, "toa: struct in6_addr changed: adapt linux/c.rs");

/* The bit-field follows the options of received packets. */
#define IPV6_SNDFLOW_BYTE (offsetofend(struct ipv6_pinfo, rxopt))

void toa_offsets(void);
void toa_offsets(void)
{
	/* linux/sock.rs. The sizes are those of the Rust types there. */
	OFFSET_OF(SOCKET_SK, struct socket, sk, 8);
	OFFSET_OF(SOCK_FAMILY, struct sock, sk_family, 2);
	OFFSET_OF(SOCK_STATE, struct sock, sk_state, 1);
	OFFSET_OF(SOCK_ADDRPAIR, struct sock, __sk_common.skc_addrpair, 8);
	OFFSET_OF(SOCK_DPORT, struct sock, sk_dport, 2);
	OFFSET_OF(SOCK_TYPE, struct sock, sk_type, 2);
	OFFSET_OF(SOCK_PROTOCOL, struct sock, sk_protocol, 2);
	OFFSET_OF(SOCK_NET, struct sock, sk_net, 8);
	OFFSET_OF(INET_SPORT, struct inet_sock, inet_sport, 2);
	CONSTANT(SOCK_NET_REFCNT, offsetof(struct sock_common, skc_state) + 1);
	CONSTANT(SOCK_NET_REFCNT_MASK, BIT_FIELD_BYTE(struct sock_common, skc_net_refcnt,
		 offsetof(struct sock_common, skc_state) + 1));
#if IS_ENABLED(CONFIG_IPV6)
	OFFSET_OF(SOCK_V6_DADDR, struct sock, sk_v6_daddr, 16);
	OFFSET_OF(SOCK_V6_RCV_SADDR, struct sock, sk_v6_rcv_saddr, 16);
	OFFSET_OF(INET_PINET6, struct inet_sock, pinet6, 8);
	OFFSET_OF(IPV6_FLOW_LABEL, struct ipv6_pinfo, flow_label, 4);
	/* Since 6.6 a bit of `inet_flags`, which that macro tests; before, a bit-field of ipv6_pinfo. */
#ifdef inet_test_bit
	CONSTANT(HAS_INET_FLAGS, 1);
	OFFSET_OF(INET_FLAGS, struct inet_sock, inet_flags, 8);
	CONSTANT(INET_FLAGS_SNDFLOW, INET_FLAGS_SNDFLOW);
	CONSTANT(IPV6_SNDFLOW, 0);
	CONSTANT(IPV6_SNDFLOW_MASK, 0);
#else
	CONSTANT(HAS_INET_FLAGS, 0);
	CONSTANT(INET_FLAGS, 0);
	CONSTANT(INET_FLAGS_SNDFLOW, 0);
	BUILD_BUG_ON_MSG(!BIT_FIELD_BYTE(struct ipv6_pinfo, sndflow, IPV6_SNDFLOW_BYTE),
			 "toa: sndflow moved in this kernel: adapt offsets.c");
	CONSTANT(IPV6_SNDFLOW, IPV6_SNDFLOW_BYTE);
	CONSTANT(IPV6_SNDFLOW_MASK,
		 BIT_FIELD_BYTE(struct ipv6_pinfo, sndflow, IPV6_SNDFLOW_BYTE));
#endif
#endif
	OFFSET_OF(SKB_HEAD, struct sk_buff, head, 8);
	OFFSET_OF(SKB_TRANSPORT_HEADER, struct sk_buff, transport_header, 2);
	OFFSET_OF(SKB_DEV, struct sk_buff, dev, 8);
	OFFSET_OF(SKB_IIF, struct sk_buff, skb_iif, 4);
	OFFSET_OF(SKB_PROTOCOL, struct sk_buff, protocol, 2);

	/* linux/own_address.rs */
#if IS_ENABLED(CONFIG_IPV6)
	CONSTANT(HAS_IPV6_MOD_ENABLED, IS_EXPORTED(ipv6_mod_enabled));
#endif

	/* linux/proc_net.rs */
	OFFSET_OF(SEQ_PRIVATE, struct seq_file, private, 8);
	CONSTANT(SIZEOF_SEQ_NET_PRIVATE, sizeof(struct seq_net_private));
	OFFSET_OF(SEQ_NET_PRIVATE_NET, struct seq_net_private, net, 8);

	/* linux/pernet.rs */
	OFFSET_OF(NET_GEN, struct net, gen, 8);
	OFFSET_OF(NET_PROC_NET, struct net, proc_net, 8);
	OFFSET_OF(NET_USER_NS, struct net, user_ns, 8);
	OFFSET_OF(NET_INUM, struct net, ns.inum, 4);
	OFFSET_OF(TASK_NSPROXY, struct task_struct, nsproxy, 8);
	OFFSET_OF(TASK_TGID, struct task_struct, tgid, 4);
	OFFSET_OF(NSPROXY_NET_NS, struct nsproxy, net_ns, 8);

	/* linux/rcu.rs */
#ifdef CONFIG_DEBUG_LOCK_ALLOC
	CONSTANT(HAS_RCU_READ_LOCK, 0);
#else
	CONSTANT(HAS_RCU_READ_LOCK, IS_EXPORTED(__rcu_read_lock));
#endif

	/* linux/slab_cache.rs, linux/worker.rs */
#ifdef TOA_EXPORTS___kmem_cache_create_args
	CONSTANT(HAS_KMEM_CACHE_CREATE_ARGS, 1);
	CONSTANT(SIZEOF_KMEM_CACHE_ARGS, sizeof(struct kmem_cache_args));
	OFFSET_OF(KMEM_CACHE_ARGS_ALIGN, struct kmem_cache_args, align, 4);
#else
	CONSTANT(HAS_KMEM_CACHE_CREATE_ARGS, 0);
	CONSTANT(SIZEOF_KMEM_CACHE_ARGS, 4);
	CONSTANT(KMEM_CACHE_ARGS_ALIGN, 0);
#endif
	CONSTANT(HAS_KMEM_CACHE_ALLOC_NOPROF, IS_EXPORTED(kmem_cache_alloc_noprof));
	CONSTANT(SLAB_RECORDS, SLAB_TYPESAFE_BY_RCU | SLAB_HWCACHE_ALIGN);
	CONSTANT(GFP_MAY_SLEEP, GFP_KERNEL | __GFP_NOWARN);
	CONSTANT(GFP_SOFTIRQ, GFP_ATOMIC | __GFP_NOWARN);
	CONSTANT(HAS_SYSTEM_DFL_WQ, IS_EXPORTED(system_dfl_wq));
	CONSTANT(WORK_CPU_UNBOUND, WORK_CPU_UNBOUND);

	/* linux/cpu_hotplug.rs. C's functions take the enumerator as an int. */
	CONSTANT(CPUHP_BP_PREPARE_DYN, CPUHP_BP_PREPARE_DYN);

	/* linux/percpu.rs, linux/rcu_pointer.rs */
	CONSTANT(HAS_PCPU_ALLOC_NOPROF, HAS_PCPU_ALLOC_NOPROF);
	CONSTANT(KVFREE_TAKES_OFFSET, KVFREE_TAKES_OFFSET);

	/* linux/tracepoint.rs: what tracepoint_synchronize_unregister waits for beside the SRCU. */
	CONSTANT(HAS_RCU_TASKS_TRACE_SRCU, IS_EXPORTED(rcu_tasks_trace_srcu_struct));
	OFFSET_OF(TRACEPOINT_NAME, struct tracepoint, name, 8);

	/* linux/ftrace.rs: the arguments and the resume address, one block per architecture. */
	FTRACE_REGISTER(FTRACE_ARG0, di);
	FTRACE_REGISTER(FTRACE_ARG1, si);
	FTRACE_REGISTER(FTRACE_ARG2, dx);
	FTRACE_REGISTER(FTRACE_IP, ip);
	/* The flag by which handlers get the registers, where not all get those of the arguments. */
#ifdef CONFIG_DYNAMIC_FTRACE_WITH_ARGS
	CONSTANT(FTRACE_REGISTERS, 0);
#else
	CONSTANT(FTRACE_REGISTERS, FTRACE_OPS_FL_SAVE_REGS);
#endif
	/* Exported since 6.3, and by some older kernels. */
	CONSTANT(HAS_FTRACE_FREE_FILTER, IS_EXPORTED(ftrace_free_filter));
	OFFSET_OF(FTRACE_OPS_FILTER, struct ftrace_ops, local_hash.filter_hash, 8);
	CONSTANT(FTRACE_PERMANENT, FTRACE_OPS_FL_PERMANENT);
	CONSTANT(FTRACE_IPMODIFY, FTRACE_OPS_FL_IPMODIFY);

	/* linux/c.rs: structures that Rust code makes. */
	CONSTANT(SIZEOF_FTRACE_OPS, sizeof(struct ftrace_ops));
	OFFSET_OF(FTRACE_OPS_FUNC, struct ftrace_ops, func, 8);
	OFFSET_OF(FTRACE_OPS_FLAGS, struct ftrace_ops, flags, 8);
	CONSTANT(SIZEOF_PERNET_OPERATIONS, sizeof(struct pernet_operations));
	OFFSET_OF(PERNET_INIT, struct pernet_operations, init, 8);
	OFFSET_OF(PERNET_EXIT, struct pernet_operations, exit, 8);
	OFFSET_OF(PERNET_ID, struct pernet_operations, id, 8);
	OFFSET_OF(PERNET_SIZE, struct pernet_operations, size, 8);
	CONSTANT(SIZEOF_NF_SOCKOPT_OPS, sizeof(struct nf_sockopt_ops));
	OFFSET_OF(NF_SOCKOPT_PF, struct nf_sockopt_ops, pf, 1);
	OFFSET_OF(NF_SOCKOPT_GET_OPTMIN, struct nf_sockopt_ops, get_optmin, 4);
	OFFSET_OF(NF_SOCKOPT_GET_OPTMAX, struct nf_sockopt_ops, get_optmax, 4);
	OFFSET_OF(NF_SOCKOPT_GET, struct nf_sockopt_ops, get, 8);
	OFFSET_OF(NF_SOCKOPT_OWNER, struct nf_sockopt_ops, owner, 8);
	CONSTANT(SIZEOF_SEQ_OPERATIONS, sizeof(struct seq_operations));
	OFFSET_OF(SEQ_START, struct seq_operations, start, 8);
	OFFSET_OF(SEQ_STOP, struct seq_operations, stop, 8);
	OFFSET_OF(SEQ_NEXT, struct seq_operations, next, 8);
	OFFSET_OF(SEQ_SHOW, struct seq_operations, show, 8);
	CONSTANT(HAS_REGISTER_NET_SYSCTL_SZ, IS_EXPORTED(register_net_sysctl_sz));
	CONSTANT(SIZEOF_CTL_TABLE, sizeof(struct ctl_table));
	OFFSET_OF(CTL_TABLE_PROCNAME, struct ctl_table, procname, 8);
	OFFSET_OF(CTL_TABLE_DATA, struct ctl_table, data, 8);
	OFFSET_OF(CTL_TABLE_MODE, struct ctl_table, mode, 2);
	OFFSET_OF(CTL_TABLE_HANDLER, struct ctl_table, proc_handler, 8);
	OFFSET_OF(CTL_TABLE_EXTRA1, struct ctl_table, extra1, 8);
	CONSTANT(SIZEOF_SEMAPHORE, sizeof(struct semaphore));
	OFFSET_OF(SEMAPHORE_COUNT, struct semaphore, count, 4);
	/* Before 7.1 a list of waiters, later a pointer to the first one: then zeroes are no waiters. */
#ifdef TOA_FIELD_semaphore_wait_list
	CONSTANT(SEMAPHORE_HAS_WAIT_LIST, 1);
	OFFSET_OF(SEMAPHORE_WAIT_LIST, struct semaphore, wait_list, 16);
#else
	_Static_assert(sizeof_field(struct semaphore, first_waiter) == 8,
		"toa: struct semaphore changed in this kernel: adapt linux/c.rs");
	CONSTANT(SEMAPHORE_HAS_WAIT_LIST, 0);
	CONSTANT(SEMAPHORE_WAIT_LIST, 0);
#endif
	CONSTANT(SIZEOF_RATELIMIT_STATE, sizeof(struct ratelimit_state));
	OFFSET_OF(RATELIMIT_INTERVAL, struct ratelimit_state, interval, 4);
	OFFSET_OF(RATELIMIT_BURST, struct ratelimit_state, burst, 4);
	CONSTANT(SIZEOF_WORK_STRUCT, sizeof(struct work_struct));
	OFFSET_OF(WORK_DATA, struct work_struct, data, 8);
	OFFSET_OF(WORK_ENTRY, struct work_struct, entry, 16);
	OFFSET_OF(WORK_FUNC, struct work_struct, func, 8);
	CONSTANT(WORK_OFFQ_POOL_NONE, WORK_OFFQ_POOL_NONE);
	CONSTANT(WORK_OFFQ_POOL_SHIFT, WORK_OFFQ_POOL_SHIFT);
#ifdef CONFIG_LOCKDEP
	CONSTANT(WORK_LOCKDEP_MAP, offsetof(struct work_struct, lockdep_map));
#endif
	CONSTANT(SIZEOF_RAW_SPINLOCK, sizeof(raw_spinlock_t));
	OFFSET_OF(SEMAPHORE_LOCK, struct semaphore, lock, sizeof(raw_spinlock_t));
	OFFSET_OF(RATELIMIT_LOCK, struct ratelimit_state, lock, sizeof(raw_spinlock_t));
#ifdef CONFIG_DEBUG_SPINLOCK
	CONSTANT(SPINLOCK_MAGIC, SPINLOCK_MAGIC);
	OFFSET_OF(RAW_SPINLOCK_MAGIC, raw_spinlock_t, magic, 4);
	OFFSET_OF(RAW_SPINLOCK_OWNER_CPU, raw_spinlock_t, owner_cpu, 4);
	OFFSET_OF(RAW_SPINLOCK_OWNER, raw_spinlock_t, owner, 8);
	CONSTANT(SIZEOF_LOCK_CLASS_KEY, sizeof(struct lock_class_key));
	CONSTANT(LD_WAIT_SPIN, LD_WAIT_SPIN);
#ifdef CONFIG_DEBUG_LOCK_ALLOC
	OFFSET_OF(RAW_SPINLOCK_NAME, raw_spinlock_t, dep_map.name, 8);
	OFFSET_OF(RAW_SPINLOCK_WAIT_TYPE, raw_spinlock_t, dep_map.wait_type_inner, 1);
#endif
#endif
	CONSTANT(SIZEOF_CALLBACK_HEAD, sizeof(struct callback_head));
	CONSTANT(SIZEOF_SOCKADDR_IN, sizeof(struct sockaddr_in));
	OFFSET_OF(SIN_PORT, struct sockaddr_in, sin_port, 2);
	OFFSET_OF(SIN_ADDR, struct sockaddr_in, sin_addr, 4);
	CONSTANT(SIZEOF_SOCKADDR_IN6, sizeof(struct sockaddr_in6));
	OFFSET_OF(SIN6_PORT, struct sockaddr_in6, sin6_port, 2);
	OFFSET_OF(SIN6_FLOWINFO, struct sockaddr_in6, sin6_flowinfo, 4);
	OFFSET_OF(SIN6_ADDR, struct sockaddr_in6, sin6_addr, 16);
	OFFSET_OF(SIN6_SCOPE_ID, struct sockaddr_in6, sin6_scope_id, 4);

	/* Macros and enumerators. */
	CONSTANT(TCP_SYN_SENT, TCP_SYN_SENT);
	CONSTANT(TCP_CLOSE, TCP_CLOSE);
	CONSTANT(SOCK_STREAM, SOCK_STREAM);
	CONSTANT(IPPROTO_TCP, IPPROTO_TCP);
	CONSTANT(AF_INET, AF_INET);
	CONSTANT(AF_INET6, AF_INET6);
	CONSTANT(ETH_P_IPV6, ETH_P_IPV6);
	CONSTANT(RTN_UNICAST, RTN_UNICAST);
	CONSTANT(RTN_LOCAL, RTN_LOCAL);
	CONSTANT(CAP_NET_ADMIN, CAP_NET_ADMIN);
	CONSTANT(PF_KTHREAD, PF_KTHREAD);
	CONSTANT(NUMA_NO_NODE, NUMA_NO_NODE);
	CONSTANT(NR_CPUS, NR_CPUS);
	CONSTANT(HZ, HZ);
	CONSTANT(PAGE_SHIFT, PAGE_SHIFT);
	CONSTANT(KMALLOC_MINALIGN, ARCH_KMALLOC_MINALIGN);
}
