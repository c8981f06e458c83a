#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Installs, upgrades, removes and purges the packages of the C library, in
# throwaway copies of a Debian with nothing else in it.
#
#   user-space-deb-test.sh [CASE…]
#
# KERNEL= says which Debian (see kernel.sh). The packages are those of
# scripts/deb.sh. Run it as root. Prints TAP.

. "$(dirname "$0")/../scripts/lib.sh"
SCRIPTS=$(cd "$(dirname "$0")/../scripts" && pwd -P)
REPO=$(dirname "$SCRIPTS")
. "$REPO/tests/cases.sh"
. "$REPO/tests/scratch.sh"

OUT=$("$SCRIPTS/deb.sh" directory)

# --- the stage ---------------------------------------------------------------

# server PACKAGE…: a bare Debian, with these packages of ours in /root.
server() {
	local package
	SERVER=$TMP/server
	scratch "$SERVER" "$("$SCRIPTS/root.sh" path bare)"
	PACKAGES=()
	for package; do
		cp "$(deb "$package")" "$SERVER/root/$package.deb"
		PACKAGES+=("/root/$package.deb")
	done
}

# The one file of a package.
deb() {
	local found
	found=$(find "$OUT" -maxdepth 1 -name "$1_*.deb")
	[[ -f $found ]] || die "there is not one package $1 in $OUT: ${found:-none}: scripts/deb.sh make"
	echo "$found"
}

# Reads apt's output from apt.log.
apt() {
	inside "$SERVER" apt-get -q -y --no-install-recommends "$@" >apt.log 2>&1 || fail "apt-get $*"
}

fail() {
	cat apt.log
	die "$*"
}

# unpacked PACKAGE: the files and links in it.
unpacked() {
	dpkg-deb --fsys-tarfile "$(deb "$1")" | tar -t | sed -n '/[^/]$/s/^\.//p' | sort
}

# field PACKAGE FIELD
field() {
	dpkg-deb -f "$(deb "$1")" "$2"
}

# version PACKAGE: that is installed.
version() {
	# shellcheck disable=SC2016 # dpkg-query expands it
	inside "$SERVER" dpkg-query -W -f '${Version}' "$1"
}

# newer PACKAGE…: the same of version 9.9.9, in /root/newer.
newer() {
	local package tree
	mkdir -p "$SERVER/root/newer"
	for package; do
		tree=$TMP/newer-$package
		dpkg-deb -R "$(deb "$package")" "$tree"
		sed -i "s/$(field "$package" Version | sed 's/[.+]/\\&/g')/9.9.9/" "$tree/DEBIAN/control"
		dpkg-deb --root-owner-group -z0 -b "$tree" "$SERVER/root/newer/$package.deb" >/dev/null
	done
}

# with_loopback COMMAND…: in the root, in a network of its own.
with_loopback() {
	# shellcheck disable=SC2016 # the inner shell expands it
	unshare --net bash -c 'ip link set lo up && . "$0" && inside "$@"' "$REPO/tests/scratch.sh" "$SERVER" "$@"
}

# What a server on port $1 answers to the line $2, as soon as it listens.
# shellcheck disable=SC2016 # the shell in the root expands it
readonly ASK='
ask() {
	local try
	for ((try = 0; try < 600; try++)); do
		{ exec 3<>"/dev/tcp/127.0.0.1/$1"; } 2>/dev/null && break
		sleep 0.1
	done
	printf "%s" "$2" >&3
	cat <&3
}
'

# --- the C library -----------------------------------------------------------

case_the_library_has_these_files() {
	local lib=/usr/lib/x86_64-linux-gnu
	same "libtoa-peer0.1" "$(
		cat <<-LIST
			$lib/libtoa_peer.so.0.1
			$lib/libtoa_peer.so.0.1.0
			/usr/share/doc/libtoa-peer0.1/changelog.gz
			/usr/share/doc/libtoa-peer0.1/copyright
		LIST
	)" "$(unpacked libtoa-peer0.1)"
	same "libtoa-peer-dev" "$(
		cat <<-LIST
			/usr/include/toa_peer.h
			$lib/libtoa_peer.a
			$lib/libtoa_peer.so
			$lib/pkgconfig/toa_peer.pc
			/usr/share/doc/libtoa-peer-dev/changelog.gz
			/usr/share/doc/libtoa-peer-dev/copyright
			/usr/share/doc/libtoa-peer-dev/examples/server.c
		LIST
	)" "$(unpacked libtoa-peer-dev)"
}

case_a_server_in_c_is_compiled_and_asks_the_library() {
	server libtoa-peer0.1 libtoa-peer-dev
	apt install gcc libc6-dev pkgconf
	files "$SERVER" >before
	apt install "${PACKAGES[@]}"
	cp "$REPO/peer/examples/server.c" "$SERVER/root/"
	# shellcheck disable=SC2016 # as here
	inside "$SERVER" sh -c 'cd /root && cc -Wall -Werror -o server server.c $(pkg-config --cflags --libs toa_peer)' ||
		die "cc"
	same "needed" "libtoa_peer.so.0.1 libc.so.6" "$(
		inside "$SERVER" objdump -p /root/server | awk '$1 == "NEEDED" { print $2 }' | paste -sd' '
	)"
	with_loopback bash -c "$ASK"'
		/root/server 127.0.0.1 8080 >/dev/null &
		ask 8080 ""' | sed 's/ port [1-9][0-9]*/ port N/' >said
	same "the server says" "client 127.0.0.1 port N by getpeername" "$(<said)"

	newer libtoa-peer0.1 libtoa-peer-dev
	apt install /root/newer/libtoa-peer0.1.deb /root/newer/libtoa-peer-dev.deb
	same "versions" "9.9.9 9.9.9" "$(version libtoa-peer0.1) $(version libtoa-peer-dev)"

	apt remove libtoa-peer-dev libtoa-peer0.1
	files "$SERVER" >removed
	same "left by remove" "" "$(appeared before removed)"
}

# A program that was compiled with the library gets it as its dependency.
case_programs_depend_on_the_package_of_the_library() {
	same "symbols" "$(
		cat <<-SYMBOLS
			libtoa_peer.so.0.1 libtoa-peer0.1 #MINVER#
			* Build-Depends-Package: libtoa-peer-dev
			 toa_peer_balancer@Base 0.1.0
			 toa_peer_client_by_toa@Base 0.1.0
			 toa_peer_get@Base 0.1.0
		SYMBOLS
	)" "$(dpkg-deb -I "$(deb libtoa-peer0.1)" symbols)"
	same "libtoa-peer-dev's dependency" "libtoa-peer0.1 (= $(field libtoa-peer0.1 Version))" "$(field libtoa-peer-dev Depends)"
}

[[ ${1:-} != --case || -n ${TOA_OWN_MOUNTS:-} ]] || in_own_mounts "$0" "$@"
cases_main "$@"
