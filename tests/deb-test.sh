#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Installs, upgrades, removes and purges toa-dkms in throwaway copies of a root with
# the headers of a kernel.
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

# resolve_kernel: sets the variables of the kernel and of its packages.
resolve_kernel() {
	local found
	# shellcheck disable=SC2034 # of the kernel
	declare -g release version
	found=$("$SCRIPTS/kernel.sh" resolve)
	eval "$found"
	SERVER=$TMP/server
	VERSION=$("$SCRIPTS/version.sh" print)
	PACKAGE=/root/toa-dkms_${VERSION}_all.deb
	trap '[[ $? == 0 ]] || tail -n 60 apt.log' EXIT
}

# fresh_server: mounts a Debian with one kernel's headers, and nothing that toa-dkms needs.
fresh_server() {
	local suites
	resolve_kernel
	scratch "$SERVER" "$("$SCRIPTS/root.sh" path bare)"
	read -ra suites < <(suites_of_kernel)
	archive_sources "${suites[@]}" >"$SERVER/etc/apt/sources.list"
	[[ -e $SERVER$(archive_keyring) ]] || cp "$(archive_keyring)" "$SERVER$(archive_keyring)"
	cp "$OUT"/toa-dkms_*_all.deb "$SERVER/root/"
	apt install --no-install-recommends "linux-headers-$release=$version"
}

# server [FLAVOUR]: mounts a server with dkms and rustc, one kernel's headers, and no module for it.
# With FLAVOUR there are that flavour's headers too.
server() {
	local others
	resolve_kernel
	scratch "$SERVER" "$("$SCRIPTS/root.sh" path dkms)"
	# shellcheck disable=SC2016 # dpkg-query expands it
	mapfile -t others < <(inside "$SERVER" dpkg-query -W -f '${Package}\n' 'linux-headers-[0-9]*' 'linux-image-[0-9]*' |
		grep -vxF -e "linux-headers-$release" -e "linux-image-$release" -e "$(of_flavour common)" \
			${1:+-e "$(of_flavour "$1")" -e "$(of_flavour "common-${1%-amd64}")" -e "linux-image-${release%-cloud-amd64}-$1"})
	inside "$SERVER" dpkg --purge --force-depends "${others[@]}" >apt.log
	# An entered root has a directory for the test machine's own cache here.
	[[ ! -d $SERVER/var/cache/toa ]] || rmdir "$SERVER/var/cache/toa"
	cp "$OUT"/toa-dkms_*_all.deb "$SERVER/root/"
	# The tests of a fresh server compile `core`.
	[[ ! -d $TOA_CACHE/core ]] || cp -aT "$TOA_CACHE/core" "$SERVER/var/cache/toa-dkms"
}

# of_flavour NAME: prints the kernel's headers package of another flavour, or what flavours share.
of_flavour() {
	echo "linux-headers-${release%-cloud-amd64}-$1"
}

server_with_toa() {
	server
	apt install --no-install-recommends "$PACKAGE"
}

# apt ARGUMENT…: runs apt-get in the server, with its output in apt.log.
apt() {
	inside "$SERVER" apt-get -q -y "$@" >apt.log 2>&1 || fail "apt-get $*"
}

apt_fails() {
	! inside "$SERVER" apt-get -q -y "$@" >apt.log 2>&1 || fail "apt-get $* did not fail"
}

fail() {
	die "$*: see the log below"
}

# messages: prints toa-check's lines in apt.log.
messages() {
	tr -d '\r' <apt.log | sed -n 's/^toa: //p'
}

# state: prints the line at the end of apt.log about the loaded module.
state() {
	tr -d '\r' <apt.log | grep -E '^toa ([0-9.]+ )?is ' | tail -n 1
}

# module: prints the path of the kernel's toa.ko, which DKMS compresses as the kernel's modules are.
module() {
	find "$SERVER/lib/modules/$release/" -path '*/updates/dkms/toa.ko*'
}

# unpack_module: writes the module to the server's /root/toa.ko.
unpack_module() {
	case $(module) in
	*.xz) xz -dc "$(module)" >"$SERVER/root/toa.ko" ;;
	*) cp "$(module)" "$SERVER/root/toa.ko" ;;
	esac
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
	same "modinfo" "$1" "$(modinfo -F version "$(module)")"
}

