// SPDX-License-Identifier: GPL-2.0
/*
 * The least work by which a module can show clients, for comparison in `make bench`. Never load it on
 * a server.
 *
 * It overwrites two function pointers in read-only data of the kernel: `getname` of `inet_stream_ops`,
 * and `syn_recv_sock` of the TCP sockets of IPv4. It keeps the client in `sk_user_data`. It has no
 * IPv6, no counters, no policy and no record that outlives the field's other users. It cannot be
 * unloaded safely: a task that sleeps in `getname` returns into memory that was freed.
 */

#include <linux/module.h>
#include <linux/unaligned.h>
#include <net/inet_common.h>
#include <net/tcp.h>

MODULE_DESCRIPTION("Comparison for the benchmark of toa");
MODULE_LICENSE("GPL");

/* The option's kind and length. */
#define KIND 254
#define LENGTH 8

#ifdef HAS_OPT_CHILD_INIT
#define LAST_PARAMETER , void (*opt_child_init)(struct sock *newsk, const struct sock *sk)
#define LAST_ARGUMENT , opt_child_init
#else
#define LAST_PARAMETER
#define LAST_ARGUMENT
#endif

/* The port and the address of the client, in network byte order. */
union client {
	struct {
		__be16 port;
		__be32 address;
	} __packed;
	u64 word;
	void *user_data;
};

static const struct inet_connection_sock_af_ops *tcp_ops;
static typeof_member(struct inet_connection_sock_af_ops, syn_recv_sock) syn_recv_sock;
static void (*data_ready)(struct sock *sk);

/* Returns the client of the option in a segment, or 0. */
static void *client_in(const struct sk_buff *skb)
{
	const struct tcphdr *header = tcp_hdr(skb);
	const u8 *at = (const u8 *)(header + 1);
	const u8 *end = (const u8 *)header + tcp_hdrlen(skb);

	while (at < end && *at != TCPOPT_EOL) {
		if (*at == TCPOPT_NOP) {
			at++;
			continue;
		}
		if (end - at < 2 || at[1] < 2 || at[1] > end - at)
			break;
		if (at[0] == KIND && at[1] == LENGTH) {
			union client client = { .word = 0 };

			client.port = get_unaligned((__be16 *)(at + 2));
			client.address = get_unaligned((__be32 *)(at + 4));
			return client.user_data;
		}
		at += at[1];
	}
	return NULL;
}

static struct sock *new_syn_recv_sock(const struct sock *sk, struct sk_buff *skb,
				      struct request_sock *req, struct dst_entry *dst,
				      struct request_sock *req_unhash,
				      bool *own_req LAST_PARAMETER)
{
	struct sock *child = syn_recv_sock(sk, skb, req, dst, req_unhash, own_req LAST_ARGUMENT);

	if (child && !child->sk_user_data)
		child->sk_user_data = client_in(skb);
	return child;
}

static int new_getname(struct socket *sock, struct sockaddr *name, int peer)
{
	int length = inet_getname(sock, name, peer);
	const struct sock *sk = sock->sk;

	/* The kernel's users of sk_user_data replace sk_data_ready as well. */
	if (peer && length == sizeof(struct sockaddr_in) && sk->sk_user_data &&
	    sk->sk_data_ready == data_ready) {
		union client client = { .user_data = sk->sk_user_data };
		struct sockaddr_in *in = (struct sockaddr_in *)name;

		in->sin_port = client.port;
		in->sin_addr.s_addr = client.address;
	}
	return length;
}

/* Overwrites a pointer in read-only data. */
static int overwrite(const void *place, void *value)
{
	unsigned int level;
	pte_t *entry = lookup_address((unsigned long)place, &level);
	pteval_t before;

	if (!entry)
		return -EFAULT;
	/* The bit is the same in the entries of all levels. */
	before = entry->pte;
	WRITE_ONCE(entry->pte, before | _PAGE_RW);
	barrier();
	WRITE_ONCE(*(void **)place, value);
	barrier();
	WRITE_ONCE(entry->pte, before);
	return 0;
}

static int __init toa_overwrite_init(void)
{
	struct socket *sock;
	int error = sock_create_kern(&init_net, AF_INET, SOCK_STREAM, IPPROTO_TCP, &sock);

	if (error)
		return error;
	tcp_ops = inet_csk(sock->sk)->icsk_af_ops;
	data_ready = sock->sk->sk_data_ready;
	sock_release(sock);
	syn_recv_sock = tcp_ops->syn_recv_sock;
	return overwrite(&tcp_ops->syn_recv_sock, new_syn_recv_sock) ?:
	       overwrite(&inet_stream_ops.getname, new_getname);
}

static void __exit toa_overwrite_exit(void)
{
	overwrite(&inet_stream_ops.getname, inet_getname);
	overwrite(&tcp_ops->syn_recv_sock, syn_recv_sock);
}

module_init(toa_overwrite_init);
module_exit(toa_overwrite_exit);
