#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Tests of kernel upgrades on a server with toa's package.
#
#   upgrade-test.sh [CASE…]
#   upgrade-test.sh prepare      make the server's disk only
#
# The script makes a disk with Debian 13, systemd, nginx and a kernel of its
# backports, and installs toa-dkms and its dependencies with apt. apt runs the
# upgrades in a chroot of that disk, from a repository of local files. They do not
# depend on the running kernel. QEMU boots the disk.
#
# VERSIONS= lists the first kernel and its upgrades, such as "7.2.11 7.2.12 7.3.4".
# The default is the archive's three newest kernels. The archive's metapackages
# depend on the newest only; the script makes stand-ins for the older ones.
#
# deb-test.sh tests other failures of an installation of headers, without booting.
#
# Run it as root. Prints TAP. Logs are in build/upgrade.

. "$(dirname "$0")/../scripts/lib.sh"
. "$REPO/tests/cases.sh"
. "$REPO/tests/scratch.sh"

export KERNEL=trixie-backports
WORK=$REPO/build/upgrade
META=cloud-amd64
DISK_SIZE=8G

# --- kernels and their repository ---------------------------------------------

# kernel_versions: prints the versions of kernels in the suite, newest first.
kernel_versions() {
	archive_cache pkgnames linux-headers- | grep -E -- "-[0-9].*-$META\$" |
		while read -r package; do archive_versions "$package" "$KERNEL"; done | sed 's/-.*//' | sort -rVu
}

