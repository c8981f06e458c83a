#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Kernel upgrades of a server that has toa from its package.
#
#   upgrade-test.sh [CASE…]
#   upgrade-test.sh prepare      only make the server's disk
#
# A disk with Debian 13, systemd, nginx and a kernel of its backports is made,
# and toa-dkms installed by apt with what that pulls in. Upgrades are run by apt
# in a chroot of that disk, from a repository of local files, so that the running
# kernel has nothing to do with the kernels there. Boots are QEMU's.
#
# The archive's metapackages point at the newest kernel only: for the older one,
# OLD= (default: the newest before it, such as 7.2.12), stand-ins are made.
#
# What can go wrong when headers come is tested in deb-test.sh, without booting.
#
# Run it as root. Prints TAP. Logs are in build/upgrade.

. "$(dirname "$0")/../scripts/lib.sh"
SCRIPTS=$(cd "$(dirname "$0")/../scripts" && pwd -P)
REPO=$(dirname "$SCRIPTS")
. "$REPO/tests/cases.sh"
. "$REPO/tests/scratch.sh"

export KERNEL=trixie-backports
WORK=$REPO/build/upgrade
META=cloud-amd64
DISK_SIZE=8G

# --- kernels and their repository ---------------------------------------------

# Versions of kernels in the suite, newest first.
kernel_versions() {
	archive_cache pkgnames linux-headers- | grep -E -- "-[0-9].*-$META\$" |
		while read -r package; do archive_versions "$package" "$KERNEL"; done | sed 's/-.*//' | sort -rVu
}

