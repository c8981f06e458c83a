#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Tests of the tarball with a module for one kernel: its messages, the servers that
# it refuses, the files that it leaves. Also tests the script that loads a copied
# module, and the check at start-up.
#
#   prebuilt-test.sh [CASE…]
#
# Run it as root. It installs a token in software, SoftHSM. Modules here hold only the
# fields that modinfo reads. The servers are the root of tools, with another uname and
# another /lib/modules. Prints TAP.

. "$(dirname "$0")/../scripts/lib.sh"
WORK=$REPO/build/prebuilt-test
. "$REPO/tests/cases.sh"

# --- made beforehand -----------------------------------------------------------

# module FILE NAME=VALUE…: makes a module with these modinfo fields. Runs in the root.
module() {
	local file=$1
	shift
	{
		echo '.section .modinfo,"a"'
		printf '.asciz "%s"\n' "$@"
	} | gcc -x assembler -c -o "$file" -
}

# set_stage: packs the project with prebuilt.sh, with such files in place of the
# built ones. Writes the values that the cases compare with.
set_stage() {
	local release version rustc found name
	found=$("$SCRIPTS/kernel.sh" resolve)
	eval "$found"
	rm -rf "$WORK"
	mkdir -p "$WORK/project/build/$release-standin/module" "$WORK/out"
	cp -r "$REPO"/{scripts,packaging,toa.rs,LICENSE} "$WORK/project/"
	"$SCRIPTS/root.sh" run tools "$0" --module "$WORK/project/build/$release-standin/module/toa.ko" \
		"vermagic=$release SMP preempt mod_unload " "version=0.0.0" "crate=stand-in"
	mkdir -p "$WORK/project/build/target/x86_64-unknown-linux-gnu/release"
	"$SCRIPTS/root.sh" run tools "$0" --module \
		"$WORK/project/build/target/x86_64-unknown-linux-gnu/release/toa" "command=toa"
	# Signatures of an earlier run do not stay beside an unsigned tarball.
	name=toa-$("$SCRIPTS/version.sh" print)_$release.tar.xz
	touch "$WORK/out/$name.sig" "$WORK/out/SHA256SUMS.sig"
	SOURCE_DATE_EPOCH=1000000000 "$WORK/project/scripts/prebuilt.sh" pack "$WORK/out" >"$WORK/path"
	signed_stage
	rustc=$("$SCRIPTS/root.sh" run build rustc --version)
	printf '%s=%q\n' release "$release" version "$version" rustc "$rustc" >"$WORK/kernel"
}

# signed_stage: packs the same files with a key, once more with a token that holds this key, and
# makes a key that has signed nothing.
signed_stage() {
	local key=$WORK/key uri='pkcs11:token=toa;object=toa;type=private'
	need_host openssl=openssl softhsm2-util=softhsm2
	has_pkcs11 || need_host pkcs11.so=libengine-pkcs11-openssl
	openssl req -x509 -newkey rsa:2048 -nodes -subj "/CN=toa signer" -days 30 -addext basicConstraints=critical,CA:false \
		-addext keyUsage=digitalSignature -keyout "$key" -out "$key.crt" 2>/dev/null
	openssl pkey -in "$key" -pubout -out "$key.pub"
	openssl genrsa 2048 2>/dev/null | openssl pkey -pubout -out "$WORK/stranger.pub"
	openssl rsa -in "$key" -aes256 -passout pass:secret -out "$key.locked" 2>/dev/null
	mkdir "$WORK/signed"
	echo "not signed" >"$WORK/signed/${name/_/_other}"
	! SIGN_CERT=$key.crt "$WORK/project/scripts/prebuilt.sh" pack "$WORK/not" 2>"$WORK/no-key.log" || die "SIGN_CERT= counts alone"
	! KBUILD_SIGN_PIN=wrong SIGN_KEY=$key.locked "$WORK/project/scripts/prebuilt.sh" pack "$WORK/not" 2>"$WORK/wrong-pin.log" ||
		die "a wrong passphrase signs"
	KBUILD_SIGN_PIN=secret SIGN_KEY=$key.locked SIGN_CERT=$key.crt "$WORK/project/scripts/prebuilt.sh" pack "$WORK/signed" >"$WORK/signed.path"
	cp "$WORK/project/build/$release-standin/module/toa.ko" "$WORK/by-sign-file.ko"
	"$SCRIPTS/root.sh" run tools strip --strip-debug "$WORK/by-sign-file.ko"
	"$SCRIPTS/root.sh" run build "/lib/modules/$release/build/scripts/sign-file" sha256 "$key" "$key.crt" "$WORK/by-sign-file.ko"
	mkdir -p "$WORK/token/objects"
	export SOFTHSM2_CONF=$WORK/token/conf
	echo "directories.tokendir = $WORK/token/objects" >"$SOFTHSM2_CONF"
	softhsm2-util --init-token --free --label toa --pin 1234 --so-pin 5678 >/dev/null
	softhsm2-util --import "$key" --token toa --label toa --id 01 --pin 1234 >/dev/null
	find "$WORK/project" -exec touch {} +
	umask 077
	TZ=Asia/Tokyo TAR_OPTIONS=--format=posix XZ_OPT=-0 XZ_DEFAULTS=-0 KBUILD_SIGN_PIN=1234 PKCS11_MODULE_PATH=$(softhsm_module) SIGN_KEY=$uri SIGN_CERT=$key.crt \
		"$WORK/project/scripts/prebuilt.sh" pack "$WORK/by-token" >"$WORK/by-token.path"
	umask 022
}

