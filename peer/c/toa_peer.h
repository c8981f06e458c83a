/* SPDX-License-Identifier: MIT OR Apache-2.0 */

#ifndef TOA_PEER_H
#define TOA_PEER_H


#define TOA_PEER_MAJOR 0
#define TOA_PEER_MINOR 1
#define TOA_PEER_PATCH 0


#include <sys/socket.h>

/*
 The client is from getpeername. Without the module that is the balancer, if
 there is one.
 */
#define TOA_PEER_GETPEERNAME 0

/*
 The client is from the balancer, by a TCP option that the module has read.
 */
#define TOA_PEER_TOA 1

/*
 Who is at the other end of a connection.

 Addresses are struct sockaddr_in (ss_family is AF_INET) or struct sockaddr_in6
 (AF_INET6), and ports are in network order, as everywhere in C. IPv4-mapped
 addresses are told as AF_INET, whatever the socket's family is.

 This struct stays as it is for as long as the library's soname does.
 */
struct toa_peer {
  /*
   The client, as far as the origin can say.
   */
  struct sockaddr_storage client;
  /*
   The balancer between them: the address and port that the connection really
   comes from. AF_UNSPEC if the module did not tell a client.
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
 Tells who is at the other end of the socket fd. The module is asked first; where
 it does not know a client, or is not loaded, getpeername is.

 Returns 0; or -1 with errno, and leaves *peer as it was:

 - ENOTCONN: the socket was never connected, or the connection has ended in both
   directions, or was reset, which clients can bring about at any time;
 - EAFNOSUPPORT: the socket is of another family than AF_INET and AF_INET6;
 - EBADF, ENOTSOCK: fd is not open, or no socket;
 - EFAULT: peer is NULL.

 No other thread may close fd meanwhile.
 */
int toa_peer_get(int fd, struct toa_peer *peer);

/*
 Tells the client of the socket fd, if the module knows one; AF_UNSPEC if not, or
 if it is not loaded.

 Returns 0, or -1 with errno as toa_peer_get does.
 */
int toa_peer_client_by_toa(int fd, struct sockaddr_storage *client);

/*
 Tells the balancer between the socket fd and its client, if the module knows the
 client; AF_UNSPEC if not, or if it is not loaded.

 Returns 0, or -1 with errno as toa_peer_get does.
 */
int toa_peer_balancer(int fd, struct sockaddr_storage *balancer);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* TOA_PEER_H */
