#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Installs, upgrades, removes and purges the Debian packages in throwaway copies
# of a root with the headers and the source of a kernel.
#
#   deb-test.sh [CASE…]
#
# KERNEL= and KVER= select the kernel, and with it the Debian release (see
# kernel.sh). The packages are those of scripts/deb.sh. Run it as root. Prints TAP.

. "$(dirname "$0")/../scripts/lib.sh"
. "$REPO/tests/cases.sh"
. "$REPO/tests/scratch.sh"

OUT=$("$SCRIPTS/deb.sh" directory)

# --- the stage ---------------------------------------------------------------

# server: mounts a server with dkms and one kernel's headers, and no module for it.
server() {
	local found others
	# shellcheck disable=SC2034 # of the kernel
	declare -g release version source
	found=$("$SCRIPTS/kernel.sh" resolve)
	eval "$found"
	SERVER=$TMP/server
	scratch "$SERVER" "$("$SCRIPTS/root.sh" path build)"
	# shellcheck disable=SC2016 # dpkg-query expands it
	mapfile -t others < <(inside "$SERVER" dpkg-query -W -f '${Package}\n' 'linux-headers-[0-9]*' |
		grep -vxF -e "linux-headers-$release" -e "linux-headers-${release%%-*}-common")
	inside "$SERVER" dpkg --purge "${others[@]}" >apt.log
	# The root has a directory for the test machine's own cache here.
	rmdir "$SERVER/var/cache/toa"
	apt install --no-install-recommends dkms pahole libc6-dev
	cp "$OUT"/toa-dkms_*_all.deb "$SERVER/root/"
	HEADERS=$SERVER/usr/src/linux-headers-$release
	MODULE=$SERVER/lib/modules/$release/updates/dkms/toa.ko
	VERSION=$("$SCRIPTS/version.sh" print)
}

server_with_toa() {
	server
	with_metadata
	apt install --no-install-recommends "/root/toa-dkms_${VERSION}_all.deb"
}

# with_metadata: copies the kernel's metadata into the server's cache.
with_metadata() {
	local overlay
	overlay=$("$SCRIPTS/root.sh" run build "$SCRIPTS/metadata.sh" --kver "$release")
	mkdir -p "$SERVER/var/cache/toa/metadata"
	cp -a "$overlay" "$SERVER/var/cache/toa/metadata/"
}

# metadata_package: copies it to the server's /root, and prints its path there.
metadata_package() {
	local file
	file=$(find "$OUT" -name "toa-metadata-${release}_*.deb")
	cp "$file" "$SERVER/root/"
	echo "/root/${file##*/}"
}

# apt ARGUMENT…: runs apt-get in the server, with its output in apt.log.
apt() {
	inside "$SERVER" apt-get -q -y "$@" >apt.log 2>&1 || fail "apt-get $*"
}

apt_fails() {
	! inside "$SERVER" apt-get -q -y "$@" >apt.log 2>&1 || fail "apt-get $* did not fail"
}

fail() {
	cat apt.log
	die "$*"
}

# messages: prints toa-check's lines in apt.log.
messages() {
	tr -d '\r' <apt.log | sed -n 's/^toa: //p'
}

dkms_status() {
	inside "$SERVER" dkms status -m toa
}

# newer [COMMAND…]: makes toa-dkms of version 9.9.9, sources included. COMMAND may
# change the tree, which is its last argument.
newer() {
	repack newer as_newer "$@"
}