# has_pkcs11: checks for the engine or the provider, which are no commands.
has_pkcs11() {
	[[ -n $(find "$(openssl version -e | cut -d '"' -f 2)" "$(openssl version -m | cut -d '"' -f 2)" -name pkcs11.so) ]]
}

softhsm_module() {
	dpkg -L libsofthsm2 | grep -m 1 '/libsofthsm2\.so$'
}

# --- a server ------------------------------------------------------------------

# become_server [FILE]: mounts a kernel and its modules without toa, in the case's mount
# namespace, and unpacks the tarball that FILE names.
become_server() {
	local tarball=${1:-$WORK/path}
	# shellcheck disable=SC1091 # made above
	. "$WORK/kernel"
	mkdir -p /usr/lib/modules /usr/local /etc/modules-load.d /sys
	mount -t tmpfs tmpfs /usr/lib/modules
	mount -t tmpfs tmpfs /usr/local
	mount -t tmpfs tmpfs /etc/modules-load.d
	mount -t tmpfs tmpfs /sys
	mkdir -p /etc/toa
	mount -t tmpfs tmpfs /etc/toa
	mkdir /usr/local/{bin,lib}
	mkdir -p "$TMP/bin" "/lib/modules/$release/kernel/net"
	runs "$release" "$version"
	module "/lib/modules/$release/kernel/net/other.ko" "vermagic=$release SMP preempt mod_unload "
	touch "/lib/modules/$release"/modules.{order,builtin,builtin.modinfo}
	depmod "$release"
	PATH=$TMP/bin:$PATH
	tar -xJf "$(<"$tarball")" --strip-components=1
	listing >before
}

# runs RELEASE BUILD: sets the output of uname.
runs() {
	stand_in uname <<-STUB
		case \$1 in
		-r) echo '$1' ;;
		-v) echo '#1 SMP PREEMPT_DYNAMIC Debian $2 (2026-11-15)' ;;
		*) exit 2 ;;
		esac
	STUB
}

stand_in() {
	{ echo '#!/bin/sh' && cat; } >"$TMP/bin/$1"
	chmod +x "$TMP/bin/$1"
}

# listing: prints the modes, names and contents of all that an installation may change.
listing() {
	find /lib/modules/ /etc/modules-load.d/ /usr/local/ -printf '%M %u %p %l\n' | sort -k 3
	find /lib/modules/ /etc/modules-load.d/ /usr/local/ -type f ! -name filler -exec sha256sum {} + | sort -k 2
}