nothing_is_kept() {
	[[ ! -e $SERVER/var/lib/toa ]] || die "kept: $(find "$SERVER/var/lib/toa")"
}

# --- claims ------------------------------------------------------------------

case_install_upgrade_remove_and_purge_leave_nothing() {
	fresh_server
	files "$SERVER" >before
	apt install --no-install-recommends "$PACKAGE"
	same "modinfo" "$VERSION $release" "$(modinfo -F version "$(module)") $(modinfo -F vermagic "$(module)" | cut -d ' ' -f 1)"
	same "crate" stand-in "$(modinfo -F crate "$(module)")"
	unpack_module
	same "debugging sections" "" "$(inside "$SERVER" readelf -SW /root/toa.ko | grep -oE '\.debug_[.a-z_]*')"
	same "complaints" "" "$(messages)"
	same "state" "toa is not loaded, and the running kernel $(uname -r) has no toa.ko. A boot of these kernels loads toa: $release" "$(state)"
	same "core in the cache" 1 "$(find "$SERVER/var/cache/toa-dkms" -name 'libcore-*.rlib' | wc -l)"
	[[ -L $SERVER/etc/systemd/system/multi-user.target.wants/toa-check.service ]] || die "the unit is not enabled"
	apt purge toa-dkms
	same "state" "toa is removed, and it is not loaded." "$(state)"
	files "$SERVER" >purged
	same "left by purge" "" "$(appeared before purged | grep -E 'toa|/var/lib/dkms/|/updates')"
	mv purged before

	apt install --no-install-recommends "$PACKAGE"
	has_toa "$VERSION"
	newer
	apt install --no-install-recommends /root/newer.deb
	has_toa 9.9.9
	same "sources" "toa-9.9.9" "$(cd "$SERVER/usr/src" && echo toa-*)"
	apt install --no-install-recommends --allow-downgrades "$PACKAGE"
	has_toa "$VERSION"
	same "sources" "toa-$VERSION" "$(cd "$SERVER/usr/src" && echo toa-*)"
	nothing_is_kept

	echo "options toa max_records=7" >>"$SERVER/etc/modprobe.d/toa.conf"
	apt remove toa-dkms
	files "$SERVER" >removed
	same "left by remove" "$(
		cat <<-LIST
			/etc/modprobe.d/toa.conf
			/etc/sysctl.d/toa.conf
			/var/lib/dpkg/info/toa-dkms.list
			/var/lib/dpkg/info/toa-dkms.postrm
		LIST
	)" "$(appeared before removed | grep -v -e /systemd -e '/etc/sysctl\.d$')"
	apt purge toa-dkms
	files "$SERVER" >purged
	same "left by purge" "" "$(appeared before purged)"
}

case_a_kernel_with_preempt_rt_gets_a_module() {
	local rt kernel status
	server rt-amd64
	rt=${release%-cloud-amd64}-rt-amd64
	apt install --no-install-recommends "$PACKAGE"
	same "messages" "" "$(messages)"
	status=$(dkms_status | paste -sd ' ')
	for kernel in "$release" "$rt"; do
		has "status" "toa/$VERSION, $kernel, x86_64: installed" "$status"
	done
}

# runs_kernel: makes the server's uname report the kernel of the headers, and gives it a /sys.
runs_kernel() {
	mv "$SERVER/usr/bin/uname" "$SERVER/usr/bin/uname.real"
	printf '#!/bin/sh\n[ "$*" != -r ] || exec echo %s\nexec uname.real "$@"\n' "$release" >"$SERVER/usr/bin/uname"
	chmod +x "$SERVER/usr/bin/uname"
	# DKMS runs depmod only if these files of the kernel's own package exist.
	touch "$SERVER/lib/modules/$release"/modules.{dep,order,builtin,builtin.modinfo}
	mount -t tmpfs tmpfs "$SERVER/sys"
}

# loads: fills the server's /sys as after the loading of its module.
loads() {
	mkdir -p "$SERVER/sys/module/toa/notes"
	modinfo -F version "$(module)" >"$SERVER/sys/module/toa/version"
	unpack_module
	inside "$SERVER" objcopy -O binary -j .note.gnu.build-id /root/toa.ko /sys/module/toa/notes/.note.gnu.build-id
}