as_newer() {
	local tree=${!#}
	mv "$tree/usr/src/toa-$VERSION" "$tree/usr/src/toa-9.9.9"
	sed -i "s/${VERSION//./\\.}/9.9.9/g" "$tree"/DEBIAN/{control,postinst,prerm,md5sums} \
		"$tree"/usr/src/toa-9.9.9/{dkms.conf,toa.rs}
	[[ $# == 1 ]] || "$@"
}

# repack NAME COMMAND…: makes /root/NAME.deb from toa-dkms. COMMAND changes the
# tree, which is its last argument.
repack() {
	local tree=$TMP/$1
	dpkg-deb -R "$OUT/toa-dkms_${VERSION}_all.deb" "$tree"
	"${@:2}" "$tree"
	dpkg-deb --root-owner-group -z0 -b "$tree" "$SERVER/root/$1.deb" >/dev/null
}

# has_toa VERSION: checks the kernel's toa, by DKMS and by the file of modprobe.
has_toa() {
	same "status" "toa/$1, $release, x86_64: installed" "$(dkms_status)"
	same "modinfo" "$1" "$(modinfo -F version "$MODULE")"
}

nothing_is_kept() {
	[[ ! -e $SERVER/var/lib/toa ]] || die "kept: $(find "$SERVER/var/lib/toa")"
}

# --- claims ------------------------------------------------------------------

case_install_upgrade_remove_and_purge_leave_nothing() {
	server
	files "$SERVER" >before
	with_metadata
	apt install --no-install-recommends "/root/toa-dkms_${VERSION}_all.deb"
	same "status" "toa/$VERSION, $release, x86_64: installed" "$(dkms_status)"
	same "modinfo" "$VERSION $release" "$(modinfo -F version "$MODULE") $(modinfo -F vermagic "$MODULE" | cut -d ' ' -f 1)"
	same "BTF and debugging" ".BTF .BTF.base" "$(inside "$SERVER" readelf -SW "${MODULE#"$SERVER"}" | grep -oE '\.(BTF|debug_)[.a-z_]*' | paste -sd ' ')"
	same "complaints" "" "$(messages)"
	[[ -L $SERVER/etc/systemd/system/multi-user.target.wants/toa-check.service ]] || die "the unit is not enabled"

	newer
	apt install --no-install-recommends /root/newer.deb
	has_toa 9.9.9
	same "sources" "toa-9.9.9" "$(cd "$SERVER/usr/src" && echo toa-*)"
	apt install --no-install-recommends --allow-downgrades "/root/toa-dkms_${VERSION}_all.deb"
	has_toa "$VERSION"
	same "sources" "toa-$VERSION" "$(cd "$SERVER/usr/src" && echo toa-*)"
	nothing_is_kept

	echo "options toa max_records=7" >>"$SERVER/etc/modprobe.d/toa.conf"
	apt remove toa-dkms
	files "$SERVER" >removed
	same "left by remove" "$(
		cat <<-LIST
			/etc/modprobe.d/toa.conf
			/var/lib/dkms/mok.key
			/var/lib/dkms/mok.pub
			/var/lib/dpkg/info/toa-dkms.list
			/var/lib/dpkg/info/toa-dkms.postrm
		LIST
	)" "$(appeared before removed | grep -v /systemd)"
	apt purge toa-dkms
	files "$SERVER" >purged
	same "left by purge, the key that dkms made" "$(printf '/var/lib/dkms/mok.%s\n' key pub)" "$(appeared before purged)"
}

case_a_metadata_package_takes_the_place_of_the_source() {
	server
	inside "$SERVER" dpkg --purge "$source" >apt.log
	apt install --no-install-recommends "/root/toa-dkms_${VERSION}_all.deb" "$(metadata_package)"
	same "status" "toa/$VERSION, $release, x86_64: installed" "$(dkms_status)"
	same "complaints" "" "$(messages)"
	[[ ! -e $SERVER/var/cache/toa ]] || die "metadata was made: $(find "$SERVER/var/cache/toa")"
}

case_without_the_source_apt_fails_and_says_which() {
	server
	inside "$SERVER" dpkg --purge "$source" >apt.log
	apt_fails install --no-install-recommends "/root/toa-dkms_${VERSION}_all.deb"
	same "messages" "the kernel $release has no toa.ko: $source is missing: apt install $source=$version" "$(messages)"
	has "dpkg --audit" "toa-dkms" "$(inside "$SERVER" dpkg --audit)"
	# The metadata package is a quicker remedy than the one in the message.
	apt install --no-install-recommends "$(metadata_package)"
	same "status" "toa/$VERSION, $release, x86_64: installed" "$(dkms_status)"
	same "dpkg --audit" "" "$(inside "$SERVER" dpkg --audit)"
}

without_rust() {
	sed -i 's/^CONFIG_RUST=y/# CONFIG_RUST is not set/' "$1"
}

case_a_kernel_without_rust_is_passed_over() {
	server
	with_metadata
	without_rust "$HEADERS/.config"
	without_rust "$HEADERS/include/config/auto.conf"
	apt install --no-install-recommends "/root/toa-dkms_${VERSION}_all.deb"
	has "dkms" "BUILD_EXCLUSIVE directive which does not match this kernel" \
		"$(inside "$SERVER" dkms autoinstall -k "$release" 2>&1 | paste -sd ' ')"
	same "messages" "the kernel $release has no toa.ko: it was built without Rust (CONFIG_RUST)" "$(messages)"
	same "status" "toa/$VERSION: added" "$(dkms_status)"
	apt install --reinstall "linux-headers-$release=$version"
	same "messages" "" "$(messages)"
	same "status" "toa/$VERSION, $release, x86_64: installed" "$(dkms_status)"
}

# --- a kernel that is installed after toa-dkms ----------------------------------

# waiting_server: mounts a server with toa-dkms and a kernel without headers.
waiting_server() {
	server
	apt purge "linux-headers-$release"
	touch "$SERVER/lib/modules/$release/vmlinuz"
	apt install --no-install-recommends "/root/toa-dkms_${VERSION}_all.deb"
	same "messages" "the kernel $release has no toa.ko: its headers are missing: apt install linux-headers-$release" "$(messages)"
}

headers_fail_with() {
	apt_fails install "linux-headers-$release=$version"
	same "messages" "the kernel $release has no toa.ko: $1" "$(messages | sort -u)"
	same "status" "toa/$VERSION: added" "$(dkms_status)"
}

mended() {
	apt -f install
	same "messages" "" "$(messages)"
	same "status" "toa/$VERSION, $release, x86_64: installed" "$(dkms_status)"
	same "dpkg --audit" "" "$(inside "$SERVER" dpkg --audit)"
}

case_headers_that_come_later_get_toa() {
	waiting_server
	with_metadata
	apt install "linux-headers-$release=$version"
	mended
}

# The metapackage makes the next upgrade install headers too.
case_missing_headers_are_named_with_their_metapackage() {
	local flavour
	waiting_server
	flavour=${release#*-}
	mkdir -p "$TMP/meta/DEBIAN"
	printf '%s\n' "Package: linux-image-$flavour" "Version: 7.9-1" "Architecture: amd64" \
		"Maintainer: A test <test@packages.invalid>" "Description: a kernel" >"$TMP/meta/DEBIAN/control"
	dpkg-deb --root-owner-group -z0 -b "$TMP/meta" "$SERVER/root/meta.deb" >/dev/null
	apt install /root/meta.deb
	same "messages" "toa: the kernel $release has no toa.ko: its headers are missing: apt install linux-headers-$release linux-headers-$flavour=7.9-1" \
		"$(inside "$SERVER" /usr/libexec/toa/toa-check installed)"
}

# dpkg has already given up on the headers: the arrival of the source starts the
# build.
case_a_source_that_comes_after_the_headers_starts_the_build() {
	waiting_server
	inside "$SERVER" dpkg --purge "$source" >apt.log
	headers_fail_with "$source is missing: apt install $source=$version"
	inside "$SERVER" dpkg --unpack "$(metadata_package)" >apt.log 2>&1 || fail "dpkg"
	same "status" "toa/$VERSION, $release, x86_64: installed" "$(dkms_status)"
	mended
}

case_another_rustc_stops_apt() {
	local rustc rustc_text
	waiting_server
	with_metadata
	rustc_text=$("$SCRIPTS/kernel.sh" resolve | bash -c 'eval "$(cat)"; echo "$rustc_text"')
	rustc=$SERVER$(inside "$SERVER" realpath /usr/bin/rustc)
	mv "$rustc" "$TMP/rustc"
	printf '#!/bin/sh\necho "rustc 1.99.0 (another)"\n' >"$rustc"
	chmod +x "$rustc"
	apt_fails install "linux-headers-$release=$version"
	has "messages" "the kernel $release has no toa.ko: the kernel was built by $rustc_text, and /usr/bin/rustc is rustc 1.99.0 (another)" "$(messages | sort -u)"
	cp -p "$TMP/rustc" "$rustc"
	mended
}

case_a_full_disk_stops_apt() {
	waiting_server
	mkdir -p "$SERVER/var/cache/toa"
	mount -t tmpfs -o size=16M tmpfs "$SERVER/var/cache/toa"
	headers_fail_with "/var/cache/toa/metadata has 16 MB free, making the metadata takes 800 MB: make room there, or TOA_METADATA_CACHE=/some/directory make"
	umount "$SERVER/var/cache/toa"
	with_metadata
	mended
}

case_a_build_that_fails_stops_apt() {
	waiting_server
	with_metadata
	cp -p "$SERVER/usr/src/toa-$VERSION/toa.rs" "$TMP/toa.rs"
	echo "this is no Rust" >>"$SERVER/usr/src/toa-$VERSION/toa.rs"
	headers_fail_with "its build failed: see /var/lib/toa/failed/$release.log"
	has "log" "this is no Rust" "$(<"$SERVER/var/lib/toa/failed/$release.log")"
	cp -p "$TMP/toa.rs" "$SERVER/usr/src/toa-$VERSION/toa.rs"
	mended
}

# --- a toa-dkms that is installed over existing modules --------------------------

# old_kernel: adds a kernel for which no module can be built.
old_kernel() {
	OLD=7.2.0+old-cloud-amd64
	mkdir -p "$SERVER/lib/modules/$OLD/build/include"
	echo CONFIG_RUST=y >"$SERVER/lib/modules/$OLD/build/.config"
}

break_source() {
	echo "this is no Rust" | tee -a "$1"/usr/src/toa-*/toa.rs >/dev/null
}

case_a_kernel_that_is_not_built_for_takes_toa_from_none() {
	local old_has_none
	server
	with_metadata
	old_kernel
	apt install --no-install-recommends "/root/toa-dkms_${VERSION}_all.deb"
	same "status" "toa/$VERSION, $release, x86_64: installed" "$(dkms_status)"
	old_has_none=$(messages)
	has "messages" "the kernel $OLD has no toa.ko: " "$old_has_none"
	same "messages, lines" 1 "$(messages | wc -l)"

	newer break_source
	apt_fails install --no-install-recommends /root/newer.deb
	same "messages" "$(
		echo "the kernel $release keeps toa $VERSION: its build failed: see /var/lib/toa/failed/$release.log"
		echo "$old_has_none"
	)" "$(messages)"
	same "status" "$(printf '%s\n' "toa/$VERSION, $release, x86_64: installed" "toa/9.9.9: added")" "$(dkms_status | sort)"
	same "modinfo" "$VERSION" "$(modinfo -F version "$MODULE")"
	sed -i '/this is no Rust/d' "$SERVER/usr/src/toa-9.9.9/toa.rs"
	apt -f install
	same "messages" "$old_has_none" "$(messages)"
	has_toa 9.9.9
	same "kept" "$SERVER/var/lib/toa/failed/$OLD.log" "$(find "$SERVER/var/lib/toa" -type f)"
}

case_a_kernel_without_headers_keeps_its_toa() {
	server_with_toa
	touch "$SERVER/lib/modules/$release/vmlinuz"
	apt purge "linux-headers-$release"
	newer
	apt install --no-install-recommends /root/newer.deb
	same "messages" "the kernel $release keeps toa $VERSION: its headers are missing: apt install linux-headers-$release" "$(messages)"
	same "modinfo" "$VERSION" "$(modinfo -F version "$MODULE")"
	apt remove toa-dkms
	[[ ! -e $MODULE ]] || die "$MODULE still exists"
	same "status" "" "$(dkms_status)"
}

case_a_reinstallation_builds_only_what_has_changed() {
	local since
	server_with_toa
	since=$(stat -c %z "$MODULE")
	apt install --reinstall "/root/toa-dkms_${VERSION}_all.deb"
	same "module" "$since" "$(stat -c %z "$MODULE")"
	echo "// another" >>"$SERVER/usr/src/toa-$VERSION/toa.rs"
	apt install --reinstall "/root/toa-dkms_${VERSION}_all.deb"
	[[ $(stat -c %z "$MODULE") != "$since" ]] || die "the module was not rebuilt"
	same "status" "toa/$VERSION, $release, x86_64: installed" "$(dkms_status)"
	nothing_is_kept

	# The existing module stays if the new one cannot be built.
	since=$(stat -c %z "$MODULE")
	repack same break_source
	apt_fails install --reinstall /root/same.deb
	same "messages" "the kernel $release keeps toa $VERSION: its build failed: see /var/lib/toa/failed/$release.log" "$(messages)"
	same "status" "toa/$VERSION, $release, x86_64: installed" "$(dkms_status)"
	same "module" "$since" "$(stat -c %z "$MODULE")"
	sed -i '/this is no Rust/d' "$SERVER/usr/src/toa-$VERSION/toa.rs"
	mended
	nothing_is_kept
}

case_a_kernel_that_dkms_is_told_to_pass_over_is_no_failure() {
	server
	with_metadata
	mkdir -p "$SERVER/etc/dkms"
	echo 'BUILD_EXCLUSIVE_KERNEL="^9"' >"$SERVER/etc/dkms/toa.conf"
	apt install --no-install-recommends "/root/toa-dkms_${VERSION}_all.deb"
	same "messages" "the kernel $release has no toa.ko: it was not built: dkms install toa/$VERSION -k $release" "$(messages)"
	same "status" "toa/$VERSION: added" "$(dkms_status)"
}

# The kept module is missing after `dkms remove` by hand, or the disk is full.
case_what_is_kept_may_be_gone_and_need_not_fit() {
	server_with_toa
	mkdir -p "$SERVER/var/lib/toa/kept/toa-0.0.1"
	newer
	apt install --no-install-recommends /root/newer.deb
	same "status" "toa/9.9.9, $release, x86_64: installed" "$(dkms_status)"
	nothing_is_kept

	mkdir "$SERVER/var/lib/toa"
	mount -t tmpfs -o size=64k tmpfs "$SERVER/var/lib/toa"
	apt_fails install --no-install-recommends --allow-downgrades "/root/toa-dkms_${VERSION}_all.deb"
	has_toa 9.9.9
	same "kept" "" "$(find "$SERVER/var/lib/toa" -type f)"
}

# In this state dpkg calls no prerm.
case_removed_before_it_is_configured_it_leaves_nothing() {
	server_with_toa
	newer
	inside "$SERVER" dpkg --unpack /root/newer.deb >apt.log 2>&1 || fail "dpkg"
	same "status" "toa/$VERSION, $release, x86_64: installed" "$(dkms_status)"
	inside "$SERVER" dpkg --purge toa-dkms >apt.log 2>&1 || fail "dpkg"
	same "status" "" "$(dkms_status)"
	[[ ! -e $MODULE && ! -e $SERVER/var/lib/toa ]] || die "left: $(find "$SERVER/var/lib/toa" "$MODULE")"
}

fail_to_unpack() {
	printf '#!/bin/sh\nexit 1\n' >"$1/DEBIAN/preinst"
	chmod 755 "$1/DEBIAN/preinst"
}

case_an_upgrade_that_is_aborted_changes_nothing() {
	server_with_toa
	files "$SERVER" >before
	newer fail_to_unpack
	apt_fails install --no-install-recommends /root/newer.deb
	has_toa "$VERSION"
	# shellcheck disable=SC2016 # dpkg-query expands it
	same "dpkg" "ii" "$(inside "$SERVER" dpkg-query -W -f '${db:Status-Abbrev}' toa-dkms | tr -d ' ')"
	files "$SERVER" >after
	same "changed files" "" "$(appeared before after)"
}

# --- what packages leave alone and clean up -------------------------------------

trigger() {
	inside "$SERVER" dpkg-trigger --by-package=dpkg /usr/lib/modules
	inside "$SERVER" dpkg --configure --pending >apt.log 2>&1 || fail "dpkg"
}

case_a_kernel_that_is_removed_gets_no_module_again() {
	local other
	server
	with_metadata
	other=$SERVER/lib/modules/7.2.0+other-cloud-amd64
	mkdir "$other"
	touch "$other/vmlinuz" "$SERVER/lib/modules/$release/vmlinuz"
	apt install --no-install-recommends "/root/toa-dkms_${VERSION}_all.deb"
	same "status" "toa/$VERSION, $release, x86_64: installed" "$(dkms_status)"
	# The steps of dpkg when the image is removed and the headers stay.
	rm "$SERVER/lib/modules/$release/vmlinuz"
	inside "$SERVER" /etc/kernel/prerm.d/dkms "$release" >/dev/null
	trigger
	same "status" "toa/$VERSION: added" "$(dkms_status)"
	inside "$SERVER" dkms install -m toa -v "$VERSION" -k "$release" >/dev/null
	apt purge "linux-headers-$release"
	same "status" "toa/$VERSION: added" "$(dkms_status)"
	[[ ! -e $MODULE ]] || die "$MODULE still exists"
}

case_metadata_of_a_kernel_that_is_gone_goes_too() {
	server_with_toa
	[[ -n $(ls "$SERVER/var/cache/toa/metadata") ]] || die "no metadata was made"
	apt purge "linux-headers-$release"
	same "metadata" "" "$(ls "$SERVER/var/cache/toa/metadata")"
}

case_traces_of_another_toa_are_named() {
	local file
	server
	file=/lib/modules/$release/extra/toa.ko
	with_metadata
	mkdir -p "$SERVER${file%/*}" "$SERVER/usr/src/toa-2.0.0.0"
	touch "$SERVER$file"
	printf '#!/bin/sh\n# insmod /root/toa.ko\n/sbin/insmod /root/toa.ko\n' >"$SERVER/etc/rc.local"
	sed 's/^PACKAGE_VERSION=.*/PACKAGE_VERSION="2.0.0.0"/; s/^AUTOINSTALL=.*//' "$REPO/dkms.conf" \
		>"$SERVER/usr/src/toa-2.0.0.0/dkms.conf"
	inside "$SERVER" dkms add toa/2.0.0.0 >/dev/null
	apt install --no-install-recommends "/root/toa-dkms_${VERSION}_all.deb"
	same "messages" "$(
		cat <<-MESSAGES
			$file is not from this package and may be loaded instead: remove it, then run depmod
			line 3 of /etc/rc.local loads a toa by itself: remove it, /usr/lib/modules-load.d/toa.conf does that
			DKMS has another module called toa, version 2.0.0.0: dkms remove toa/2.0.0.0 --all
		MESSAGES
	)" "$(messages)"
}

need_host modinfo=kmod
cases_on_servers "$@"
