// SPDX-License-Identifier: MIT OR Apache-2.0
//
// A program in C++ that calls each function of toa_peer.h. Prints the error for a
// descriptor that is not open.

#include <toa_peer.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

int main()
{
	toa_peer peer;
	sockaddr_storage address;

	if (toa_peer_client_by_toa(-1, &address) != -1 || toa_peer_balancer(-1, &address) != -1)
		return 1;
	if (toa_peer_get(-1, &peer) != -1)
		return 1;
	puts(strerror(errno));
	return 0;
}