case_the_last_line_says_what_runs_and_what_to_type() {
	server
	runs_kernel
	# Without openssl DKMS makes no key, and signs nothing.
	rm -f "$SERVER/usr/bin/openssl"
	apt install --no-install-recommends "$PACKAGE"
	same "not loaded" "toa is not loaded, servers see the balancer. The next boot loads toa $VERSION; now: modprobe toa" "$(state)"
	mkdir -p "$SERVER/sys/kernel/security"
	echo "none [integrity] confidentiality" >"$SERVER/sys/kernel/security/lockdown"
	apt install --reinstall "$PACKAGE"
	same "Secure Boot" "toa is not loaded, servers see the balancer. Secure Boot has locked this server down, and toa.ko is not signed: see Secure Boot in /usr/share/doc/toa-dkms/doc/install.md" "$(state)"
	loads
	apt install --reinstall "$PACKAGE"
	same "loaded" "toa $VERSION is loaded. It is the installed one." "$(state)"
	newer
	apt install --no-install-recommends /root/newer.deb
	same "another is loaded" "toa $VERSION is loaded. The next boot loads the installed toa 9.9.9; now: /usr/libexec/toa/toa-swap" "$(state)"
	cmp "$SERVER"/root/toa.ko "$SERVER"/run/toa/loaded.ko || die "the loaded module's file is not kept"
	apt purge toa-dkms
	same "purged" "toa is still loaded, until the next boot or: rmmod toa" "$(state)"
	[[ ! -e $SERVER/run/toa ]] || die "left: $(find "$SERVER/run/toa")"
}

# --- a kernel that is installed after toa-dkms ----------------------------------

# waiting_server: mounts a server with toa-dkms and a kernel without headers.
waiting_server() {
	server
	apt purge "linux-headers-$release"
	touch "$SERVER/lib/modules/$release/vmlinuz"
	apt install --no-install-recommends "$PACKAGE"
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
	apt install "linux-headers-$release=$version"
	mended
}

# The metapackage makes the next upgrade install headers too.
case_missing_headers_are_named_with_their_metapackage() {
	local flavour
	waiting_server
	flavour=cloud-amd64
	mkdir -p "$TMP/meta/DEBIAN"
	printf '%s\n' "Package: linux-image-$flavour" "Version: 7.9-1" "Architecture: amd64" \
		"Maintainer: A test <test@packages.invalid>" "Description: a kernel" >"$TMP/meta/DEBIAN/control"
	dpkg-deb --root-owner-group -z0 -b "$TMP/meta" "$SERVER/root/meta.deb" >/dev/null
	apt install /root/meta.deb
	same "messages" "toa: the kernel $release has no toa.ko: its headers are missing: apt install linux-headers-$release linux-headers-$flavour=7.9-1" \
		"$(inside "$SERVER" /usr/libexec/toa/toa-check installed)"
}

case_an_old_rustc_stops_apt() {
	local rustc
	waiting_server
	rustc=$SERVER$(inside "$SERVER" realpath /usr/bin/rustc)
	mv "$rustc" "$TMP/rustc"
	printf '#!/bin/sh\necho "rustc 1.63.0 (old)"\n' >"$rustc"
	chmod +x "$rustc"
	apt_fails install "linux-headers-$release=$version"
	has "messages" "the kernel $release has no toa.ko: rustc 1.85 or later with the source of its library is missing (/usr/bin/rustc is rustc 1.63.0 (old)): apt install rust" "$(messages | sort -u)"
	has "dpkg --audit" "linux-headers-$release" "$(inside "$SERVER" dpkg --audit)"
	cp -p "$TMP/rustc" "$rustc"
	mended
}

case_a_full_disk_stops_apt() {
	waiting_server
	rm -rf "$SERVER/var/cache/toa-dkms"
	mkdir "$SERVER/var/cache/toa-dkms"
	mount -t tmpfs -o size=1M tmpfs "$SERVER/var/cache/toa-dkms"
	headers_fail_with "its build failed: see /var/lib/toa/failed/$release.log"
	has "log" "No space left on device" "$(<"$SERVER/var/lib/toa/failed/$release.log")"
	umount "$SERVER/var/cache/toa-dkms"
	mended
}

