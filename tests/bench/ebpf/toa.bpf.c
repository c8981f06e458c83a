// SPDX-License-Identifier: GPL-2.0
/*
 * The way to show clients without a module, for comparison in `make bench`: a program for socket
 * events keeps the client in the socket's storage, and programs for getpeername answer with it.
 *
 * There is no policy, and a process can see that its socket's own name for the peer differs.
 */

#include <linux/bpf.h>
#include <linux/tcp.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "GPL";

/* The option's kind, and its lengths with an IPv4 and an IPv6 client. */
#define KIND 254
#define LENGTH_V4 8
#define LENGTH_V6 20

/* The bytes of options in a header, and the options that the program looks at. The kernel's verifier
 * follows all ways through the loop, which become too many with more. */
#define MOST_BYTES 40
#define MOST_OPTIONS 6

/* The client, in network byte order. */
struct client {
	__u32 port;
	__u32 address[4];
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct client);
} clients SEC(".maps");

static void keep(struct bpf_sock_ops *ops, const __u8 *option, const __u8 *end)
{
	struct bpf_sock *sk = ops->sk;
	struct client *client;

	if (!sk || option + LENGTH_V4 > end)
		return;
	if (option[1] != LENGTH_V4 && (option[1] != LENGTH_V6 || option + LENGTH_V6 > end))
		return;
	client = bpf_sk_storage_get(&clients, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!client)
		return;
	client->port = option[2] | option[3] << 8;
	if (option + LENGTH_V6 <= end && option[1] == LENGTH_V6)
		__builtin_memcpy(client->address, option + 4, 16);
	else
		__builtin_memcpy(client->address, option + 4, 4);
}

SEC("sockops")
int toa_keep(struct bpf_sock_ops *ops)
{
	const __u8 *header = (const __u8 *)(long)ops->skb_data;
	const __u8 *end = (const __u8 *)(long)ops->skb_data_end;
	__u32 at = sizeof(struct tcphdr);
	int i;

	if (ops->op != BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)
		return 1;
	for (i = 0; i < MOST_OPTIONS; i++) {
		const __u8 *option = header + at;

		if (at > sizeof(struct tcphdr) + MOST_BYTES || option + 2 > end || option[0] == 0)
			break;
		if (option[0] == 1) {
			at += 1;
			continue;
		}
		if (option[0] == KIND) {
			keep(ops, option, end);
			break;
		}
		if (option[1] < 2)
			break;
		at += option[1];
	}
	return 1;
}

static struct client *client_of(struct bpf_sock *sk)
{
	return sk ? bpf_sk_storage_get(&clients, sk, 0, 0) : 0;
}

SEC("cgroup/getpeername4")
int toa_answer4(struct bpf_sock_addr *name)
{
	struct client *client = client_of(name->sk);

	if (client) {
		name->user_ip4 = client->address[0];
		name->user_port = client->port;
	}
	return 1;
}

SEC("cgroup/getpeername6")
int toa_answer6(struct bpf_sock_addr *name)
{
	struct client *client = client_of(name->sk);

	if (client) {
		name->user_ip6[0] = client->address[0];
		name->user_ip6[1] = client->address[1];
		name->user_ip6[2] = client->address[2];
		name->user_ip6[3] = client->address[3];
		name->user_port = client->port;
	}
	return 1;
}
