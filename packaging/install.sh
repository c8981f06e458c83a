#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Installs the toa.ko beside this script on a server that runs the kernel that
# toa.ko was built for. On other servers it prints the reason and changes nothing.
#
#   install.sh install [TARBALL]   install toa.ko in /lib/modules/RELEASE/updates, and
#                           load it at each start-up; install the command toa in
#                           /usr/local/bin
#   install.sh ahead [TARBALL]     install it for a kernel that is installed here and
#                           runs after the next reboot
#   install.sh check [TARBALL]     only check whether toa.ko fits
#   install.sh rollback     put back the toa.ko that the last installation replaced, for
#                           the running kernel
#   install.sh uninstall    remove toa.ko, its configuration and the command, for
#                           every kernel
#
# The script leaves a copy of itself in /usr/local/lib/toa, for rollback and uninstall, and
# to install the next TARBALL.
#
#   --key FILE    refuse files that this public key or certificate does not verify: the
#                 tarball by TARBALL.sig, or the files beside this script by MANIFEST.sig.
#                 Default: /etc/toa/install.pem, if it exists
#   --downgrade   allow an older toa than the installed one
#
# A changed script would skip these checks. So verify a tarball with openssl before it is
# unpacked for the first time, or let the copy on the server verify and unpack it.

set -eu
# Files and directories have these modes whatever the administrator's umask is.
umask 022

here=$(dirname "$0")
modules=/lib/modules
startup=/etc/modules-load.d/toa.conf
command=/usr/local/bin/toa
copy=/usr/local/lib/toa
key=/etc/toa/install.pem
files="install.sh toa.ko toa modules-load.conf LICENSE"

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

# Copies the files, or unpacks the tarball, where no other user can change them between a check
# and the installation. The checks then read these copies.
private_copies() {
	work=$(mktemp -d)
	trap 'rm -rf "$work"' EXIT
	trap 'exit 1' HUP INT TERM
	mkdir "$work/files"
	if [ -n "$tarball" ]; then
		unpack
	else
		for file in MANIFEST MANIFEST.sig $files; do
			[ ! -e "$here/$file" ] || cp "$here/$file" "$work/files/" 2>/dev/null ||
				die "$here/$file could not be copied to $work: free some space there"
		done
	fi
	here=$work/files
}

unpack() {
	[ -r "$tarball" ] || die "there is no file $tarball"
	cp "$tarball" "$work/tarball" 2>/dev/null || die "$tarball could not be copied to $work: free some space there"
	if [ -n "$key" ]; then
		[ -r "$tarball.sig" ] || die "$tarball.sig is missing, and $key has to verify it: fetch the signature too"
		cp "$tarball.sig" "$work/tarball.sig"
		verified "$work/tarball" "$tarball"
	fi
	tar -xJf "$work/tarball" -C "$work/files" --strip-components=1 --no-same-owner 2>/dev/null ||
		die "$tarball could not be unpacked: fetch it again, and install xz-utils"
}

# verified FILE NAME: checks FILE.sig.
verified() {
	command -v openssl >/dev/null || die "openssl is missing, and verifies signatures: install it"
	if ! grep -qs 'BEGIN CERTIFICATE' "$key"; then
		openssl pkey -pubin -in "$key" -out "$work/key" 2>/dev/null
	else
		openssl x509 -in "$key" -pubkey -noout >"$work/key" 2>/dev/null
	fi || die "$key is neither a public key nor a certificate in PEM: name one with --key"
	openssl dgst -sha256 -verify "$work/key" -signature "$1.sig" "$1" >/dev/null 2>&1 ||
		die "$2 is not what the owner of $key has signed: do not use it, and fetch it again"
}

