/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Prints a line about each connection, and sends this line to the client.
 *
 *   cc -o server server.c $(pkg-config --cflags --libs toa_peer)
 *   ./server :: 8080
 *   nc localhost 8080
 */
#define _DEFAULT_SOURCE

#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <toa_peer.h>

/* The room for an address, " port " and a port. */
#define ADDRESS_SIZE (NI_MAXHOST + sizeof(" port ") + NI_MAXSERV)

/* Formats an address as text, which is empty for AF_UNSPEC. */
static void write_address(const struct sockaddr_storage *address, char text[ADDRESS_SIZE])
{
	char host[NI_MAXHOST], port[NI_MAXSERV];
	socklen_t length = address->ss_family == AF_INET ? sizeof(struct sockaddr_in)
							 : sizeof(struct sockaddr_in6);

	text[0] = '\0';
	if (address->ss_family != AF_UNSPEC &&
	    getnameinfo((const struct sockaddr *)address, length, host, sizeof(host), port,
			sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV) == 0)
		snprintf(text, ADDRESS_SIZE, "%s port %s", host, port);
}

static void serve(int fd)
{
	char client[ADDRESS_SIZE], balancer[ADDRESS_SIZE];
	struct toa_peer peer;

	/* The client may already have disconnected. */
	if (toa_peer_get(fd, &peer) != 0) {
		perror("server: toa_peer_get");
		return;
	}
	write_address(&peer.client, client);
	write_address(&peer.balancer, balancer);

	char line[2 * ADDRESS_SIZE + sizeof("client  by getpeername, balancer \n")];
	int length = snprintf(line, sizeof(line), "client %s by %s%s%s\n", client,
			      peer.origin == TOA_PEER_TOA ? "toa" : "getpeername",
			      balancer[0] ? ", balancer " : "", balancer);

	fputs(line, stdout);
	if (send(fd, line, length, MSG_NOSIGNAL) < 0)
		perror("server: send");
}

/* Listens on one address; "::" accepts IPv4 as well. */
static int listen_on(const char *host, const char *port)
{
	const struct addrinfo hints = {
		.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE,
		.ai_socktype = SOCK_STREAM,
	};
	const int on = 1, off = 0;
	struct addrinfo *address;
	int fd, status = getaddrinfo(host, port, &hints, &address);

	if (status != 0) {
		fprintf(stderr, "server: %s port %s: %s\n", host, port, gai_strerror(status));
		return -1;
	}
	fd = socket(address->ai_family, address->ai_socktype, address->ai_protocol);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
	    (address->ai_family == AF_INET6 &&
	     setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off)) != 0) ||
	    bind(fd, address->ai_addr, address->ai_addrlen) != 0 || listen(fd, SOMAXCONN) != 0) {
		perror("server");
		if (fd >= 0)
			close(fd);
		fd = -1;
	}
	freeaddrinfo(address);
	return fd;
}

int main(int argc, char **argv)
{
	int listener;

	if (argc != 3) {
		fprintf(stderr, "usage: server ADDRESS PORT\n");
		return 2;
	}
	listener = listen_on(argv[1], argv[2]);
	if (listener < 0)
		return 1;
	setvbuf(stdout, NULL, _IOLBF, 0);
	for (;;) {
		int fd = accept(listener, NULL, NULL);

		if (fd < 0) {
			perror("server: accept");
			continue;
		}
		serve(fd);
		close(fd);
	}
}
