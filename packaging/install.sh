#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Installs the toa.ko beside this script on a server that runs the kernel that
# toa.ko was built for. On other servers it prints the reason and changes nothing.
#
#   install.sh              install toa.ko in /lib/modules/RELEASE/updates, and load
#                           it at each start-up; install the command toa in
#                           /usr/local/bin
#   install.sh ahead        install it for a kernel that is installed here and runs
#                           after the next reboot
#   install.sh check        only check whether toa.ko fits
#   install.sh uninstall    remove toa.ko, its configuration and the command, for
#                           every kernel

set -eu

here=$(dirname "$0")
modules=/lib/modules
startup=/etc/modules-load.d/toa.conf
command=/usr/local/bin/toa

die() {
	echo "install.sh: $*" >&2
	exit 1
}

# manifest NAME: prints the value of that line.
manifest() {
	sed -n "s/^$1: //p" "$here/MANIFEST"
}

needed() {
	[ "$(id -u)" = 0 ] || die "run it as root"
	for tool in modinfo depmod sha256sum; do
		command -v "$tool" >/dev/null || die "$tool is missing: install kmod and coreutils"
	done
}

# --- checks --------------------------------------------------------------------

whole() {
	for file in MANIFEST toa.ko toa modules-load.conf; do
		[ -r "$here/$file" ] || die "$file is missing beside install.sh: unpack the whole tarball"
	done
	sum=$(sha256sum "$here/toa.ko" | cut -d ' ' -f 1)
	[ "$sum" = "$(manifest sha256)" ] ||
		die "toa.ko is not the file that MANIFEST lists (sha256 $sum): fetch the tarball again"
}

# Two builds of one release may differ: Debian's kernels report their package's version.
runs_here() {
	running=$(uname -r)
	[ "$running" = "$kernel" ] ||
		die "this server runs $running, and this toa.ko is for $kernel: take the tarball for $running"
	same_build "$(uname -v | sed -n 's/.* Debian \([^ ]*\).*/\1/p')"
}

is_installed_here() {
	[ -d "$modules/$kernel/kernel" ] || die "the kernel $kernel is not installed on this server: install it first"
	same_build "$(dpkg-query -W -f '${Version}\n' "linux-modules-$kernel" "linux-image-$kernel" 2>/dev/null | grep . | head -n 1)"
}

same_build() {
	[ -z "$1" ] || [ "$1" = "$(manifest build)" ] ||
		die "this server has Debian's build $1 of $kernel, and this toa.ko is for $(manifest build): take the tarball for $1"
}

same_vermagic() {
	magic=$(modinfo -F vermagic "$here/toa.ko")
	[ "${magic%% *}" = "$kernel" ] ||
		die "toa.ko's vermagic is '$magic', and MANIFEST names $kernel: fetch the tarball again"
	other=$(find "$modules/$kernel/kernel" -name '*.ko*' 2>/dev/null | head -n 1)
	[ -n "$other" ] || die "there are no modules in $modules/$kernel/kernel: install the kernel's package again"
	theirs=$(modinfo -F vermagic "$other")
	[ "$theirs" = "$magic" ] ||
		die "toa.ko's vermagic is '$magic', and that of this kernel's modules '$theirs': build it for this kernel"
}

# A locked-down kernel loads only signed modules.
trusted() {
	[ -r /sys/kernel/security/lockdown ] || return 0
	grep -q '\[none\]' /sys/kernel/security/lockdown || [ -n "$(modinfo -F signer "$here/toa.ko")" ] ||
		die "this server is locked down by Secure Boot, and toa.ko is not signed: make it with SIGN_KEY= and SIGN_CERT="
}

alone() {
	for file in "$modules/$kernel/updates/dkms/toa.ko"*; do
		[ ! -e "$file" ] || die "$file is there already: use either this tarball or DKMS"
	done
}

# check WHICH: checks that the kernel runs_here or is_installed_here, and the rest.
check() {
	needed
	whole
	kernel=$(manifest kernel)
	"$1"
	same_vermagic
	trusted
	alone
}

# --- changes -------------------------------------------------------------------

install_module() {
	mkdir -p "$modules/$kernel/updates" "$(dirname "$startup")"
	cp "$here/toa.ko" "$modules/$kernel/updates/.toa.ko.new"
	chmod 644 "$modules/$kernel/updates/.toa.ko.new"
	mv "$modules/$kernel/updates/.toa.ko.new" "$modules/$kernel/updates/toa.ko"
	depmod "$kernel"
	cp "$here/modules-load.conf" "$startup"
	chmod 644 "$startup"
	mkdir -p "$(dirname "$command")"
	cp "$here/toa" "$command.new"
	chmod 755 "$command.new"
	mv "$command.new" "$command"
	echo "toa $(manifest version) is installed for $kernel and loaded at each start-up; now: $1"
}

uninstall() {
	removed=
	for file in "$modules"/*/updates/toa.ko; do
		[ -e "$file" ] || continue
		removed=yes
		rm "$file"
		directory=${file%/toa.ko}
		rmdir "$directory" 2>/dev/null || true
		kernel=$(basename "${directory%/updates}")
		depmod "$kernel"
		echo "toa is no longer installed for $kernel"
	done
	rm -f "$startup" "$command"
	[ -n "$removed" ] || die "there is no toa.ko in $modules/*/updates"
	[ ! -d /sys/module/toa ] || echo "toa is still loaded: rmmod toa"
}

case ${1:-install} in
install)
	check runs_here
	if [ -d /sys/module/toa ]; then
		install_module "rmmod toa && modprobe toa"
	else
		install_module "modprobe toa"
	fi
	;;
ahead)
	check is_installed_here
	install_module "reboot"
	;;
check)
	check runs_here
	echo "toa.ko fits this server's kernel $kernel"
	;;
uninstall)
	needed
	uninstall
	;;
*)
	sed -n '4,/^[^#]*$/s/^# \{0,1\}//p' "$0" >&2
	exit 2
	;;
esac
