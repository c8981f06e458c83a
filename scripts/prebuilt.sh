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
# its build, the compiler, the sources' commit, and toa.ko's sha256.
#
# KERNEL=, KVER=           which kernel (see kernel.sh)
# SIGN_KEY=, SIGN_CERT=    files with a key and its certificate, to sign toa.ko for
#                          servers with Secure Boot

. "$(dirname "$0")/lib.sh"
shopt -s inherit_errexit

export RUST=standin

# The command, static.
COMMAND=$REPO/build/target/x86_64-unknown-linux-gnu/release/toa

# The commit of the sources, or "unknown" without a git clone.
commit() {
	local id
	id=$(git -C "$REPO" rev-parse HEAD 2>/dev/null) || { echo "unknown: no git clone" && return; }
	[[ -z $(git -C "$REPO" status --porcelain --untracked-files=no) ]] || id+=" with changes"
	echo "$id"
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
		sha256: $(sha256sum "$module" | cut -d ' ' -f 1)
		commit: $(commit)
	MANIFEST
}

# sign RELEASE MODULE KEY CERTIFICATE: signs as DKMS does. Runs in the root build.
sign() {
	"/lib/modules/$1/build/scripts/sign-file" sha256 "$3" "$4" "$2"
}

# Copies the key into the root while it signs.
sign_with() {
	local dir=$1
	[[ -r $SIGN_KEY && -r ${SIGN_CERT:-} ]] ||
		die "SIGN_KEY= and SIGN_CERT= have to name a key and its certificate"
	mkdir -m 700 "$dir/key"
	cp "$SIGN_KEY" "$dir/key/key"
	cp "$SIGN_CERT" "$dir/key/certificate"
	"$SCRIPTS/root.sh" run build "$SCRIPTS/prebuilt.sh" sign "$release" "$dir/toa/toa.ko" \
		"$dir/key/key" "$dir/key/certificate"
	rm -rf "$dir/key"
}

pack() {
	# shellcheck disable=SC2034 # what kernel.sh prints
	local out=$1 found release version source binary rustc rustc_text module name work
	found=$("$SCRIPTS/kernel.sh" resolve)
	eval "$found"
	need_host modinfo=kmod xz=xz-utils
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
	[[ -z ${SIGN_KEY:-} ]] || sign_with "$work"
	install -m 755 "$COMMAND" "$work/toa/toa"
	"$SCRIPTS/root.sh" run tools strip "$work/toa/toa"
	cp "$REPO/LICENSE" "$REPO/packaging/install.sh" "$REPO/packaging/modules-load.conf" "$work/toa/"
	manifest "$work/toa/toa.ko" >"$work/toa/MANIFEST"
	chmod -R u=rwX,go=rX "$work/toa"
	mv "$work/toa" "$work/$name"
	tar -C "$work" --sort=name --owner=0 --group=0 --numeric-owner -cJf "$out/$name.tar.xz" "$name"
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
	sign) sign "$2" "$3" "$4" "$5" ;;
	-h | --help | help) usage ;;
	*) usage 1 >&2 ;;
	esac
}

main "$@"
