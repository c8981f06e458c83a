#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Packs toa.ko with the stand-in crate for one kernel, for servers that run this
# kernel and have no compilers.
#
#   prebuilt.sh make [DIRECTORY]    build it, and pack it there (default: build);
#                                   print the tarball's path
#   prebuilt.sh pack DIRECTORY      pack the toa.ko and the command that were built
#                                   before
#
# The tarball has toa.ko, the command toa, install.sh, and MANIFEST: the kernel and
# its build, the compiler, the sources' commit, and the sha256 of each file.
# SHA256SUMS beside it lists the tarballs of this version in the directory.
#
# Builds of one commit make the same bytes, in any directory and at any time, with the
# same packages in the roots. Signatures of an EC key differ each time.
#
# KERNEL=, KVER=     which kernel (see kernel.sh)
# SIGN_KEY=          a file with an RSA or EC key, or a pkcs11: URI: signs MANIFEST,
#                    the tarball and SHA256SUMS. The signatures are in FILE.sig, and
#                    `openssl dgst -sha256 -verify KEY -signature FILE.sig FILE`
#                    verifies them. SHA256SUMS then lists only tarballs that this
#                    key has signed
# SIGN_CERT=         a file with the key's certificate: signs toa.ko too, for servers
#                    with Secure Boot
# SOURCE_DATE_EPOCH  the time of the files in seconds (default: the commit's)
# KBUILD_SIGN_PIN    the key's passphrase or PIN, in the environment

. "$(dirname "$0")/lib.sh"
shopt -s inherit_errexit

export RUST=standin

# The command, static.
COMMAND=$REPO/build/target/x86_64-unknown-linux-gnu/release/toa

# The commit of the sources, or "unknown" without a git clone.
commit() {
	local id
	id=$(git_here rev-parse HEAD 2>/dev/null) || { echo "unknown: no git clone" && return; }
	[[ -z $(git_here status --porcelain --untracked-files=no) ]] || id+=" with changes"
	echo "$id"
}

# Prints the time of the tarball's files in seconds: the commit's, which the files
# of a source tarball have too.
source_time() {
	[[ -z ${SOURCE_DATE_EPOCH:-} ]] || { echo "$SOURCE_DATE_EPOCH" && return; }
	git_here log -1 --format=%ct 2>/dev/null || stat -c %Y "$REPO/toa.rs"
}

manifest() {
	local module=$1
	cat <<-MANIFEST
		module: toa
		version: $("$SCRIPTS/version.sh" print)
		kernel: $release
		build: $version
		vermagic: $(modinfo -F vermagic "$module")
		headers: linux-headers-$release $version
		crate: $(modinfo -F crate "$module")
		rustc: $("$SCRIPTS/root.sh" run build rustc --version)
		signer: $(modinfo -F signer "$module")
		commit: $(commit)
	MANIFEST
	(cd "${module%/*}" && sha256sum -- *) | grep -v ' MANIFEST$' | sed 's/^/sha256: /'
}

# --- signatures ------------------------------------------------------------------

# The options with which openssl finds SIGN_KEY: of a command that signs with it, and
# of one that reads it. A token needs pkcs11-provider, or the engine that it replaces.
SIGN_OPTIONS=()
READ_OPTIONS=()

find_key() {
	if [[ -z ${SIGN_KEY:-} ]]; then
		[[ -z ${SIGN_CERT:-} ]] || die "SIGN_CERT= names a certificate without its key: add SIGN_KEY="
		return
	fi
	[[ -z ${SIGN_CERT:-} || -r $SIGN_CERT ]] || die "SIGN_CERT=$SIGN_CERT is no file that can be read"
	need_host openssl=openssl
	if [[ $SIGN_KEY != pkcs11:* ]]; then
		[[ -r $SIGN_KEY ]] || die "SIGN_KEY=$SIGN_KEY is neither a file that can be read nor a pkcs11: URI"
	elif openssl list -providers -provider pkcs11 >/dev/null 2>&1; then
		SIGN_OPTIONS=(-provider pkcs11 -provider default)
		READ_OPTIONS=("${SIGN_OPTIONS[@]}")
	else
		SIGN_OPTIONS=(-engine pkcs11 -keyform engine)
		READ_OPTIONS=(-engine pkcs11 -inform engine)
	fi
	if [[ -n ${KBUILD_SIGN_PIN:-} ]]; then
		SIGN_OPTIONS+=(-passin env:KBUILD_SIGN_PIN)
		READ_OPTIONS+=(-passin env:KBUILD_SIGN_PIN)
	fi
}

# with_key COMMAND ARGUMENT…: runs openssl, whose messages are printed if it fails. It
# must not ask for a passphrase.
with_key() {
	local log
	log=$(openssl "$@" 2>&1 >/dev/null </dev/null) && return
	info "$log"
	die "openssl $1 cannot use SIGN_KEY=: set KBUILD_SIGN_PIN to its passphrase or PIN, and for a pkcs11: URI install pkcs11-provider or libengine-pkcs11-openssl"
}

