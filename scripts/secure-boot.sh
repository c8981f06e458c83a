#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Makes the files for the tests with Secure Boot, in build/RELEASE/secure-boot.
#
#   secure-boot.sh keys       two keys; the firmware, and its variables, in which
#                             it trusts the first one and the kernel's signer
#   secure-boot.sh modules    toa.ko, signed with the first key by DKMS, and modules
#                             that the kernel rejects
#   secure-boot.sh prebuilt   the tarballs of prebuilt.sh, signed with the first key
#                             and not signed, and the script that tries them
#
# KERNEL= and KVER= select the kernel (see kernel.sh). Exits 77 if its image is not
# signed.

. "$(dirname "$0")/lib.sh"
shopt -s inherit_errexit

# The owner of the keys in the firmware's variables.
readonly OWNER=3d0c1a5e-7f5b-4d0f-9a37-5a1ba1a9c0de

# Sets the variables that kernel.sh prints, and made, the directory of the files for
# this kernel.
made_for_kernel() {
	local found
	found=$("$SCRIPTS/kernel.sh" "${1:-resolve}")
	eval "$found"
	made=$REPO/build/$release/secure-boot
}

# --- keys, in the root secureboot ----------------------------------------------

# key NAME: makes a certificate for code, NAME.pem, with its key NAME.key. It is valid
# for the tests only.
key() {
	openssl req -quiet -new -x509 -newkey rsa:2048 -noenc -days 30 -subj "/CN=toa $1 key/" \
		-addext basicConstraints=critical,CA:FALSE -addext extendedKeyUsage=codeSigning \
		-keyout "$1.key" -out "$1.pem"
}

# The certificate in the kernel image's own signature.
signer_of() {
	sbattach --detach signature "$1" >&2 || return
	openssl pkcs7 -inform der -in signature -print_certs | openssl x509
}

write_keys() {
	local image=$1
	cp "$image" image
	signer_of image >signer.pem || { info "${image##*/} has no signature: skipped" && exit "$NO_KERNEL"; }
	info "the kernel's signer: $(openssl x509 -in signer.pem -noout -subject)"
	key enrolled
	key stranger
	cp /usr/share/OVMF/OVMF_CODE_4M.secboot.fd firmware.fd
	virt-fw-vars --loglevel warning --input /usr/share/OVMF/OVMF_VARS_4M.fd --output variables.fd \
		--set-pk "$OWNER" enrolled.pem --add-kek "$OWNER" enrolled.pem \
		--add-db "$OWNER" enrolled.pem --add-db "$OWNER" signer.pem --secure-boot
	rm -f image signature
}

keys() {
	local kernel_dir release made
	made_for_kernel fetch
	rm -rf "$made"
	mkdir -p "$made"
	cd "$made"
	"$SCRIPTS/root.sh" run secureboot "$SCRIPTS/secure-boot.sh" write-keys "$kernel_dir/vmlinuz"
}

# --- modules, in the root dkms -------------------------------------------------

# Signs by DKMS. Runs in a private mount namespace: files written there are lost.
own() {
	local path
	for path; do
		mkdir -p "$path"
		mount -t tmpfs tmpfs "$path"
	done
}

# Runs DKMS with sources, results and configuration that are not the root's.
dkms_build() {
	local release=$1 version=$2 keys=$3
	own /var/lib/dkms /etc/dkms/framework.conf.d /var/cache/toa-dkms
	make --no-print-directory -C "$REPO" DESTDIR=/var/lib/dkms install-dkms
	openssl x509 -in "$keys/enrolled.pem" -outform der -out /var/lib/dkms/enrolled.der
	printf '%s\n' "source_tree=/var/lib/dkms/usr/src" "mok_signing_key=$keys/enrolled.key" \
		"mok_certificate=/var/lib/dkms/enrolled.der" >/etc/dkms/framework.conf.d/toa.conf
	dkms build "toa/$version" -k "$release" || { cat /var/lib/dkms/toa/*/build/make.log && return 1; }
}

write_modules() {
	local release=$1 keys=$2 version sign_file built
	version=$("$SCRIPTS/version.sh" print)
	sign_file=/lib/modules/$release/build/scripts/sign-file
	dkms_build "$release" "$version" "$keys" >&2
	# DKMS compresses the module if those of an installed kernel are.
	built=/var/lib/dkms/toa/$version/$release/x86_64/module/toa.ko
	if [[ -e $built ]]; then
		cp "$built" toa.ko
	else
		xz -dc "$built.xz" >toa.ko
	fi
	mkdir refused
	cp "$REPO/build/$release-standin/module/toa.ko" refused/unsigned.ko
	"$sign_file" sha256 "$keys/stranger.key" "$keys/stranger.pem" refused/unsigned.ko refused/stranger.ko
	# One letter of the description differs.
	LC_ALL=C sed 's/description=Real/description=Deal/' toa.ko >refused/changed.ko
	signers
}

# Checks the signers with modinfo: DKMS continues if it cannot sign.
signers() {
	local file signer
	for file in toa.ko refused/*.ko; do
		signer=$(modinfo -F signer "$file")
		info "$file: signed by '$signer'"
		case $file:$signer in
		'toa.ko:toa enrolled key' | 'refused/changed.ko:toa enrolled key') ;;
		'refused/stranger.ko:toa stranger key' | 'refused/unsigned.ko:') ;;
		*) die "$file must not be signed by '$signer'" ;;
		esac
	done
	! cmp -s toa.ko refused/changed.ko || die "refused/changed.ko is not changed"
}

modules() {
	local release made
	made_for_kernel
	rm -rf "$made/modules"
	mkdir "$made/modules"
	RUST=standin "$SCRIPTS/vm-test.sh" module
	cd "$made/modules"
	"$SCRIPTS/root.sh" run dkms "$SCRIPTS/secure-boot.sh" write-modules "$release" "$made"
}

# --- tarballs --------------------------------------------------------------------

prebuilt() {
	local release made
	made_for_kernel
	rm -rf "$made/prebuilt"
	mkdir -p "$made"/prebuilt/{unsigned,signed}
	unpack "$made/prebuilt/unsigned"
	SIGN_KEY=$made/enrolled.key SIGN_CERT=$made/enrolled.pem unpack "$made/prebuilt/signed"
	cp "$REPO/tests/prebuilt-in-guest.sh" "$made/prebuilt/"
}

unpack() {
	local tarball
	tarball=$("$SCRIPTS/prebuilt.sh" pack "$1.tarball")
	tar -xJf "$tarball" -C "$1" --strip-components=1
	rm -r "$1.tarball"
}

main() {
	case ${1:-} in
	keys | modules | prebuilt) "$1" ;;
	write-keys) write_keys "$2" ;;
	write-modules) write_modules "$2" "$3" ;;
	-h | --help | help) usage ;;
	*) usage 1 >&2 ;;
	esac
}

main "$@"
