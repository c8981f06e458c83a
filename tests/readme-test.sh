#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Runs the commands of the README's section "Install from source", as they stand there,
# in fresh roots of Debian 12 and 13.
#
#   readme-test.sh [CASE…]
#
# Run it as root in a git clone. It downloads up to 150 MB for each release. The last
# commit is cloned. Stand-ins for sudo, uname, insmod and dmesg are in the PATH: a root
# has the kernel of this machine, into which nothing is loaded. Prints TAP.

. "$(dirname "$0")/../scripts/lib.sh"
. "$REPO/tests/cases.sh"
. "$REPO/tests/scratch.sh"

# block NUMBER: prints that indented block of the section, with URL replaced.
block() {
	awk -v which="$1" '/^## / { section = $0 } section != "## Install from source" { next }
		/^    / { if (!inside) number++; inside = 1; if (number == which) print substr($0, 5); next }
		{ inside = 0 }' "$REPO/README.md" | sed 's|URL|/clone|'
}

# server SUITE: makes a fresh root with the release's own kernel as the running one.
server() {
	local root release
	export KERNEL=$1
	root=$("$SCRIPTS/root.sh" path bare)
	release=$("$SCRIPTS/kernel.sh" resolve | sed -n 's/^release=//p')
	release=${release/cloud-/}
	SERVER=$TMP/server
	scratch "$SERVER" "$root"
	# shellcheck disable=SC2046 # words are intended
	archive_sources $(suites_of_kernel) >"$SERVER/etc/apt/sources.list"
	git -C "$REPO" clone -q --bare --no-hardlinks . "$SERVER/clone"
	chown -R 0:0 "$SERVER/clone"
	# shellcheck disable=SC2016 # for the commands
	command_there sudo 'exec "$@"'
	command_there uname "[ \"\$1\" = -r ] && echo $release || exec /usr/bin/uname \"\$@\""
	# shellcheck disable=SC2016
	command_there insmod 'tr "\\0" "\\n" <"$1" | sed -n "s/^vermagic=//p" >/root/loaded'
	command_there dmesg 'echo "TOA: toa loaded"'
	echo 'APT::Get::Assume-Yes "true";' >"$SERVER/etc/apt/apt.conf.d/98yes"
	RELEASE=$release
}

command_there() {
	printf '#!/bin/sh\n%s\n' "$2" >"$SERVER/usr/local/bin/$1"
	chmod +x "$SERVER/usr/local/bin/$1"
}

# pasted NUMBER: runs the block on the server, in /root.
pasted() {
	block "$1" >"$SERVER/root/block"
	cat "$SERVER/root/block"
	env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb \
		DEBIAN_FRONTEND=noninteractive unshare --pid --fork --kill-child chroot "$SERVER" \
		bash -e -c 'cd /root && . /root/block' </dev/null
}

builds_on() {
	server "$1"
	pasted 1
	has "vermagic of what was loaded" "$RELEASE " "$(<"$SERVER/root/loaded")"
}

case_debian_13() {
	builds_on trixie
}

case_debian_12() {
	builds_on bookworm
}

need_host git=git
cases_on_servers "$@"