# refuses LINE [COMMAND…]: checks that COMMAND prints LINE and changes nothing.
refuses() {
	local line=$1
	shift
	[[ $# -gt 0 ]] || set -- ./install.sh
	fails 1 "$line" "$@"
	same_files
}

# same_files: checks that the files are those of the listing in `before`.
same_files() {
	listing >after
	same "changed files" "" "$(diff before after)"
}

# --- the tarball ---------------------------------------------------------------

case_tarball_and_manifest_name_kernel_compiler_and_sources() {
	become_server
	local toa
	toa=$(sed -n 's/^        "\([0-9.]*\)"$/\1/p' "$REPO/toa.rs")
	same "tarball" "toa-${toa}_$release.tar.xz" "$(basename "$(<"$WORK/path")")"
	same "files" "LICENSE MANIFEST install.sh modules-load.conf toa toa.ko" \
		"$(tar -tJf "$(<"$WORK/path")" | sed -n 's|^[^/]*/\(.\)|\1|p' | paste -sd' ')"
	same "manifest" "$(
		cat <<-MANIFEST
			module: toa
			version: $toa
			kernel: $release
			build: $version
			vermagic: $release SMP preempt mod_unload
			headers: linux-headers-$release $version
			crate: stand-in
			rustc: $rustc
			signer:
			$(sha256sum LICENSE install.sh modules-load.conf toa toa.ko | sed 's/^/sha256: /')
		MANIFEST
	)" "$(sed -e '/^commit: /d' -e 's/ *$//' MANIFEST)"
	grep -qE '^commit: ([0-9a-f]{40}( with changes)?|unknown: no git clone)$' MANIFEST || die "$(grep commit MANIFEST)"
}

# --- install.sh ----------------------------------------------------------------

case_installs_for_this_kernel_and_takes_it_away_again() {
	become_server
	same "check" "toa.ko fits this server's kernel $release" "$(./install.sh check)"
	same_files
	same "install" "toa $(sed -n 's/^version: //p' MANIFEST) is installed for $release and loaded at each start-up; now: modprobe toa" \
		"$(./install.sh)"
	same "module" "$(sha256sum <toa.ko)" "$(sha256sum <"/lib/modules/$release/updates/toa.ko")"
	same "mode" "644 root root" "$(stat -c '%a %U %G' "/lib/modules/$release/updates/toa.ko")"
	same "modprobe finds" "insmod /lib/modules/$release/updates/toa.ko" \
		"$(modprobe -S "$release" --show-depends toa | sed 's/ *$//')"
	same "at start-up" toa "$(grep -v '^#' /etc/modules-load.d/toa.conf)"
	mkdir -p /sys/module/toa
	same "install over a loaded one" "toa $(sed -n 's/^version: //p' MANIFEST) is installed for $release and loaded at each start-up; now: rmmod toa && modprobe toa" \
		"$(./install.sh)"
	rmdir /sys/module/toa
	same "command" "$(sha256sum <toa)" "$(sha256sum </usr/local/bin/toa)"
	same "mode of the command" "755 root root" "$(stat -c '%a %U %G' /usr/local/bin/toa)"
	./install.sh >/dev/null
	same "uninstall" "toa is no longer installed for $release" "$(./install.sh uninstall)"
	same_files
	[[ ! -e /lib/modules/$release/updates ]] || die "a directory still exists"
}

# leave FREE DIRECTORY: fills the directory's file system up to FREE pages.
leave() {
	local blocks
	rm -f "$2/filler"
	blocks=$(stat -f -c %a "$2")
	[[ $blocks -le $1 ]] || head -c "$(((blocks - $1) * 4096))" /dev/zero >"$2/filler"
}

# leaves_no_trace_on_a_full_disk DIRECTORY: runs install.sh with no free page in DIRECTORY, then with
# one, and so forth, until it succeeds. Sets TRIES to the failures.
leaves_no_trace_on_a_full_disk() {
	local output free
	TRIES=0
	for ((free = 0; free < 100; free++)); do
		leave "$free" "$1"
		listing >before
		output=$(./install.sh 2>&1) && break
		TRIES=$((TRIES + 1))
		same_files
		same "lines of '$output'" 1 "$(wc -l <<<"$output")"
		has "message" "could not be written (No space left on device), and nothing was changed: fix that, then run install.sh again" "$output"
	done
	rm -f "$1/filler"
	[[ $free -lt 100 ]] || die "it never succeeds: $output"
}

# server_with_small_disks: mounts a server whose directories few bytes fill.
server_with_small_disks() {
	become_server
	mount -o remount,size=1M /usr/lib/modules
	mount -o remount,size=1M /usr/local
	mount -o remount,size=1M /etc/modules-load.d
}

case_a_full_disk_leaves_the_server_as_it_was() {
	local directory
	for directory in /usr/local /etc/modules-load.d /lib/modules; do
		server_with_small_disks
		leaves_no_trace_on_a_full_disk "$directory"
		[[ $TRIES -gt 0 ]] || die "no installation failed for $directory"
	done
	# One try for each page of the indexes.
	[[ $TRIES -ge 5 ]] || die "only $TRIES installations failed"
	same "modprobe finds" "insmod /lib/modules/$release/updates/toa.ko" \
		"$(modprobe -S "$release" --show-depends toa | sed 's/ *$//')"
}

case_a_full_disk_leaves_the_installed_toa() {
	server_with_small_disks
	installed_is 0.0.1-previous
	leaves_no_trace_on_a_full_disk /lib/modules
	[[ $TRIES -ge 5 ]] || die "only $TRIES installations failed"
	same "versions" "0.0.0 0.0.1-previous" "$(versions | paste -sd ' ')"
	leave 0 /lib/modules
	listing >before
	refuses "install.sh: depmod's indexes of $release could not be written (No space left on device), and nothing was changed: fix that, then run install.sh again" \
		./install.sh rollback
}

# installed_is VERSION: installs a module with that version, as an earlier tarball has.
installed_is() {
	mkdir -p "/lib/modules/$release/updates"
	module "/lib/modules/$release/updates/toa.ko" "vermagic=$release SMP preempt mod_unload " "version=$1"
	depmod "$release"
}

# versions: prints the versions of the installed module and of the previous one.
versions() {
	modinfo -F version "/lib/modules/$release/updates/toa.ko"
	cp "/lib/modules/$release/updates/.toa.ko.previous" previous.ko && modinfo -F version ./previous.ko
}

case_the_previous_module_is_kept_and_rolled_back() {
	become_server
	installed_is 0.0.1-previous
	./install.sh >/dev/null
	same "versions" "0.0.0 0.0.1-previous" "$(versions | paste -sd ' ')"
	./install.sh >/dev/null
	same "versions after the same again" "0.0.0 0.0.1-previous" "$(versions | paste -sd ' ')"
	mkdir -p /sys/module/toa
	same "rollback" "toa 0.0.1-previous is installed for $release again; now: rmmod toa && modprobe toa" \
		"$(/usr/local/lib/toa/install.sh rollback)"
	same "versions" "0.0.1-previous 0.0.0" "$(versions | paste -sd ' ')"
	same "indexes" "" "$(find "/lib/modules/$release" -name '.toa-indexes')"
	/usr/local/lib/toa/install.sh rollback >/dev/null
	same "versions after the second rollback" "0.0.0 0.0.1-previous" "$(versions | paste -sd ' ')"
	/usr/local/lib/toa/install.sh uninstall >/dev/null
	same_files
}

case_nothing_to_roll_back() {
	become_server
	./install.sh >/dev/null
	listing >before
	refuses "install.sh: there is no previous toa.ko for $release" ./install.sh rollback
}

case_an_older_toa_is_installed_only_on_request() {
	become_server
	installed_is 9.9.9
	listing >before
	refuses "install.sh: /lib/modules/$release/updates/toa.ko is toa 9.9.9, and this is the older $(sed -n 's/^version: //p' MANIFEST): to install it all the same, add --downgrade"
	./install.sh --downgrade >/dev/null
	same "versions" "0.0.0 9.9.9" "$(versions | paste -sd ' ')"
}

# A reboot into that kernel would be the downgrade.
case_an_older_toa_for_another_kernel_is_a_downgrade_too() {
	become_server
	mkdir -p /lib/modules/7.9.9-cloud-amd64/updates
	module /lib/modules/7.9.9-cloud-amd64/updates/toa.ko "vermagic=7.9.9-cloud-amd64 SMP " "version=0.10.0"
	runs 7.9.9-cloud-amd64 7.9.9-1
	dpkg_knows "$version"
	listing >before
	sed -i 's/^version: .*/version: 0.9.0/' MANIFEST
	refuses "install.sh: /lib/modules/7.9.9-cloud-amd64/updates/toa.ko is toa 0.10.0, and this is the older 0.9.0: to install it all the same, add --downgrade" \
		./install.sh ahead
}

case_a_file_of_the_administrator_stays() {
	become_server
	printf '%s\n' "# mine" toa br_netfilter >/etc/modules-load.d/toa.conf
	listing >before
	has "install" "is installed for $release and loaded at each start-up;" "$(./install.sh)"
	same "file" "# mine toa br_netfilter" "$(paste -sd ' ' /etc/modules-load.d/toa.conf)"
	has "uninstall" "/etc/modules-load.d/toa.conf is yours and stays" "$(./install.sh uninstall)"
	same_files
}

# Our documentation has this link, so that toa is not loaded at start-up.
case_a_mask_of_the_administrator_stays() {
	become_server
	mknod null c 1 3
	chmod 666 null
	ln -s "$TMP/null" /etc/modules-load.d/toa.conf
	listing >before
	has "install" "is installed for $release and not loaded at start-up, as /etc/modules-load.d/toa.conf is yours and does not name toa;" \
		"$(./install.sh)"
	same "link" "$TMP/null" "$(readlink /etc/modules-load.d/toa.conf)"
	same "mode of its target" 666 "$(stat -c %a null)"
	./install.sh uninstall >/dev/null
	same_files
}

case_the_file_of_an_earlier_tarball_is_replaced() {
	become_server
	./install.sh >/dev/null
	echo "# an earlier text" | tee -a /etc/modules-load.d/toa.conf >>/usr/local/lib/toa/modules-load.conf
	./install.sh >/dev/null
	same "file" "$(<modules-load.conf)" "$(</etc/modules-load.d/toa.conf)"
}

case_modes_do_not_depend_on_the_umask() {
	local mask expected
	become_server
	./install.sh >/dev/null
	expected=$(listing)
	for mask in 077 000; do
		/usr/local/lib/toa/install.sh uninstall >/dev/null
		(umask "$mask" && tar -xJf "$(<"$WORK/path")" --strip-components=1 --no-same-permissions && ./install.sh >/dev/null)
		same "files with umask $mask" "$expected" "$(listing)"
	done
}

case_installs_ahead_for_a_kernel_that_does_not_run_yet() {
	become_server
	runs 7.9.9-cloud-amd64 7.9.9-1
	dpkg_knows "$version"
	same "ahead" "toa $(sed -n 's/^version: //p' MANIFEST) is installed for $release and loaded at each start-up; now: reboot" \
		"$(./install.sh ahead)"
	same "modprobe finds" "insmod /lib/modules/$release/updates/toa.ko" \
		"$(modprobe -S "$release" --show-depends toa | sed 's/ *$//')"
}

# dpkg_knows VERSION: simulates dpkg-query for that version of the kernel's package.
dpkg_knows() {
	stand_in dpkg-query <<-STUB
		[ "\$*" = "-W -f \\\${Version}\\n linux-modules-$release linux-image-$release" ] && echo '$1'
	STUB
}

case_refuses_ahead_another_build_or_a_kernel_that_is_not_there() {
	become_server
	runs 7.9.9-cloud-amd64 7.9.9-1
	dpkg_knows 7.9.9-2
	refuses "install.sh: this server has Debian's build 7.9.9-2 of $release, and this toa.ko is for $version: take the tarball for 7.9.9-2" \
		./install.sh ahead
	rm -r "/lib/modules/$release"
	listing >before
	refuses "install.sh: the kernel $release is not installed on this server: install it first" ./install.sh ahead
}

case_uninstall_says_that_toa_is_still_loaded() {
	become_server
	./install.sh >/dev/null
	mkdir -p /sys/module/toa
	has "uninstall" "toa is still loaded: rmmod toa" "$(./install.sh uninstall)"
}

case_nothing_to_uninstall() {
	become_server
	refuses "install.sh: there is no toa.ko in /lib/modules/*/updates" ./install.sh uninstall
}

case_refuses_another_kernel() {
	become_server
	runs 7.9.9-cloud-amd64 "$version"
	refuses "install.sh: this server runs 7.9.9-cloud-amd64, and this toa.ko is for $release: take the tarball for 7.9.9-cloud-amd64"
}

case_refuses_another_build_of_the_same_release() {
	become_server
	runs "$release" 7.9.9-2
	refuses "install.sh: this server has Debian's build 7.9.9-2 of $release, and this toa.ko is for $version: take the tarball for 7.9.9-2"
}

case_refuses_a_file_that_the_manifest_does_not_tell_of() {
	local file
	become_server
	for file in install.sh toa.ko toa modules-load.conf LICENSE; do
		cp "$file" original
		echo "# changed" >>"$file"
		refuses "install.sh: $file is not the file that MANIFEST lists (sha256 $(sha256sum "$file" | cut -d ' ' -f 1)): fetch the tarball again"
		cat original >"$file"
	done
	./install.sh check >/dev/null
}

# list_again FILE: makes MANIFEST list FILE as it is now.
list_again() {
	sed -i "s/^sha256: .*  $1\$/sha256: $(sha256sum "$1")/" MANIFEST
	grep -qF "$(sha256sum "$1")" MANIFEST || die "MANIFEST does not list $1"
}

case_refuses_a_module_of_another_kernel_than_the_manifest_says() {
	become_server
	module toa.ko "vermagic=7.9.9 SMP "
	list_again toa.ko
	refuses "install.sh: toa.ko's vermagic is '7.9.9 SMP ', and MANIFEST names $release: fetch the tarball again"
}

case_refuses_a_kernel_whose_modules_have_another_vermagic() {
	become_server
	module "/lib/modules/$release/kernel/net/other.ko" "vermagic=$release SMP preempt_rt mod_unload "
	listing >before
	refuses "install.sh: toa.ko's vermagic is '$release SMP preempt mod_unload ', and that of this kernel's modules '$release SMP preempt_rt mod_unload ': build it for this kernel"
}

case_refuses_a_kernel_without_modules() {
	become_server
	rm -r "/lib/modules/$release"
	listing >before
	refuses "install.sh: there are no modules in /lib/modules/$release/kernel: install the kernel's package again"
}

case_refuses_to_install_an_unsigned_module_under_secure_boot() {
	become_server
	mkdir -p /sys/kernel/security
	echo "none [integrity] confidentiality" >/sys/kernel/security/lockdown
	refuses "install.sh: this server is locked down by Secure Boot, and toa.ko is not signed: make it with SIGN_KEY= and SIGN_CERT="
	echo "[none] integrity confidentiality" >/sys/kernel/security/lockdown
	./install.sh check >/dev/null
}

case_refuses_beside_the_module_of_dkms() {
	become_server
	mkdir -p "/lib/modules/$release/updates/dkms"
	touch "/lib/modules/$release/updates/dkms/toa.ko.xz"
	listing >before
	refuses "install.sh: /lib/modules/$release/updates/dkms/toa.ko.xz is there already: use either this tarball or DKMS"
}

case_refuses_half_a_tarball() {
	become_server
	rm MANIFEST
	refuses "install.sh: MANIFEST is missing beside install.sh: unpack the whole tarball"
}

case_refuses_without_kmod() {
	become_server
	mkdir few
	ln -s "$(command -v sh)" "$(command -v dirname)" "$(command -v id)" "$(command -v sha256sum)" few
	refuses "install.sh: modinfo is missing: install kmod and coreutils" env PATH="$TMP/few" ./install.sh
}

case_refuses_who_is_not_root() {
	become_server
	chmod 755 "$TMP"
	refuses "install.sh: run it as root" setpriv --reuid 65534 --clear-groups "$TMP/install.sh"
}

# --- signatures ----------------------------------------------------------------

# not_signed NAME KEY: prints the sentence about a file that KEY has not signed.
not_signed() {
	echo "install.sh: $1 is not what the owner of $2 has signed: do not use it, and fetch it again"
}

case_a_signed_tarball_is_installed_with_the_named_key() {
	become_server "$WORK/signed.path"
	same "check" "toa.ko fits this server's kernel $release" "$(./install.sh --key "$WORK/key.pub" check)"
	same "check, certificate" "toa.ko fits this server's kernel $release" "$(./install.sh --key "$WORK/key.crt" check)"
	has "install" "is installed for $release" "$(./install.sh install --key "$WORK/key.pub")"
	same "temporary files" "" "$(ls -d /tmp/tmp.*/files 2>/dev/null)"
}

# Each file is changed with a MANIFEST that lists it as it is: without a key this passes.
case_a_changed_file_with_a_rewritten_manifest_is_refused() {
	local file
	become_server "$WORK/signed.path"
	tar -xJf "$(<"$WORK/signed.path")"
	for file in toa.ko toa modules-load.conf install.sh LICENSE; do
		cp toa-*/* .
		echo "# changed" >>"$file"
		list_again "$file"
		[[ $file == toa.ko ]] || ./install.sh check >/dev/null
		refuses "$(not_signed MANIFEST "$WORK/key.pub")" ./install.sh --key "$WORK/key.pub"
	done
	cp toa-*/* .
	sed -i 's/^version: .*/version: 9.9.9/' MANIFEST
	refuses "$(not_signed MANIFEST "$WORK/key.pub")" ./install.sh --key "$WORK/key.pub"
	cp toa-*/* .
	head -c 255 toa-*/MANIFEST.sig >MANIFEST.sig
	refuses "$(not_signed MANIFEST "$WORK/key.pub")" ./install.sh --key "$WORK/key.pub"
	cp toa-*/* .
	./install.sh --key "$WORK/key.pub" check >/dev/null
}

case_the_key_of_another_owner_is_refused() {
	become_server "$WORK/signed.path"
	refuses "$(not_signed MANIFEST "$WORK/stranger.pub")" ./install.sh --key "$WORK/stranger.pub"
	refuses "install.sh: toa.ko is neither a public key nor a certificate in PEM: name one with --key" ./install.sh --key toa.ko
	refuses "install.sh: --key takes a file with a public key or a certificate" ./install.sh --key
	refuses "install.sh: --key takes a file with a public key or a certificate" ./install.sh --key missing.pem
}

# The administrator's key counts without an option, and also if it cannot be read.
case_a_key_in_etc_is_the_default() {
	become_server "$WORK/signed.path"
	cp "$WORK/key.pub" /etc/toa/install.pem
	./install.sh check >/dev/null
	cp "$WORK/stranger.pub" /etc/toa/install.pem
	refuses "$(not_signed MANIFEST /etc/toa/install.pem)"
	ln -sf nowhere /etc/toa/install.pem
	refuses "install.sh: /etc/toa/install.pem is neither a public key nor a certificate in PEM: name one with --key"
}

case_an_unsigned_tarball_is_refused_if_there_is_a_key() {
	become_server
	refuses "install.sh: MANIFEST.sig is missing, and $WORK/key.pub has to verify it: take a signed tarball" \
		./install.sh --key "$WORK/key.pub"
	refuses "install.sh: $(<"$WORK/path").sig is missing, and $WORK/key.pub has to verify it: fetch the signature too" \
		./install.sh --key "$WORK/key.pub" install "$(<"$WORK/path")"
}

# The copy of the first installation verifies the next tarball, whose script does not run before.
case_the_installed_script_verifies_a_tarball_before_it_unpacks_it() {
	local tarball script=/usr/local/lib/toa/install.sh
	become_server "$WORK/signed.path"
	tarball=$TMP/$(basename "$(<"$WORK/signed.path")")
	cp "$(<"$WORK/signed.path")"{,.sig} .
	./install.sh --key "$WORK/key.pub" >/dev/null
	rm -r install.sh MANIFEST* toa* "/lib/modules/$release/updates"
	cp "$(<"$WORK/signed.path")"{,.sig} .
	same "install" "toa $(version_of_tarball) is installed for $release and loaded at each start-up; now: modprobe toa" \
		"$("$script" --key "$WORK/key.pub" install "$tarball")"
	mkdir other
	tar -xJf "$tarball" -C other
	echo "touch '$TMP/ran'" >>other/*/install.sh
	tar -C other -cJf "$tarball" .
	listing >before
	refuses "$(not_signed "$tarball" "$WORK/key.pub")" "$script" --key "$WORK/key.pub" install "$tarball"
	refuses "$(not_signed "$tarball" "$WORK/key.pub")" "$script" --key "$WORK/key.pub" check "$tarball"
	refuses "$(not_signed "$tarball" "$WORK/key.pub")" "$script" --key "$WORK/key.pub" ahead "$tarball"
	[[ ! -e ran ]] || die "the tarball's script has run"
}

version_of_tarball() {
	basename "$(<"$WORK/path")" | sed 's/^toa-\([0-9.]*\)_.*/\1/'
}

case_a_tarball_is_installed_from_its_file() {
	become_server
	./install.sh >/dev/null
	rm -r "/lib/modules/$release/updates"
	echo none >broken.tar.xz
	listing >before
	refuses "install.sh: broken.tar.xz could not be unpacked: fetch it again, and install xz-utils" \
		/usr/local/lib/toa/install.sh install broken.tar.xz
	refuses "install.sh: there is no file none.tar.xz" /usr/local/lib/toa/install.sh install none.tar.xz
	has "install" "is installed for $release" "$(/usr/local/lib/toa/install.sh install "$(<"$WORK/path")")"
}

# The commands of doc/install.md.
case_openssl_verifies_tarball_and_checksums() {
	local tarball
	become_server
	cp "$WORK"/signed/* .
	tarball=$(basename "$(<"$WORK/signed.path")")
	same "tarball" "Verified OK" "$(openssl dgst -sha256 -verify "$WORK/key.pub" -signature "$tarball.sig" "$tarball")"
	same "list" "Verified OK" "$(openssl dgst -sha256 -verify "$WORK/key.pub" -signature SHA256SUMS.sig SHA256SUMS)"
	same "checksums" "$tarball: OK" "$(sha256sum -c --ignore-missing SHA256SUMS)"
	echo >>"$tarball"
	! openssl dgst -sha256 -verify "$WORK/key.pub" -signature "$tarball.sig" "$tarball" >/dev/null 2>&1 || die "a changed tarball is verified"
}

case_the_module_is_signed_as_the_kernels_own_tool_signs() {
	become_server "$WORK/signed.path"
	same "signer" "toa signer" "$(modinfo -F signer ./toa.ko)"
	same "manifest" "signer: toa signer" "$(grep ^signer: MANIFEST)"
	cmp toa.ko "$WORK/by-sign-file.ko"
}

case_files_of_the_tarball_have_one_time_and_owner() {
	same "times and owners" "0/0 2001-09-09 01:46:40" \
		"$(TZ=UTC tar -tvf "$(<"$WORK/path")" --full-time | awk '{ print $2, $4, $5 }' | sort -u)"
	same "modes" "-rw-r--r-- -rwxr-xr-x drwxr-xr-x" \
		"$(tar -tvf "$(<"$WORK/path")" | awk '{ print $1 }' | sort -u | paste -sd ' ')"
}

case_the_signed_list_has_only_what_the_key_has_signed() {
	become_server "$WORK/signed.path"
	same "files" "SHA256SUMS SHA256SUMS.sig $(cd "$WORK/signed" && echo toa-*)" "$(cd "$WORK/signed" && echo *)"
	same "list" "$(basename "$(<"$WORK/signed.path")")" "$(awk '{ print $2 }' "$WORK/signed/SHA256SUMS")"
	same "files without a key" "SHA256SUMS $(basename "$(<"$WORK/path")")" "$(cd "$WORK/out" && echo *)"
	same "list without a key" "$(cd "$WORK/out" && sha256sum toa-*)" "$(<"$WORK/out/SHA256SUMS")"
}

case_signing_without_the_key_or_its_passphrase_is_no_tarball() {
	same "without a key" "prebuilt.sh: SIGN_CERT= names a certificate without its key: add SIGN_KEY=" "$(<"$WORK/no-key.log")"
	same "wrong passphrase" "prebuilt.sh: openssl dgst cannot use SIGN_KEY=: set KBUILD_SIGN_PIN to its passphrase or PIN, and for a pkcs11: URI install pkcs11-provider or libengine-pkcs11-openssl" \
		"$(tail -n 1 "$WORK/wrong-pin.log")"
	same "tarballs" "" "$(ls "$WORK/not")"
}

# The token's tarball is packed later than the other, in another time zone, with another umask,
# options of tar and xz, and other times of the files.
case_a_key_in_a_token_signs_the_same_bytes() {
	become_server
	same "tarball" "$(sha256sum <"$(<"$WORK/signed.path")")" "$(sha256sum <"$(<"$WORK/by-token.path")")"
	same "signatures" "$(cd "$WORK/signed" && sha256sum ./*.sig)" "$(cd "$WORK/by-token" && sha256sum ./*.sig)"
	tar -xJf "$(<"$WORK/by-token.path")" --strip-components=1
	cmp toa.ko "$WORK/by-sign-file.ko"
	./install.sh --key "$WORK/key.pub" check "$(<"$WORK/by-token.path")" >/dev/null
	./install.sh --key "$WORK/key.pub" check >/dev/null
}

# --- load-copied-toa -----------------------------------------------------------

# become_server_with_copy: mounts a server to which toa.ko was copied. Its insmod
# records its arguments.
become_server_with_copy() {
	become_server
	stand_in insmod <<-STUB
		echo "\$@" >>"$TMP/inserted"
	STUB
	stand_in logger <<-STUB
		echo "\$@" >>"$TMP/logged"
	STUB
	touch inserted logged
	LOAD=$REPO/packaging/load-copied-toa
}

# loads_nothing LINE: checks that the script prints and logs LINE.
loads_nothing() {
	fails 1 "toa: $1, servers see the balancer instead of their clients" "$LOAD" "$TMP/toa.ko"
	same "log" "-p daemon.err -t toa -- $1, servers see the balancer instead of their clients" "$(<logged)"
	same "insmod" "${2:-}" "$(<inserted)"
}

case_copied_module_is_loaded_by_its_kernel() {
	become_server_with_copy
	"$LOAD" "$TMP/toa.ko" max_records=1000
	same "insmod" "$TMP/toa.ko max_records=1000" "$(<inserted)"
	same "log" "" "$(<logged)"
}

case_copied_module_is_not_loaded_by_another_kernel() {
	become_server_with_copy
	runs 7.9.9-cloud-amd64 7.9.9-1
	loads_nothing "$TMP/toa.ko is for the kernel $release, and 7.9.9-cloud-amd64 runs"
}

case_copied_module_that_is_missing_or_none_or_refused_is_told() {
	become_server_with_copy
	echo "no module" >toa.ko
	loads_nothing "$TMP/toa.ko is no kernel module"
	rm toa.ko logged
	loads_nothing "$TMP/toa.ko is missing"
	rm logged
	module toa.ko "vermagic=$release SMP "
	stand_in insmod <<-STUB
		exit 1
	STUB
	loads_nothing "$TMP/toa.ko could not be loaded"
}

case_module_that_is_loaded_already_is_left_alone() {
	become_server_with_copy
	mkdir -p /sys/module/toa
	runs 7.9.9-cloud-amd64 7.9.9-1
	"$LOAD" "$TMP/toa.ko"
	same "insmod" "" "$(<inserted)"
}

# --- toa-check -----------------------------------------------------------------

# become_checked_server: mounts a server with our start-up configuration, whose toa is installed and not
# loaded.
become_checked_server() {
	local directory
	become_server
	./install.sh >/dev/null
	rm /etc/modules-load.d/toa.conf
	for directory in /proc/sys/net /etc/modprobe.d /usr/lib/modprobe.d /usr/lib/modules-load.d /etc/systemd /run; do
		mkdir -p "$directory"
		mount -t tmpfs tmpfs "$directory"
	done
	make -s -C "$REPO" install-startup DESTDIR="$TMP/package"
	cp "$TMP/package/usr/lib/modprobe.d/toa-policy.conf" /usr/lib/modprobe.d/
	cp "$TMP/package/usr/lib/modules-load.d/toa.conf" /usr/lib/modules-load.d/
	CHECK=$TMP/package/usr/libexec/toa/toa-check
}

# is_loaded: fills /sys and /proc as our module does.
is_loaded() {
	mkdir -p /sys/module/toa /proc/sys/net/toa
	touch /proc/sys/net/toa/trusted
}

not_loaded() {
	local status=0
	same "check" "toa: toa is not loaded, servers see the balancer instead of their clients: run modprobe toa, and read the kernel's log" \
		"$("$CHECK" loaded)"
	"$CHECK" loaded >/dev/null || status=$?
	same "status" 1 "$status"
}

# quiet_but_required REASON: the check is silent and succeeds, and services that require toa do not start.
quiet_but_required() {
	local status=0
	same "check" "" "$("$CHECK" loaded)"
	"$CHECK" loaded
	same "required" "toa: toa is required, and not loaded: $1" "$("$CHECK" required)"
	"$CHECK" required >/dev/null || status=$?
	same "status of required" 1 "$status"
}

case_check_fails_until_toa_is_loaded() {
	become_checked_server
	not_loaded
	same "required" "$("$CHECK" loaded)" "$("$CHECK" required)"
	is_loaded
	same "check" "" "$("$CHECK" loaded && "$CHECK" required)"
	"$CHECK" loaded && "$CHECK" required
}

case_check_is_not_satisfied_by_another_module_called_toa() {
	local action
	become_checked_server
	mkdir -p /sys/module/toa
	# The administrator's settings are for our module, and this one is loaded.
	echo "blacklist toa" >/etc/modprobe.d/mine.conf
	for action in loaded required; do
		same "$action" "toa: another module called toa is loaded in place of this one: remove what loads it, then run rmmod toa && modprobe toa" \
			"$("$CHECK" "$action")"
		! "$CHECK" "$action" >/dev/null || die "$action succeeds"
	done
}

case_check_is_quiet_if_the_administrator_has_masked_the_start() {
	become_checked_server
	ln -s /dev/null /etc/modules-load.d/toa.conf
	quiet_but_required "/etc/modules-load.d/toa.conf does not name it"
	echo toa >/etc/modules-load.d/other.conf
	not_loaded
	rm /etc/modules-load.d/*
	touch /etc/modules-load.d/toa.conf
	quiet_but_required "/etc/modules-load.d/toa.conf does not name it"
	rm /etc/modules-load.d/toa.conf
	not_loaded
	rm /usr/lib/modules-load.d/toa.conf
	not_loaded
	mkdir /etc/systemd/system
	ln -s /dev/null /etc/systemd/system/systemd-modules-load.service
	quiet_but_required "systemd-modules-load.service is masked"
}

case_check_is_quiet_if_the_module_is_blacklisted() {
	local command
	become_checked_server
	echo "blacklist toa2" >/etc/modprobe.d/mine.conf
	not_loaded
	echo "blacklist toa" >/etc/modprobe.d/mine.conf
	quiet_but_required "it is blacklisted, in modprobe.d or the kernel's command line"
	for command in /bin/false /usr/bin/true /sbin/false false; do
		echo "install toa $command" >/etc/modprobe.d/mine.conf
		quiet_but_required "a line in modprobe.d installs $command in its place"
	done
	echo "install toa /sbin/modprobe --ignore-install toa max_records=7" >/etc/modprobe.d/mine.conf
	not_loaded
}

case_check_is_quiet_if_the_kernels_command_line_blacklists_the_module() {
	become_checked_server
	echo "root=/dev/vda1 module_blacklist=nouveau,toa quiet" >cmdline
	mount --bind cmdline /proc/cmdline
	quiet_but_required "the kernel's command line has it in module_blacklist="
	echo "root=/dev/vda1 module_blacklist=toad,nouveau quiet" >cmdline
	not_loaded
}

# The rule of udev calls toa-check when the module appears.
case_check_runs_again_when_toa_is_loaded_later() {
	become_checked_server
	has "rule" 'ACTION=="add", SUBSYSTEM=="module", KERNEL=="toa", RUN+="/usr/libexec/toa/toa-check recovered"' \
		"$(<"$TMP/package/usr/lib/udev/rules.d/60-toa.rules")"
	stand_in systemctl <<-STUB
		echo "\$*" >>"$TMP/called"
		[ "\$*" != "--quiet is-failed toa-check.service" ] || [ -e "$TMP/failed" ]
	STUB
	touch failed
	"$CHECK" recovered
	same "systemctl" "--no-block start toa-check.service" "$(tail -n 1 called)"
	rm failed called
	"$CHECK" recovered
	same "systemctl, if the check has not failed" "--quiet is-failed toa-check.service" "$(<called)"
}

# Only the files are compared here: systemd does not run in the root.
case_a_service_with_the_drop_in_requires_the_check() {
	local unit=$TMP/package/usr/lib/systemd/system/toa-required.service drop_in=$TMP/package/usr/share/toa/toa-required.conf
	become_checked_server
	same "drop-in" "[Unit] Requires=toa-required.service After=toa-required.service" "$(grep -v '^#' "$drop_in" | paste -sd ' ')"
	same "command" "ExecStart=/usr/libexec/toa/toa-check required" "$(grep ^ExecStart= "$unit")"
	# An active unit would not check again at the service's next start.
	! grep -q RemainAfterExit "$unit" || die "the check stays active"
}

case ${1:-} in
--module)
	shift
	module "$@"
	;;
*) cases_in_root tools set_stage "$@" ;;
esac
