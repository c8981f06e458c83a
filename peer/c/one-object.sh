#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Makes libtoa_peer.a one object, which defines the functions of toa_peer.h only.
#
#   one-object.sh LIBTOA_PEER.A
#
# A static library in Rust has a copy of the standard library, whose symbols clash with
# those of another such library in the same program. LD, NM, OBJCOPY and AR select other
# binutils.

set -eu

[ $# = 1 ] || {
	echo "usage: one-object.sh LIBTOA_PEER.A" >&2
	exit 2
}
library=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"${NM:-nm}" --quiet --defined-only --extern-only --format=just-symbols "$library" |
	grep -x 'toa_peer_[a-z_]*' | sort -u >"$work/functions"
# The linker takes the objects that these functions need.
sed 's/^/-u /' "$work/functions" >"$work/options"
"${LD:-ld}" -r --force-group-allocation "@$work/options" -o "$work/toa_peer.o" "$library"
"${OBJCOPY:-objcopy}" --keep-global-symbols="$work/functions" "$work/toa_peer.o"
rm -f "$library"
"${AR:-ar}" rcsD "$library" "$work/toa_peer.o"