# The signature covers MANIFEST, and MANIFEST the other files.
whole() {
	for file in MANIFEST $files; do
		[ -r "$here/$file" ] || die "$file is missing beside install.sh: unpack the whole tarball"
	done
	if [ -n "$key" ]; then
		[ -r "$here/MANIFEST.sig" ] || die "MANIFEST.sig is missing, and $key has to verify it: take a signed tarball"
		verified "$here/MANIFEST" MANIFEST
	fi
	for file in $files; do
		sum=$(sha256sum "$here/$file" | cut -d ' ' -f 1)
		[ "$sum" = "$(manifest sha256 | sed -n "s/  $file\$//p")" ] ||
			die "$file is not the file that MANIFEST lists (sha256 $sum): fetch the tarball again"
	done
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
	private_copies
	whole
	kernel=$(manifest kernel)
	"$1"
	same_vermagic
	trusted
	alone
}

is_newer_than() {
	[ "$1" != "$2" ] && [ "$(printf '%s\n' "$1" "$2" | sort -V | tail -n 1)" = "$1" ]
}

# An installed toa of any kernel counts: the reboot into another kernel must not downgrade either.
no_downgrade() {
	[ -z "$downgrade" ] || return 0
	for file in "$modules"/*/updates/toa.ko; do
		[ -e "$file" ] || continue
		installed=$(modinfo -F version "$file")
		! is_newer_than "$installed" "$(manifest version)" ||
			die "$file is toa $installed, and this is the older $(manifest version): to install it all the same, add --downgrade"
	done
}

# --- changes -------------------------------------------------------------------

# An installation first copies all files beside their places, and then renames them. If a step
# fails, undo removes the copies, and restores the module and the indexes of depmod.
updates=
indexes=
replaced=
made=

undo() {
	for file in "$updates/toa.ko" "$startup" "$command" "$copy/install.sh" "$copy/modules-load.conf"; do
		rm -f "${file%/*}/.${file##*/}.new"
	done
	[ -z "$replaced" ] || rm -f "$updates/toa.ko"
	[ ! -e "$updates/.toa.ko.old" ] || mv "$updates/.toa.ko.old" "$updates/toa.ko"
	[ -z "$replaced" ] || put_indexes_back
	rm -rf "$indexes"
	for directory in $made; do
		rmdir "$directory" 2>/dev/null || true
	done
}

put_indexes_back() {
	rm -f "$modules/$kernel"/modules.*
	mv "$indexes"/modules.* "$modules/$kernel/"
}

# directory NAME: makes it and its parents, and remembers the new ones.
directory() {
	[ ! -d "$1" ] || return 0
	directory "$(dirname "$1")"
	reason=$(mkdir "$1" 2>&1) || unchanged "$1" "$reason"
	made="$1 $made"
}

# beside FILE MODE TARGET: copies FILE under another name into TARGET's directory.
beside() {
	directory "${3%/*}"
	reason=$(install -m "$2" "$1" "${3%/*}/.${3##*/}.new" 2>&1) || unchanged "$3" "$reason"
}

# renamed TARGET: gives the copy its name.
renamed() {
	mv "${1%/*}/.${1##*/}.new" "$1"
}

# unchanged FILE REASON: ends an installation that could not write FILE.
unchanged() {
	die "$1 could not be written (${2##*: }), and nothing was changed: fix that, then run install.sh again"
}

# On a full disk depmod leaves broken indexes, without which the server loads no module at all.
# Hard links keep the previous ones, because depmod replaces the files.
keep_indexes() {
	rm -rf "$indexes"
	mkdir "$indexes" || return 1
	for file in "$modules/$kernel"/modules.*; do
		[ ! -f "$file" ] || ln "$file" "$indexes/" || return 1
	done
}

same_file() {
	[ -f "$1" ] && [ -f "$2" ] && [ "$(sha256sum <"$1")" = "$(sha256sum <"$2")" ]
}

# The file is ours if an installer wrote it. Others, and links as that to /dev/null, are the
# administrator's.
is_our_startup() {
	[ ! -L "$startup" ] || return 1
	[ ! -e "$startup" ] || same_file "$startup" "$here/modules-load.conf" ||
		same_file "$startup" "$copy/modules-load.conf"
}

# Prints what the file for start-up does, after an installation.
at_startup() {
	if is_our_startup || grep -qsx '[[:space:]]*toa[[:space:]]*' "$startup"; then
		echo "loaded at each start-up"
	else
		echo "not loaded at start-up, as $startup is yours and does not name toa"
	fi
}

# put FILE: makes FILE the kernel's toa.ko, and keeps the previous one. Hard links take no space.
put() {
	if [ -e "$updates/toa.ko" ] && ! same_file "$updates/toa.ko" "$1"; then
		reason=$(ln -f "$updates/toa.ko" "$updates/.toa.ko.old" 2>&1) || unchanged "$updates/.toa.ko.old" "$reason"
	fi
	reason=$(keep_indexes 2>&1) || unchanged "$indexes" "$reason"
	replaced=yes
	mv "$1" "$updates/toa.ko"
	reason=$(depmod "$kernel" 2>&1) || unchanged "depmod's indexes of $kernel" "$(echo "$reason" | tail -n 1)"
}