# sign FILE: writes the detached signature FILE.sig.
sign() {
	with_key dgst -sha256 -sign "$SIGN_KEY" "${SIGN_OPTIONS[@]}" -out "$1.sig" "$1"
}

# sign_module MODULE DIRECTORY: appends the signature that the kernel verifies. The key
# does not enter the root: sign-file there only appends.
sign_module() {
	with_key cms -sign -binary -noattr -nocerts -nosmimecap -md sha256 -outform DER \
		-signer "$SIGN_CERT" -inkey "$SIGN_KEY" "${SIGN_OPTIONS[@]}" -in "$1" -out "$2/signature"
	"$SCRIPTS/root.sh" run build "/lib/modules/$release/build/scripts/sign-file" -s "$2/signature" sha256 - "$1"
	rm "$2/signature"
}

# is_signed FILE KEY: checks the detached signature.
is_signed() {
	[[ -s $1.sig ]] && openssl dgst -sha256 -verify "$2" -signature "$1.sig" "$1" >/dev/null 2>&1
}

# list DIRECTORY WORK: writes SHA256SUMS and its signature. A tarball that this key has
# not signed may come from another hand, so the key does not sign its checksum.
list() (
	local tarball tarballs=()
	cd "$1"
	[[ -z ${SIGN_KEY:-} ]] || with_key pkey -in "$SIGN_KEY" "${READ_OPTIONS[@]}" -pubout -out "$2/public"
	for tarball in "toa-$("$SCRIPTS/version.sh" print)"_*.tar.xz; do
		if [[ -z ${SIGN_KEY:-} ]] || is_signed "$tarball" "$2/public"; then
			tarballs+=("$tarball")
		else
			info "$tarball is not in SHA256SUMS: SIGN_KEY= has not signed it"
		fi
	done
	rm -f SHA256SUMS SHA256SUMS.sig
	sha256sum "${tarballs[@]}" >SHA256SUMS
	[[ -z ${SIGN_KEY:-} ]] || sign SHA256SUMS
)

# --- the tarball -----------------------------------------------------------------

pack() {
	# shellcheck disable=SC2034 # what kernel.sh prints
	local out=$1 found release version source binary rustc rustc_text module name work time
	found=$("$SCRIPTS/kernel.sh" resolve)
	eval "$found"
	need_host modinfo=kmod xz=xz-utils
	find_key
	module=$REPO/build/$release-$RUST/module/toa.ko
	[[ -s $module ]] || die "there is no toa.ko for $release: run prebuilt.sh make"
	[[ -s $COMMAND ]] || die "there is no command toa in ${COMMAND%/*}: run prebuilt.sh make"
	mkdir -p "$out"
	out=$(realpath "$out")
	name=toa-$("$SCRIPTS/version.sh" print)_$release
	work=$(mktemp -d "$REPO/build/prebuilt.XXXXXX")
	# shellcheck disable=SC2064 # now
	trap "rm -rf '$work'" EXIT
	mkdir "$work/toa"
	cp "$module" "$work/toa/"
	"$SCRIPTS/root.sh" run tools strip --strip-debug "$work/toa/toa.ko"
	[[ -z ${SIGN_CERT:-} ]] || sign_module "$work/toa/toa.ko" "$work"
	install -m 755 "$COMMAND" "$work/toa/toa"
	"$SCRIPTS/root.sh" run tools strip "$work/toa/toa"
	cp "$REPO/LICENSE" "$REPO/packaging/install.sh" "$REPO/packaging/modules-load.conf" "$work/toa/"
	manifest "$work/toa/toa.ko" >"$work/toa/MANIFEST"
	[[ -z ${SIGN_KEY:-} ]] || sign "$work/toa/MANIFEST"
	chmod -R u=rwX,go=rX "$work/toa"
	mv "$work/toa" "$work/$name"
	time=$(source_time)
	# The host's tar may have options in its environment, and the host's xz may be another version.
	env -u TAR_OPTIONS tar -C "$work" --format=gnu --sort=name --mtime="@$time" --owner=0 --group=0 \
		--numeric-owner -cf "$work/tar" "$name"
	"$SCRIPTS/root.sh" run tools xz --threads=1 -6 --stdout "$work/tar" >"$out/$name.tar.xz"
	rm -f "$out/$name.tar.xz.sig"
	[[ -z ${SIGN_KEY:-} ]] || sign "$out/$name.tar.xz"
	list "$out" "$work"
	info "$(cat "$work/$name/MANIFEST")"
	echo "$out/$name.tar.xz"
}

main() {
	case ${1:-} in
	make)
		stage "find a kernel" "$SCRIPTS/kernel.sh" resolve >&2
		stage "root for building" "$SCRIPTS/root.sh" make build
		stage "module" "$SCRIPTS/vm-test.sh" module
		stage "root of tools" "$SCRIPTS/root.sh" make tools
		stage "command toa" "$SCRIPTS/vm-test.sh" command-line-tool
		pack "${2:-$REPO/build}"
		;;
	pack) pack "${2:-$REPO/build}" ;;
	-h | --help | help) usage ;;
	*) usage 1 >&2 ;;
	esac
}

main "$@"
