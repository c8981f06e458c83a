/* SPDX-License-Identifier: MIT OR Apache-2.0 */

#ifndef TOA_PEER_H
#define TOA_PEER_H


#define TOA_PEER_MAJOR 0
#define TOA_PEER_MINOR 1
#define TOA_PEER_PATCH 0


#include <sys/socket.h>

/*
 The origin of a client that getpeername returned. Without the module, that client
 is the balancer if the connection came through one.
 */
#define TOA_PEER_GETPEERNAME 0

/*
 The origin of a client that the module read from the balancer's TCP option.
 */
#define TOA_PEER_TOA 1

/*
 The client of a connection, and the balancer that the connection came through.

 Addresses are struct sockaddr_in (ss_family is AF_INET) or struct sockaddr_in6
 (AF_INET6). Ports are in network order, as everywhere in C. IPv4-mapped addresses
 become AF_INET, whatever the socket's family is.

 The layout of this struct is fixed for each soname of the library.
 */
struct toa_peer {
  /*
   The client, as the origin reports it.
   */
  struct sockaddr_storage client;
  /*
   The balancer: the address and port that the connection's packets come from.
   AF_UNSPEC if the module has no client.
   */
  struct sockaddr_storage balancer;
  /*
   TOA_PEER_TOA or TOA_PEER_GETPEERNAME.
   */
  int origin;
};

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/*
 Finds the client and the balancer of the socket fd. The function asks the module
 first, and getpeername if the module is not loaded or has no client.

 Returns 0 and leaves errno unchanged, or returns -1 with errno and leaves *peer unchanged:

 - ENOTCONN: the socket was never connected, or the connection was reset or has
   ended in both directions, which clients can cause at any time;
 - EAFNOSUPPORT: the socket's family is neither AF_INET nor AF_INET6;
 - EBADF, ENOTSOCK: fd is not open, or is not a socket;
 - EFAULT: peer is NULL.

 Other threads must not close fd during the call.
 */
int toa_peer_get(int fd, struct toa_peer *peer);

/*
 Stores the module's client of the socket fd in *client. Stores AF_UNSPEC if the
 module is not loaded or has no client.

 Returns 0, or -1 with errno as toa_peer_get does.
 */
int toa_peer_client_by_toa(int fd, struct sockaddr_storage *client);

/*
 Stores the balancer of the socket fd in *balancer. Stores AF_UNSPEC if the module
 is not loaded or has no client.

 Returns 0, or -1 with errno as toa_peer_get does.
 */
int toa_peer_balancer(int fd, struct sockaddr_storage *balancer);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* TOA_PEER_H */
