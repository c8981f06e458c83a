#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Runs the static command toa on bare roots of Debian, and follows `toa doctor` until the module is built
# and installed.
#
#   doctor-test.sh [CASE…]
#
# The cases are Debian 12 and Debian 13, whatever KERNEL= selects. The running kernel
# is, for the command, the newest one of that Debian. A module cannot be loaded here: the guest tests
# do that. Run it as root. Prints TAP.

. "$(dirname "$0")/../scripts/lib.sh"
. "$REPO/tests/cases.sh"
. "$REPO/tests/scratch.sh"

TOA=$REPO/build/target/x86_64-unknown-linux-gnu/release/toa
OUT=$("$SCRIPTS/deb.sh" directory)

# bare DEBIAN: mounts a bare Debian with the command, on which the newest kernel seems to run.
bare() {
	local found release suites
	export KERNEL=$1
	SERVER=$TMP/server
	found=$("$SCRIPTS/kernel.sh" resolve)
	eval "$found"
	RELEASE=$release
	scratch "$SERVER" "$("$SCRIPTS/root.sh" path bare)"
	read -ra suites < <(suites_of_kernel)
	archive_sources "${suites[@]}" >"$SERVER/etc/apt/sources.list"
	[[ -e $SERVER$(archive_keyring) ]] || cp "$(archive_keyring)" "$SERVER$(archive_keyring)"
	echo "$RELEASE" >"$TMP/osrelease"
	mount --bind "$TMP/osrelease" "$SERVER/proc/sys/kernel/osrelease"
	mount -t tmpfs tmpfs "$SERVER/sys"
	[[ -x $TOA ]] || die "$TOA is missing: scripts/vm-test.sh command-line-tool"
	install "$TOA" "$SERVER/usr/local/bin/toa"
	cp "$OUT"/toa-dkms_*_all.deb "$SERVER/root/toa-dkms_VERSION_all.deb"
}

# points: prints the points that are not ok, one a line, without the blanks between columns.
points() {
	local status=0
	inside "$SERVER" /usr/local/bin/toa doctor >doctor.log || status=$?
	[[ $status == 1 ]] || die "toa doctor: status $status: $(<doctor.log)"
	grep -E '^(FAILED|WARNING|unknown)' doctor.log | sed -E 's/  +/ | /g' || true
}

# point NAME: prints that point with its state, ok or not.
point() {
	{ inside "$SERVER" /usr/local/bin/toa doctor || true; } | sed -E 's/  +/ | /g' | awk -F ' [|] ' -v name="$1" '$2 == name'
}

# does COMMAND: runs a command of the doctor in the root.
does() {
	inside "$SERVER" sh -c "cd /root && DEBIAN_FRONTEND=noninteractive $1" >apt.log 2>&1 || die "$1: $(tail -n 40 apt.log)"
}

# mended NAME COMMAND: the point has failed with COMMAND as its remedy, and is ok after it.
mended() {
	local before after
	before=$(point "$1")
	[[ $before != "ok | "* && $before == *": $2" ]] || die "$1 has no remedy '$2': $before"
	does "${2/apt install/apt-get -q -y --no-install-recommends install}"
	after=$(point "$1")
	[[ $after == "ok | $1 | "* ]] || die "$1 after $2: $after"
}

# walks DEBIAN RUSTC SOURCE DIRECTORY: follows the doctor from a bare Debian to an installed
# module. DIRECTORY is the command that makes the directory for start-up, if there is none.
walks() {
	local before
	bare "$1"
	same "points of a bare Debian" "$(
		cat <<-POINTS
			unknown | features | the kernel's configuration is neither in /boot nor with its headers: apt install linux-headers-$RELEASE
			FAILED | headers | those of the kernel are missing: apt install linux-headers-$RELEASE
			FAILED | compilers | make and rustc from 1.85 on are missing: apt install make $2 $3
			FAILED | modprobe | missing, it loads the module: apt install kmod
			FAILED | toa.ko | not installed for this kernel: make && sudo make install, or apt install ./toa-dkms_VERSION_all.deb
			FAILED | loaded | no, servers see the balancer: modprobe toa, and dmesg | grep TOA if that fails
			WARNING | start-up | nothing loads toa at the next start: $4echo toa | sudo tee /etc/modules-load.d/toa.conf
			unknown | trust | the policy is there while toa is loaded
		POINTS
	)" "$(points)"
	mended headers "apt install linux-headers-$RELEASE"
	has "the kernel's features" "ok | features | all are there" "$(point features)"
	# A compiler without the source of its library builds nothing.
	does "apt-get -q -y --no-install-recommends install $2"
	has "without the source" "make and the source of rustc's library are missing: apt install make $3" "$(point compilers)"
	mended compilers "apt install make $3"
	# The headers may have installed it.
	[[ -z $(point modprobe) ]] || does "apt-get -q -y --no-install-recommends install kmod"
	same "modprobe" "" "$(point modprobe)"
	before=$(point start-up)
	does "$(sed 's/.*next start: //; s/sudo //g' <<<"$before")"
	has "start-up" "ok | start-up | /etc/modules-load.d/toa.conf loads toa" "$(point start-up)"
	does "apt-get -q -y --no-install-recommends install ./toa-dkms_VERSION_all.deb"
	has "the file" "ok | toa.ko | $("$SCRIPTS/version.sh" print), /lib/modules/$RELEASE/updates/dkms/toa.ko" "$(point toa.ko)"
	same "what is left" "$(
		cat <<-POINTS
			FAILED | loaded | no, servers see the balancer: modprobe toa, and dmesg | grep TOA if that fails
			unknown | trust | the policy is there while toa is loaded
		POINTS
	)" "$(points)"
}

readonly MKDIR="sudo mkdir /etc/modules-load.d && "

case_debian_12_is_mended_by_the_commands_of_the_doctor() {
	walks bookworm rustc-web rust-web-src "$MKDIR"
}

case_debian_13_is_mended_by_the_commands_of_the_doctor() {
	walks trixie rustc rust-src "$MKDIR"
}

# Debian 12's own rustc is too old.
case_a_compiler_that_is_too_old_is_named() {
	bare bookworm
	does "apt-get -q -y --no-install-recommends install rustc rust-src make"
	has "the compiler" "rustc is 1.63.0, and toa needs 1.85: apt install rustc-web rust-web-src" "$(point compilers)"
	does "apt-get -q -y --no-install-recommends install rustc-web rust-web-src"
	has "the compiler" "ok | compilers | rustc 1." "$(point compilers)"
}

need_host unshare=util-linux
cases_on_servers "$@"