# Sets OLD and NEW: upstream versions of kernels for which all is there.
choose_kernels() {
	local version fitting=()
	archive_update
	for version in $(kernel_versions); do
		[[ ${#fitting[@]} != 1 || -z ${OLD:-} || $version == "$OLD" ]] || continue
		! KVER=$version "$SCRIPTS/kernel.sh" resolve >/dev/null || fitting+=("$version")
		[[ ${#fitting[@]} -lt 2 ]] || break
	done
	[[ ${#fitting[@]} == 2 ]] || die "the archive has no two kernels of $KERNEL to upgrade between"
	NEW=${fitting[0]}
	OLD=${fitting[1]}
}

# kernel VERSION: sets release, version, source.
kernel() {
	local found
	found=$(KVER=$1 "$SCRIPTS/kernel.sh" resolve)
	eval "$found"
}

# What a server with that kernel has of it.
kernel_packages() {
	local abi=${release%-"$META"}
	printf '%s\n' linux-{image,base,binary,modules,headers}-"$release" \
		"linux-headers-$abi-common" "linux-kbuild-$abi" "$source" linux-source
}

# The metapackages that name that version, if the archive still has them.
metapackages() {
	printf "linux-%s-$META\n" image headers base modules
}

# stand_in NAME DEPENDS: a metapackage as the archive had it.
stand_in() {
	local dir=$WORK/stand-in
	rm -rf "$dir"
	mkdir -p "$dir/DEBIAN"
	cat >"$dir/DEBIAN/control" <<-CONTROL
		Package: $1
		Version: $version
		Architecture: amd64
		Maintainer: The toa developers <toa@packages.invalid>
		Depends: $2 (= $version)
		Description: stand-in for the metapackage of that version
	CONTROL
	dpkg-deb --root-owner-group --build "$dir" "$WORK/repository" >/dev/null
	rm -rf "$dir"
}

# offer VERSION: adds that kernel to the repository.
offer() {
	local release version source packages name
	kernel "$1"
	mapfile -t packages < <(kernel_packages)
	if [[ $(archive_versions "linux-image-$META" "$KERNEL" | head -n 1) == "$version" ]]; then
		mapfile -t -O "${#packages[@]}" packages < <(metapackages)
	else
		stand_in "linux-image-$META" "linux-image-$release"
		stand_in "linux-headers-$META" "linux-headers-$release"
	fi
	packages=("${packages[@]/%/=$version}" "linux-base=$(archive_versions linux-base "$KERNEL" | head -n 1)")
	archive_download "$TOA_CACHE/kernels/debs" "${packages[@]}"
	for name in "${packages[@]}"; do
		name=${name/=/_}
		find "$TOA_CACHE/kernels/debs" -name "${name//:/%3a}_*.deb" -exec cp -t "$WORK/repository" {} +
	done
	index
}

index() {
	"$SCRIPTS/root.sh" run deb sh -c "cd $WORK/repository && dpkg-scanpackages -m . >Packages" 2>/dev/null
}

# --- the server's disk ---------------------------------------------------------

# with_disk IMAGE COMMAND…: with the image's files at $SERVER.
with_disk() {
	local image=$1 status=0
	shift
	SERVER=$TMP/server
	mkdir -p "$SERVER"
	mount -o loop "$image" "$SERVER"
	furnish
	"$@" || status=$?
	umount -R "$SERVER"
	rm -rf --one-file-system "$TMP/archives"
	return "$status"
}

furnish() {
	enterable "$SERVER"
	mkdir -p "$SERVER/srv/repository"
	mount --bind "$WORK/repository" "$SERVER/srv/repository"
}

apt() {
	inside "$SERVER" apt-get -q -y "$@" >>"$LOG" 2>&1 || fail "apt-get $* failed"
}

fail() {
	tail -n 30 "$LOG"
	die "$*: the whole log is $LOG"
}

systemctl() {
	inside "$SERVER" systemctl -q "$@" >>"$LOG" 2>&1
}

# Debian 13 and a repository that has what backports had.
sources() {
	rm -f "$SERVER"/etc/apt/sources.list.d/* "$SERVER"/etc/apt/preferences.d/*
	{
		archive_sources trixie
		echo "deb [trusted=yes] file:/srv/repository ./"
	} >"$SERVER/etc/apt/sources.list"
	mkdir -p "$SERVER$(dirname "$(archive_keyring)")"
	[[ -e $SERVER$(archive_keyring) ]] || cp "$(archive_keyring)" "$SERVER$(archive_keyring)"
}

install_server() {
	sources
	apt update
	apt install "linux-image-$META" "linux-headers-$META" linux-source
	cp "$("$SCRIPTS/deb.sh" directory)"/toa-dkms_*_all.deb "$SERVER/root/toa-dkms.deb"
	apt install /root/toa-dkms.deb
	rm -f "$SERVER"/var/log/journal/*
	cp "$REPO"/tests/upgrade/*.service "$SERVER/etc/systemd/system/"
	systemctl enable toa-web.service toa-test.service
	systemctl mask serial-getty@ttyS0.service
	systemctl set-default multi-user.target
}

# What the disk is made of; it is made anew when that changes.
disk_key() {
	declare -f kernel_packages metapackages stand_in offer sources install_server make_disk | sha256sum
	cat "$REPO"/tests/upgrade/*.service "$("$SCRIPTS/deb.sh" directory)"/toa-dkms_*_all.deb | sha256sum
	echo "$OLD $NEW $("$SCRIPTS/root.sh" key server)"
}

prepare() {
	local key
	mkdir -p "$WORK"
	choose_kernels
	"$SCRIPTS/deb.sh" make toa >&2
	"$SCRIPTS/vm-test.sh" programs
	key=$(disk_key)
	if [[ ! -e $WORK/key || $(<"$WORK/key") != "$key" ]]; then
		rm -rf "$WORK"
		mkdir -p "$WORK/repository"
		make_disk
		offer "$NEW"
		echo "$key" >"$WORK/key"
	fi
	printf '%s\n' "OLD=$OLD" "NEW=$NEW" >"$WORK/kernels"
}

make_disk() {
	TMP=$(mktemp -d)
	LOG=$WORK/install.log
	offer "$OLD"
	"$SCRIPTS/root.sh" run tools mke2fs -q -t ext4 -m 0 -d "$("$SCRIPTS/root.sh" path server)" "$WORK/server.ext4" "$DISK_SIZE"
	with_disk "$WORK/server.ext4" install_server
	rm -rf --one-file-system "$TMP"
	say "the server has Linux $OLD and toa"
}

# --- cases ---------------------------------------------------------------------

# A copy of the disk that a case may change.
own_disk() {
	DISK=$WORK/$1.ext4
	LOG=$WORK/$1.log
	rm -f "$LOG"
	cp --sparse=always "$WORK/server.ext4" "$DISK"
}

# boot VERSION with|without NAME: boots that kernel of the disk.
boot() {
	local release version source dir=$WORK/$3
	kernel "$1"
	rm -rf "$dir"
	mkdir -p "$dir"
	with_disk "$DISK" prepare_boot "$2" "$dir"
	"$SCRIPTS/root.sh" run tools "$REPO/build/target/release/toa-vm" --kernel "$dir/vmlinuz" --initrd "$dir/initrd" \
		--payload "$DISK" --append "root=/dev/vda rw systemd.show_status=0" --out "$dir" \
		--timeout 1800 --idle 900 >"$dir/verdict" || { cat "$dir/verdict" "$dir/ktap.log" && return 1; }
	grep -E '^(ok|not ok)' "$dir/ktap.log" | sed "s/^/# $1: /" >>"$WORK/boots"
}

prepare_boot() {
	mkdir -p "$SERVER/opt/toa-test"
	cp "$REPO/tests/upgrade/check" "$REPO/build/target/release/toa-balancer" "$SERVER/opt/toa-test/"
	echo "$release $1" >"$SERVER/opt/toa-test/expect"
	cp "$SERVER/boot/vmlinuz-$release" "$2/vmlinuz"
	cp "$SERVER/boot/initrd.img-$release" "$2/initrd"
}

said() {
	tr -d '\r' <"$LOG" | sed -n 's/^toa: //p' | sort -u
}

upgrade() {
	apt update
	apt dist-upgrade
}

# The kernels that have a toa.ko of DKMS.
with_toa() {
	(cd "$SERVER/lib/modules" && find . -path '*/updates/dkms/toa.ko*' | cut -d / -f 2 | sort | paste -sd ' ')
}

releases() {
	local one
	for one; do
		KVER=$one "$SCRIPTS/kernel.sh" resolve | sed -n 's/^release=//p'
	done | sort | paste -sd ' '
}

upgrade_and_look() {
	local release
	same "toa before the upgrade" "$(releases "$OLD")" "$(with_toa)"
	upgrade
	same "toa after it" "$(releases "$OLD" "$NEW")" "$(with_toa)"
	same "complaints" "" "$(said)"
	same "dpkg --audit" "" "$(inside "$SERVER" dpkg --audit)"
}

case_clients_are_seen_before_and_after_an_upgrade() {
	own_disk upgraded
	boot "$OLD" with boot-old
	with_disk "$DISK" upgrade_and_look
	boot "$NEW" with boot-new
}

case_a_boot_without_toa_is_told_of() {
	local release
	own_disk without
	release=$(releases "$OLD")
	with_disk "$DISK" without_module
	boot "$OLD" without boot-without
}

without_module() {
	inside "$SERVER" dkms uninstall "toa/$("$SCRIPTS/version.sh" print)" -k "$release" >>"$LOG"
	inside "$SERVER" dkms unbuild "toa/$("$SCRIPTS/version.sh" print)" -k "$release" >>"$LOG"
}

[[ ${1:-} != --case || -n ${TOA_OWN_MOUNTS:-} ]] || in_own_mounts "$0" "$@"
case ${1:-} in
-h | --help | help) usage 0 ;;
--case)
	# shellcheck disable=SC1091 # written by prepare
	. "$WORK/kernels"
	;;
prepare)
	[[ -n ${TOA_OWN_MOUNTS:-} ]] || in_own_mounts "$0" "$@"
	prepare
	exit
	;;
*)
	"$0" prepare
	rm -f "$WORK/boots"
	;;
esac
cases_main "$@"
