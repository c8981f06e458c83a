#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Tests of kernel upgrades on a server with toa's package.
#
#   upgrade-test.sh [CASE…]
#   upgrade-test.sh prepare      make the server's disk only
#
# The script makes a disk with Debian, systemd, nginx and a kernel, and installs
# toa-dkms and its dependencies with apt. apt runs the upgrades in a chroot of that
# disk, from a repository of local files. They do not depend on the running kernel.
# QEMU boots the disk.
#
# KERNEL=    trixie-backports (default), trixie (Debian 13's own kernel) or bookworm
#            (Debian 12's)
# VERSIONS=  the first kernel and its upgrades, such as "6.12.115 6.12.118". The
#            default is the two newest kernels, for Debian's own of one series. The
#            archive's metapackages depend on the newest only; the script makes
#            stand-ins for the older ones.
#
# One boot is under the traffic of a forger and a balancer (toa-guest traffic).
#
# deb-test.sh tests other failures of an installation of headers, without booting.
#
# Run it as root. Prints TAP. Logs are in build/upgrade-KERNEL.

. "$(dirname "$0")/../scripts/lib.sh"
. "$REPO/tests/cases.sh"
. "$REPO/tests/scratch.sh"

export KERNEL=${KERNEL:-trixie-backports}
WORK=$REPO/build/upgrade-$KERNEL
META=cloud-amd64
DISK_SIZE=8G

# --- kernels and their repository ---------------------------------------------

# versions PACKAGE: prints its versions in the suites of the kernel, newest first.
versions() {
	local suite suites
	read -ra suites < <(suites_of_kernel)
	for suite in "${suites[@]}"; do
		archive_versions "$1" "$suite"
	done | sort -rVu
}

# The series of Debian's own kernel, such as 6.12, or nothing for backports.
series() {
	[[ $KERNEL == *-backports ]] || versions "linux-image-$META" | sed -n '1s/^\([0-9]*\.[0-9]*\)\..*/\1./p'
}

# found KIND: prints "VERSION RELEASE" of the packages linux-KIND-RELEASE in the suites.
found() {
	archive_cache pkgnames "linux-$1-" | grep -E -- "^linux-$1-[0-9].*-$META\$" |
		xargs apt-cache -c "$TOA_CACHE/apt/apt.conf" madison |
		awk -F ' *[|] *' -v suites=" $(suites_of_kernel) " -v prefix="linux-$1-" '
			{ sub(/^ */, "", $1); split($3, a, " "); split(a[2], b, "/") }
			index(suites, " " b[1] " ") { print $2, substr($1, length(prefix) + 1) }' | sort -u
}

# kernels: prints "VERSION RELEASE" of the kernels with an image and headers, newest first. Headers
# may be in the archive a day before the signed image.
kernels() {
	comm -12 <(found image) <(found headers) | sort -rV
}

# kernel_versions: prints the upstream versions of kernels in the suites, newest first.
kernel_versions() {
	kernels | sed 's/-.*//' | uniq | awk -v series="$(series)" 'index($0, series) == 1'
}