case_a_build_that_fails_stops_apt() {
	waiting_server
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
	OLD=5.10.0+old-cloud-amd64
	mkdir -p "$SERVER/lib/modules/$OLD/build/include"
	echo CONFIG_X86_64=y >"$SERVER/lib/modules/$OLD/build/.config"
}

break_source() {
	echo "this is no Rust" | tee -a "$1"/usr/src/toa-*/toa.rs >/dev/null
}

case_a_kernel_that_is_not_built_for_takes_toa_from_none() {
	local old_has_none
	server
	old_kernel
	apt install --no-install-recommends "$PACKAGE"
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
	same "modinfo" "$VERSION" "$(modinfo -F version "$(module)")"
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
	same "modinfo" "$VERSION" "$(modinfo -F version "$(module)")"
	apt remove toa-dkms
	same "module" "" "$(module)"
	same "status" "" "$(dkms_status)"
}

case_a_reinstallation_builds_only_what_has_changed() {
	local since
	server_with_toa
	since=$(stat -c %z "$(module)")
	apt install --reinstall "$PACKAGE"
	same "module" "$since" "$(stat -c %z "$(module)")"
	echo "// another" >>"$SERVER/usr/src/toa-$VERSION/toa.rs"
	apt install --reinstall "$PACKAGE"
	[[ $(stat -c %z "$(module)") != "$since" ]] || die "the module was not rebuilt"
	same "status" "toa/$VERSION, $release, x86_64: installed" "$(dkms_status)"
	nothing_is_kept

	# The existing module stays if the new one cannot be built.
	since=$(stat -c %z "$(module)")
	repack same break_source
	apt_fails install --reinstall /root/same.deb
	same "messages" "the kernel $release keeps toa $VERSION: its build failed: see /var/lib/toa/failed/$release.log" "$(messages)"
	same "status" "toa/$VERSION, $release, x86_64: installed" "$(dkms_status)"
	same "module" "$since" "$(stat -c %z "$(module)")"
	sed -i '/this is no Rust/d' "$SERVER/usr/src/toa-$VERSION/toa.rs"
	mended
	nothing_is_kept
}

case_a_kernel_that_dkms_is_told_to_pass_over_is_no_failure() {
	server
	mkdir -p "$SERVER/etc/dkms"
	echo 'BUILD_EXCLUSIVE_KERNEL="^9"' >"$SERVER/etc/dkms/toa.conf"
	apt install --no-install-recommends "$PACKAGE"
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
	apt_fails install --no-install-recommends --allow-downgrades "$PACKAGE"
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
	same "module" "" "$(module)"
	nothing_is_kept
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
	other=$SERVER/lib/modules/7.2.0+other-cloud-amd64
	mkdir "$other"
	touch "$other/vmlinuz" "$SERVER/lib/modules/$release/vmlinuz"
	apt install --no-install-recommends "$PACKAGE"
	same "status" "toa/$VERSION, $release, x86_64: installed" "$(dkms_status)"
	# The steps of dpkg when the image is removed and the headers stay.
	rm -rf "$SERVER/lib/modules/$release"/{vmlinuz,kernel} "$SERVER/boot/vmlinuz-$release"
	inside "$SERVER" /etc/kernel/prerm.d/dkms "$release" >/dev/null
	trigger
	same "status" "toa/$VERSION: added" "$(dkms_status)"
	inside "$SERVER" dkms install -m toa -v "$VERSION" -k "$release" >/dev/null
	apt purge "linux-headers-$release"
	same "status" "toa/$VERSION: added" "$(dkms_status)"
	same "module" "" "$(module)"
}

case_traces_of_another_toa_are_named() {
	local file
	server
	file=/lib/modules/$release/extra/toa.ko
	mkdir -p "$SERVER${file%/*}" "$SERVER/usr/src/toa-2.0.0.0"
	touch "$SERVER$file"
	printf '#!/bin/sh\n# insmod /root/toa.ko\n/sbin/insmod /root/toa.ko\n' >"$SERVER/etc/rc.local"
	sed 's/^PACKAGE_VERSION=.*/PACKAGE_VERSION="2.0.0.0"/; s/^AUTOINSTALL=.*//' "$REPO/dkms.conf" \
		>"$SERVER/usr/src/toa-2.0.0.0/dkms.conf"
	inside "$SERVER" dkms add toa/2.0.0.0 >/dev/null
	apt install --no-install-recommends "$PACKAGE"
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
