/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Tests of the library from a C program, on sockets of this machine. Prints the
 * layout that the C compiler gives the struct.
 */
#define _POSIX_C_SOURCE 200809L

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <toa_peer.h>

#define CHECK(claim)                                                         \
	do {                                                                 \
		if (!(claim)) {                                              \
			fprintf(stderr, "line %d: failed: %s (errno %d)\n",  \
				__LINE__, #claim, errno);                    \
			exit(1);                                             \
		}                                                            \
	} while (0)

union address {
	struct sockaddr_storage storage;
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

/* Listens on all addresses of the family, on a port that the kernel chooses. */
static int listen_on(int family)
{
	union address name;
	const int off = 0;
	int fd = socket(family, SOCK_STREAM, 0);

	CHECK(fd >= 0);
	memset(&name, 0, sizeof(name));
	name.storage.ss_family = family;
	if (family == AF_INET6)
		CHECK(setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off)) == 0);
	CHECK(bind(fd, &name.any, family == AF_INET ? sizeof(name.v4) : sizeof(name.v6)) == 0);
	CHECK(listen(fd, 1) == 0);
	return fd;
}

static union address name_of(int fd)
{
	union address name;
	socklen_t length = sizeof(name);

	memset(&name, 0, sizeof(name));
	CHECK(getsockname(fd, &name.any, &length) == 0);
	return name;
}

/* Connects over IPv4 or IPv6 within this machine. */
static int connect_to(int listener, int family)
{
	/* Both families have the port in the same place. */
	in_port_t port = name_of(listener).v4.sin_port;
	union address target;
	int fd = socket(family, SOCK_STREAM, 0);

	CHECK(fd >= 0);
	memset(&target, 0, sizeof(target));
	target.storage.ss_family = family;
	target.v4.sin_port = port;
	if (family == AF_INET) {
		target.v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		CHECK(connect(fd, &target.any, sizeof(target.v4)) == 0);
	} else {
		target.v6.sin6_addr = in6addr_loopback;
		CHECK(connect(fd, &target.any, sizeof(target.v6)) == 0);
	}
	return fd;
}

/* Checks the client of a listener, for each combination of their families. */
static void tells_client(int listening, int connecting)
{
	int listener = listen_on(listening);
	int client = connect_to(listener, connecting);
	int server = accept(listener, NULL, NULL);
	union address expected = name_of(client), reported;
	struct toa_peer peer;

	CHECK(server >= 0);
	memset(&peer, 0xa5, sizeof(peer));
	errno = EDOM;
	CHECK(toa_peer_get(server, &peer) == 0 && errno == EDOM);
	reported.storage = peer.client;
	CHECK(reported.storage.ss_family == connecting);
	CHECK(reported.v4.sin_port == expected.v4.sin_port);
	if (connecting == AF_INET)
		CHECK(reported.v4.sin_addr.s_addr == htonl(INADDR_LOOPBACK));
	else
		CHECK(memcmp(&reported.v6.sin6_addr, &in6addr_loopback, 16) == 0);
	CHECK(peer.balancer.ss_family == AF_UNSPEC);
	CHECK(peer.origin == TOA_PEER_GETPEERNAME);

	memset(&reported, 0xa5, sizeof(reported));
	CHECK(toa_peer_client_by_toa(server, &reported.storage) == 0 && errno == EDOM);
	CHECK(reported.storage.ss_family == AF_UNSPEC);
	memset(&reported, 0xa5, sizeof(reported));
	CHECK(toa_peer_balancer(server, &reported.storage) == 0 && errno == EDOM);
	CHECK(reported.storage.ss_family == AF_UNSPEC);
	close(server);
	close(client);
	close(listener);
}

/* Checks that toa_peer_get fails with this errno and leaves the struct unchanged. */
static void fails(int fd, int number)
{
	struct toa_peer peer, untouched;

	memset(&peer, 0xa5, sizeof(peer));
	untouched = peer;
	errno = 0;
	CHECK(toa_peer_get(fd, &peer) == -1);
	CHECK(errno == number);
	CHECK(memcmp(&peer, &untouched, sizeof(peer)) == 0);
}

static void fails_everywhere(int fd, int number)
{
	struct sockaddr_storage address;

	fails(fd, number);
	CHECK(toa_peer_client_by_toa(fd, &address) == -1 && errno == number);
	CHECK(toa_peer_balancer(fd, &address) == -1 && errno == number);
}

int main(void)
{
	int file, listener, pair[2];

	tells_client(AF_INET, AF_INET);
	tells_client(AF_INET6, AF_INET6);
	tells_client(AF_INET6, AF_INET);

	file = open("/dev/null", O_RDONLY);
	CHECK(file >= 0);
	fails_everywhere(file, ENOTSOCK);
	CHECK(close(file) == 0);
	fails_everywhere(file, EBADF);
	fails_everywhere(-1, EBADF);

	listener = listen_on(AF_INET);
	fails(listener, ENOTCONN);
	CHECK(toa_peer_get(listener, NULL) == -1 && errno == EFAULT);
	CHECK(toa_peer_client_by_toa(listener, NULL) == -1 && errno == EFAULT);
	CHECK(toa_peer_balancer(listener, NULL) == -1 && errno == EFAULT);

	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
	fails(pair[0], EAFNOSUPPORT);

	printf("%zu %zu %zu %zu\n", sizeof(struct toa_peer), offsetof(struct toa_peer, client),
	       offsetof(struct toa_peer, balancer), offsetof(struct toa_peer, origin));
	return 0;
}