# choose_kernels: sets FROM, the server's first kernel, and THEN, its upgrades, to
# upstream versions. Their headers are all in the archive.
choose_kernels() {
	local versions
	archive_update
	read -ra versions <<<"${VERSIONS:-}"
	if [[ ${#versions[@]} == 0 ]]; then
		read -ra versions < <(kernel_versions | head -n 2 | tac | paste -sd ' ')
	fi
	[[ ${#versions[@]} -ge 2 ]] || die "the archive has fewer than two kernels of $KERNEL to upgrade between"
	FROM=${versions[0]}
	THEN=("${versions[@]:1}")
}

# kernel VERSION: sets release and version.
kernel() {
	read -r version release < <(kernels | awk -v upstream="$1" '$1 == upstream || index($1, upstream "-") == 1')
	[[ -n $release ]] || die "the archive has no kernel $1 of $KERNEL"
}

# kernel_packages: prints the kernel's packages on a server. Debian's releases divide a
# kernel differently.
kernel_packages() {
	local abi=${release%-"$META"} series package
	series=$(grep -oE '^[0-9]+\.[0-9]+' <<<"$version")
	for package in linux-{image,base,binary,modules,headers}-"$release" "linux-headers-$abi-common" \
		"linux-kbuild-$abi" "linux-kbuild-$series" linux-compiler-gcc-12-x86; do
		! versions "$package" | grep -qxF -- "$version" || echo "$package"
	done
}

# archive_at VERSION: prints the repository of the time when VERSION was the newest
# kernel.
archive_at() {
	echo "$WORK/archive-$1"
}

# stand_in NAME DEPENDS: makes a metapackage as the archive had it.
stand_in() {
	local dir=$WORK/stand-in
	rm -rf "$dir"
	mkdir -p "$dir/DEBIAN"
	cat >"$dir/DEBIAN/control" <<-CONTROL
		Package: $1
		Version: $version+standin
		Architecture: amd64
		Maintainer: The toa developers <toa@packages.invalid>
		Depends: $2 (= $version)
		Description: stand-in for the package of that version
	CONTROL
	dpkg-deb --root-owner-group --build "$dir" "$repository" >/dev/null
	rm -rf "$dir"
}

# offer VERSION [BEFORE]: makes VERSION's repository, with the packages of BEFORE.
offer() {
	local release version packages name repository
	kernel "$1"
	repository=$(archive_at "$1")
	mkdir -p "$repository"
	[[ -z ${2:-} ]] || copy_repository "$(archive_at "$2")" "$repository"
	mapfile -t packages < <(kernel_packages)
	stand_in "linux-image-$META" "linux-image-$release"
	stand_in "linux-headers-$META" "linux-headers-$release"
	packages=("${packages[@]/%/=$version}" "linux-base=$(versions linux-base | head -n 1)")
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

# apt_sources: sets apt's sources to that Debian and the repository, whose metapackages decide
# which kernel is the newest.
apt_sources() {
	local suites
	read -ra suites < <(suites_of_kernel)
	rm -f "$SERVER"/etc/apt/sources.list.d/* "$SERVER"/etc/apt/preferences.d/*
	{
		archive_sources "${suites[@]}"
		echo "deb [trusted=yes] file:/srv/repository ./"
	} >"$SERVER/etc/apt/sources.list"
	printf '%s\n' "Package: linux-image-$META linux-headers-$META" "Pin: release o=Debian" "Pin-Priority: -1" \
		>"$SERVER/etc/apt/preferences.d/kernels"
	mkdir -p "$SERVER$(dirname "$(archive_keyring)")"
	[[ -e $SERVER$(archive_keyring) ]] || cp "$(archive_keyring)" "$SERVER$(archive_keyring)"
}

# Nothing is installed but what the packages depend on.
install_server() {
	apt_sources
	apt update
	apt upgrade --with-new-pkgs
	apt install --no-install-recommends "linux-image-$META" "linux-headers-$META"
	cp "$("$SCRIPTS/deb.sh" directory)"/toa-dkms_*_all.deb "$SERVER/root/toa-dkms.deb"
	apt install --no-install-recommends /root/toa-dkms.deb
	rm -f "$SERVER"/var/log/journal/*
	cp "$REPO"/tests/upgrade/*.service "$SERVER/etc/systemd/system/"
	cp "$REPO/tests/upgrade/times.conf" "$SERVER/etc/nginx/conf.d/"
	systemctl enable toa-web.service toa-test.service
	systemctl mask serial-getty@ttyS0.service
	systemctl set-default multi-user.target
}

# disk_key: prints a hash of the disk's sources. A new hash rebuilds the disk.
disk_key() {
	declare -f kernel_packages stand_in offer copy_repository apt_sources install_server make_disk | sha256sum
	cat "$REPO"/tests/upgrade/*.{service,conf} "$("$SCRIPTS/deb.sh" directory)"/toa-dkms_*_all.deb | sha256sum
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
	REPOSITORY=$(archive_at "$FROM")
	"$SCRIPTS/root.sh" run tools mke2fs -q -t ext4 -m 0 -d "$("$SCRIPTS/root.sh" path server)" "$WORK/server.ext4" "$DISK_SIZE"
	with_disk "$WORK/server.ext4" install_server
	rm -rf --one-file-system "$TMP"
	info "the server has Linux $FROM and toa"
}

# --- cases ---------------------------------------------------------------------

# own_disk: makes a copy of the disk that a case may change.
own_disk() {
	DISK=$WORK/$1.ext4
	REPOSITORY=$(archive_at "$FROM")
	LOG=$WORK/$1.log
	rm -f "$LOG"
	cp --sparse=always "$WORK/server.ext4" "$DISK"
}

# boot VERSION EXPECT NAME: boots that kernel of the disk, with the checks that EXPECT names.
boot() {
	local release version dir=$WORK/$3
	kernel "$1"
	rm -rf "$dir"
	mkdir -p "$dir"
	with_disk "$DISK" prepare_boot "$2" "$dir"
	"$SCRIPTS/root.sh" run tools "$REPO/build/target/release/toa-vm" --kernel "$dir/vmlinuz" --initrd "$dir/initrd" \
		--payload "$DISK" --append "root=/dev/vda rw systemd.show_status=0" --out "$dir" \
		--timeout 1800 --idle 900 >"$dir/verdict" || { cat "$dir/verdict" "$dir/ktap.log" && return 1; }
	grep -E '^(ok|not ok)' "$dir/ktap.log" | sed "s/^/# $1: /" >>"$WORK/boots"
}

# The programs run with the C library that they were built for.
prepare_boot() {
	local tools
	tools=$("$SCRIPTS/root.sh" path tools)
	mkdir -p "$SERVER/opt/toa-test/lib"
	cp "$REPO/tests/upgrade/check" "$REPO"/build/target/release/toa-{balancer,guest} \
		"$REPO/build/target/x86_64-unknown-linux-gnu/release/toa" "$SERVER/opt/toa-test/"
	cp -L "$tools"/lib64/ld-linux-x86-64.so.2 "$tools"/usr/lib/x86_64-linux-gnu/lib{c,m,gcc_s}.so.* "$SERVER/opt/toa-test/lib/"
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
	local one version release
	for one; do
		kernel "$one"
		echo "$release"
	done | sort | paste -sd ' '
}

# upgrade_and_look VERSION…: upgrades, and checks that these kernels have toa.
upgrade_and_look() {
	upgrade
	same "toa after the upgrade" "$(releases "$@")" "$(with_toa)"
	same "complaints" "" "$(messages)"
	same "dpkg --audit" "" "$(inside "$SERVER" dpkg --audit)"
}

case_clients_are_seen_before_and_after_upgrades_and_back() {
	local version had=("$FROM")
	own_disk upgraded
	boot "$FROM" with "boot-$FROM"
	for version in "${THEN[@]}"; do
		REPOSITORY=$(archive_at "$version")
		had+=("$version")
		with_disk "$DISK" upgrade_and_look "${had[@]}"
		boot "$version" with "boot-$version"
	done
	boot "$FROM" with "boot-$FROM-again"
}

case_an_upgrade_that_fails_leaves_the_old_kernel_serving() {
	local release version
	own_disk failing
	kernel "${THEN[-1]}"
	REPOSITORY=$(archive_at "${THEN[-1]}")
	with_disk "$DISK" upgrade_and_fail
	boot "$FROM" with boot-after-failure
	with_disk "$DISK" mend
}

# The disk is full where the build keeps Rust's core library.
upgrade_and_fail() {
	apt update
	mount -t tmpfs -o size=1M tmpfs "$SERVER/var/cache/toa-dkms"
	! inside "$SERVER" apt-get -q -y upgrade --with-new-pkgs >>"$LOG" 2>&1 || fail "apt-get upgrade did not fail"
	same "messages" "the kernel $release has no toa.ko: its build failed: see /var/lib/toa/failed/$release.log" "$(messages)"
	has "the log" "No space left on device" "$(<"$SERVER/var/lib/toa/failed/$release.log")"
	same "toa after it" "$(releases "$FROM")" "$(with_toa)"
	# Without it, no boot loader has an entry for the new kernel.
	[[ ! -e $SERVER/boot/initrd.img-$release ]] || die "the new kernel has an initial RAM disk"
}

mend() {
	apt -f install
	same "toa after the remedy" "$(releases "$FROM" "${THEN[-1]}")" "$(with_toa)"
	same "dpkg --audit" "" "$(inside "$SERVER" dpkg --audit)"
	[[ -e $SERVER/boot/initrd.img-$release ]] || die "the new kernel has no initial RAM disk"
}

# The server serves while toa-swap replaces the loaded module.
case_toa_itself_is_upgraded_under_traffic() {
	local release
	own_disk swapped
	release=$(releases "$FROM")
	with_disk "$DISK" build_newer_toa
	boot "$FROM" swap boot-swap
	grep -h '^# gap' "$WORK/boot-swap/ktap.log" | sed "s/^# /# $FROM: /" >>"$WORK/boots"
}

# Builds version 9.9.9 with DKMS, and takes only its module.
build_newer_toa() {
	local version built
	version=$("$SCRIPTS/version.sh" print)
	mkdir -p "$SERVER/opt/toa-test"
	cp -a "$SERVER/usr/src/toa-$version" "$SERVER/usr/src/toa-9.9.9"
	sed -i "s/${version//./\\.}/9.9.9/" "$SERVER"/usr/src/toa-9.9.9/{dkms.conf,toa.rs}
	inside "$SERVER" dkms build -m toa -v 9.9.9 -k "$release" >>"$LOG" 2>&1 || fail "dkms build"
	built=$(find "$SERVER/var/lib/dkms/toa/9.9.9/$release" -name 'toa.ko*')
	inside "$SERVER" sh -c "case $built in *.xz) xz -dc '${built#"$SERVER"}' ;; *) cat '${built#"$SERVER"}' ;; esac >/opt/toa-test/newer.ko"
	inside "$SERVER" dkms remove -m toa -v 9.9.9 --all >>"$LOG" 2>&1 || fail "dkms remove"
	rm -rf "$SERVER/usr/src/toa-9.9.9"
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

# A forger connects from before toa is loaded until the boot is complete.
case_no_forger_is_believed_during_a_boot() {
	own_disk forged
	with_disk "$DISK" trust_a_balancer
	boot "$FROM" policy boot-policy
	grep -h '^# connections' "$WORK/boot-policy/ktap.log" | sed "s/^# /# $FROM: /" >>"$WORK/boots"
}

trust_a_balancer() {
	local units=$SERVER/etc/systemd/system
	echo "net.toa.trusted = 10.0.1.0/28" >"$SERVER/etc/sysctl.d/balancer.conf"
	install -D -m 644 -t "$units" "$REPO/tests/upgrade/traffic/toa-traffic.service"
	install -D -m 644 -t "$units/toa-test.service.d" "$REPO/tests/upgrade/traffic/after-boot.conf"
	systemctl enable toa-traffic.service
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
