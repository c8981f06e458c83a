/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * A program with two static libraries in Rust. Prints the result of each.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <toa_peer.h>

int other_sum(int one, int two);

int main(void)
{
	struct toa_peer peer;

	if (toa_peer_get(-1, &peer) != 0)
		printf("toa_peer_get: %s\n", strerror(errno));
	printf("other_sum: %d\n", other_sum(2, 3));
	return 0;
}