begin() {
	updates=$modules/$kernel/updates
	indexes=$modules/$kernel/.toa-indexes
	trap 'undo; rm -rf "$work"' EXIT
	trap 'exit 1' HUP INT TERM
}

finish() {
	trap '' HUP INT TERM
	[ ! -e "$updates/.toa.ko.old" ] || mv "$updates/.toa.ko.old" "$updates/.toa.ko.previous"
	rm -rf "$indexes"
	trap 'rm -rf "$work"' EXIT
}

install_module() {
	begin
	beside "$here/toa.ko" 644 "$updates/toa.ko"
	! is_our_startup || beside "$here/modules-load.conf" 644 "$startup"
	beside "$here/toa" 755 "$command"
	beside "$here/install.sh" 755 "$copy/install.sh"
	beside "$here/modules-load.conf" 644 "$copy/modules-load.conf"
	put "$updates/.toa.ko.new"
	! is_our_startup || renamed "$startup"
	renamed "$command"
	renamed "$copy/install.sh"
	renamed "$copy/modules-load.conf"
	finish
	echo "toa $(manifest version) is installed for $kernel and $(at_startup); now: $1"
}

# Exchanges the two modules, so that a second rollback undoes the first. The command stays.
rollback() {
	needed
	kernel=$(uname -r)
	begin
	[ -e "$updates/.toa.ko.previous" ] || die "there is no previous toa.ko for $kernel"
	reason=$(ln -f "$updates/.toa.ko.previous" "$updates/.toa.ko.new" 2>&1) || unchanged "$updates/.toa.ko.new" "$reason"
	put "$updates/.toa.ko.new"
	finish
	echo "toa $(modinfo -F version "$updates/toa.ko") is installed for $kernel again; now: $(now)"
}

# Prints the command that loads the installed toa.
now() {
	if [ -d /sys/module/toa ]; then
		echo "rmmod toa && modprobe toa"
	else
		echo "modprobe toa"
	fi
}

uninstall() {
	removed=
	for file in "$modules"/*/updates/toa.ko; do
		[ -e "$file" ] || continue
		removed=yes
		directory=${file%/toa.ko}
		rm -f "$file" "$directory/.toa.ko.previous"
		rmdir "$directory" 2>/dev/null || true
		kernel=$(basename "${directory%/updates}")
		depmod "$kernel"
		echo "toa is no longer installed for $kernel"
	done
	if is_our_startup; then
		rm -f "$startup"
	else
		echo "$startup is yours and stays"
	fi
	rm -f "$command" "$copy/install.sh" "$copy/modules-load.conf"
	rmdir "$copy" 2>/dev/null || true
	[ -n "$removed" ] || die "there is no toa.ko in $modules/*/updates"
	[ ! -d /sys/module/toa ] || echo "toa is still loaded: rmmod toa"
}

downgrade=
action=
tarball=
work=
[ -e "$key" ] || [ -L "$key" ] || key=
while [ $# -gt 0 ]; do
	case $1 in
	--downgrade) downgrade=yes ;;
	--key)
		shift
		key=${1:-}
		[ -r "$key" ] || die "--key takes a file with a public key or a certificate"
		;;
	-*) action=help ;;
	*)
		[ -z "$tarball" ] || action=help
		[ -z "$action" ] || tarball=$1
		action=${action:-$1}
		;;
	esac
	shift
done
case $action in
rollback | uninstall) [ -z "$tarball" ] || action=help ;;
esac

case ${action:-install} in
install)
	check runs_here
	no_downgrade
	install_module "$(now)"
	;;
ahead)
	check is_installed_here
	no_downgrade
	install_module "reboot"
	;;
check)
	check runs_here
	echo "toa.ko fits this server's kernel $kernel"
	;;
rollback) rollback ;;
uninstall)
	needed
	uninstall
	;;
*)
	sed -n '4,/^[^#]*$/s/^# \{0,1\}//p' "$0" >&2
	exit 2
	;;
esac