# choose_kernels: sets FROM, the server's first kernel, and THEN, its upgrades, to
# upstream versions. Their headers and source are all in the archive.
choose_kernels() {
	local version versions
	archive_update
	read -ra versions <<<"${VERSIONS:-}"
	if [[ ${#versions[@]} == 0 ]]; then
		for version in $(kernel_versions); do
			! KVER=$version "$SCRIPTS/kernel.sh" resolve >/dev/null || versions=("$version" "${versions[@]}")
			[[ ${#versions[@]} -lt 3 ]] || break
		done
	fi
	[[ ${#versions[@]} -ge 2 ]] || die "the archive has fewer than two kernels of $KERNEL to upgrade between"
	FROM=${versions[0]}
	THEN=("${versions[@]:1}")
}

# kernel VERSION: sets release, version, source.
kernel() {
	local found
	found=$(KVER=$1 "$SCRIPTS/kernel.sh" resolve)
	eval "$found"
}

# kernel_packages: prints the kernel's packages on a server.
kernel_packages() {
	local abi=${release%-"$META"}
	printf '%s\n' linux-{image,base,binary,modules,headers}-"$release" \
		"linux-headers-$abi-common" "linux-kbuild-$abi" "$source" linux-source
}

# metapackages: prints the metapackages of the newest kernel.
metapackages() {
	printf "linux-%s-$META\n" image headers base modules
}

# backports_at VERSION: prints the repository of the time when VERSION was the newest
# kernel of backports.
backports_at() {
	echo "$WORK/backports-$1"
}

# stand_in NAME [DEPENDS]: makes a metapackage as the archive had it, or an empty
# package.
stand_in() {
	local dir=$WORK/stand-in
	rm -rf "$dir"
	mkdir -p "$dir/DEBIAN"
	cat >"$dir/DEBIAN/control" <<-CONTROL
		Package: $1
		Version: $version
		Architecture: amd64
		Maintainer: The toa developers <toa@packages.invalid>
		${2:+Depends: $2 (= $version)}
		Description: stand-in for the package of that version
	CONTROL
	sed -i '/^$/d' "$dir/DEBIAN/control"
	dpkg-deb --root-owner-group --build "$dir" "$repository" >/dev/null
	rm -rf "$dir"
}

# offer VERSION [BEFORE]: makes VERSION's repository, with the packages of BEFORE.
offer() {
	local release version source packages config name repository
	kernel "$1"
	repository=$(backports_at "$1")
	mkdir -p "$repository"
	[[ -z ${2:-} ]] || copy_repository "$(backports_at "$2")" "$repository"
	mapfile -t packages < <(kernel_packages)
	if [[ $(archive_versions "linux-image-$META" "$KERNEL" | head -n 1) == "$version" ]]; then
		mapfile -t -O "${#packages[@]}" packages < <(metapackages)
	else
		stand_in "linux-image-$META" "linux-image-$release"
		stand_in "linux-headers-$META" "linux-headers-$release"
	fi
	config=${source/source/config}
	if archive_versions "$config" "$KERNEL" | grep -qxF -- "$version"; then
		packages+=("$config")
	else
		stand_in "$config"
	fi
	packages=("${packages[@]/%/=$version}" "linux-base=$(archive_versions linux-base "$KERNEL" | head -n 1)")
	archive_download "$TOA_CACHE/kernels/debs" "${packages[@]}"
	for name in "${packages[@]}"; do
		name=${name/=/_}
		find "$TOA_CACHE/kernels/debs" -name "${name//:/%3a}_*.deb" -exec cp -t "$repository" {} +
	done
	index "$repository"
}

# copy_repository FROM TO: copies it without its index.
copy_repository() {
	cp -al "$1/." "$2/"
	rm "$2/Packages"
}

index() {
	"$SCRIPTS/root.sh" run deb sh -c "cd $1 && dpkg-scanpackages -m . >Packages" 2>/dev/null
}

# --- the server's disk ---------------------------------------------------------

# with_disk IMAGE COMMAND…: runs COMMAND with the image mounted at $SERVER.
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
	mount --bind "$REPOSITORY" "$SERVER/srv/repository"
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

# apt_sources: sets apt's sources to Debian 13 and the repository.
apt_sources() {
	rm -f "$SERVER"/etc/apt/sources.list.d/* "$SERVER"/etc/apt/preferences.d/*
	{
		archive_sources trixie
		echo "deb [trusted=yes] file:/srv/repository ./"
	} >"$SERVER/etc/apt/sources.list"
	mkdir -p "$SERVER$(dirname "$(archive_keyring)")"
	[[ -e $SERVER$(archive_keyring) ]] || cp "$(archive_keyring)" "$SERVER$(archive_keyring)"
}

install_server() {
	apt_sources
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

# disk_key: prints a hash of the disk's sources. A new hash rebuilds the disk.
disk_key() {
	declare -f kernel_packages metapackages stand_in offer copy_repository apt_sources install_server make_disk | sha256sum
	cat "$REPO"/tests/upgrade/*.service "$("$SCRIPTS/deb.sh" directory)"/toa-dkms_*_all.deb | sha256sum
	echo "$FROM ${THEN[*]} $("$SCRIPTS/root.sh" key server)"
}

prepare() {
	local key before version
	mkdir -p "$WORK"
	choose_kernels
	"$SCRIPTS/deb.sh" make toa >&2
	"$SCRIPTS/vm-test.sh" programs
	key=$(disk_key)
	if [[ ! -e $WORK/key || $(<"$WORK/key") != "$key" ]]; then
		rm -rf "$WORK"
		mkdir -p "$WORK"
		make_disk
		before=$FROM
		for version in "${THEN[@]}"; do
			offer "$version" "$before"
			before=$version
		done
		echo "$key" >"$WORK/key"
	fi
	declare -p FROM THEN | sed 's/^declare/& -g/' >"$WORK/kernels"
}

make_disk() {
	TMP=$(mktemp -d)
	LOG=$WORK/install.log
	offer "$FROM"
	REPOSITORY=$(backports_at "$FROM")
	"$SCRIPTS/root.sh" run tools mke2fs -q -t ext4 -m 0 -d "$("$SCRIPTS/root.sh" path server)" "$WORK/server.ext4" "$DISK_SIZE"
	with_disk "$WORK/server.ext4" install_server
	rm -rf --one-file-system "$TMP"
	info "the server has Linux $FROM and toa"
}

# --- cases ---------------------------------------------------------------------

# own_disk: makes a copy of the disk that a case may change.
own_disk() {
	DISK=$WORK/$1.ext4
	REPOSITORY=$(backports_at "$FROM")
	LOG=$WORK/$1.log
	rm -f "$LOG"
	cp --sparse=always "$WORK/server.ext4" "$DISK"
}

# boot VERSION with|without NAME: boots that kernel of the disk, with or without toa.
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

messages() {
	tr -d '\r' <"$LOG" | sed -n 's/^toa: //p' | sort -u
}

# upgrade: upgrades as `apt upgrade` does.
upgrade() {
	apt update
	apt upgrade --with-new-pkgs
}

# with_toa: prints the kernels that have a toa.ko of DKMS.
with_toa() {
	(cd "$SERVER/lib/modules" && find . -path '*/updates/dkms/toa.ko*' | cut -d / -f 2 | sort | paste -sd ' ')
}

releases() {
	local one
	for one; do
		KVER=$one "$SCRIPTS/kernel.sh" resolve | sed -n 's/^release=//p'
	done | sort | paste -sd ' '
}

# upgrade_and_look VERSION…: upgrades, and checks that these kernels have toa.
upgrade_and_look() {
	upgrade
	same "toa after the upgrade" "$(releases "$@")" "$(with_toa)"
	same "complaints" "" "$(messages)"
	same "dpkg --audit" "" "$(inside "$SERVER" dpkg --audit)"
}

case_clients_are_seen_before_and_after_upgrades() {
	local version had=("$FROM")
	own_disk upgraded
	boot "$FROM" with "boot-$FROM"
	for version in "${THEN[@]}"; do
		REPOSITORY=$(backports_at "$version")
		had+=("$version")
		with_disk "$DISK" upgrade_and_look "${had[@]}"
		boot "$version" with "boot-$version"
	done
}

case_an_upgrade_that_fails_leaves_the_old_kernel_serving() {
	local release version source newest=${THEN[-1]}
	own_disk failing
	kernel "$newest"
	without_source "$(backports_at "$newest")"
	with_disk "$DISK" upgrade_and_fail
	boot "$FROM" with boot-after-failure
	REPOSITORY=$(backports_at "$newest")
	with_disk "$DISK" mend
}

# without_source KERNEL: makes a repository without the new kernel's source.
without_source() {
	REPOSITORY=$WORK/without-source
	rm -rf "$REPOSITORY"
	mkdir "$REPOSITORY"
	copy_repository "$1" "$REPOSITORY"
	rm "$REPOSITORY"/linux-source*_"$version"_*
	index "$REPOSITORY"
}

upgrade_and_fail() {
	apt update
	! inside "$SERVER" apt-get -q -y upgrade --with-new-pkgs >>"$LOG" 2>&1 || fail "apt-get upgrade did not fail"
	same "messages" "the kernel $release has no toa.ko: $source is missing (apt does not offer that version now: run apt update; if it is gone, take the newest kernel, headers and source): apt install $source=$version" "$(messages)"
	same "toa after it" "$(releases "$FROM")" "$(with_toa)"
	# Without it, no boot loader has an entry for the new kernel.
	[[ ! -e $SERVER/boot/initrd.img-$release ]] || die "the new kernel has an initial RAM disk"
}

# mend: runs the commands of the message.
mend() {
	apt update
	apt install "$source=$version"
	same "toa after the remedy" "$(releases "$FROM" "${THEN[-1]}")" "$(with_toa)"
	same "dpkg --audit" "" "$(inside "$SERVER" dpkg --audit)"
	[[ -e $SERVER/boot/initrd.img-$release ]] || die "the new kernel has no initial RAM disk"
}

case_a_boot_without_toa_is_told_of() {
	local release
	own_disk without
	release=$(releases "$FROM")
	with_disk "$DISK" without_module
	boot "$FROM" without boot-without
}

without_module() {
	inside "$SERVER" dkms uninstall "toa/$("$SCRIPTS/version.sh" print)" -k "$release" >>"$LOG"
	inside "$SERVER" dkms unbuild "toa/$("$SCRIPTS/version.sh" print)" -k "$release" >>"$LOG"
}

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
cases_on_servers "$@"
