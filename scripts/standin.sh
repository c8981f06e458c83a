#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Prints the kernel build directory for a build with the stand-in crate.
#
#   standin.sh [--kver RELEASE] [--kdir DIRECTORY] [--print-make-vars]
#
#   --kver             the kernel's release; default: that of --kdir, else of
#                      the running kernel
#   --kdir             its headers; default: /lib/modules/RELEASE/build, else
#                      /usr/src/linux-headers-RELEASE
#   --print-make-vars  print RUSTC=… CLIPPY_DRIVER=… on one line instead
#
# The build takes the headers as they are, their C compiler, and rustc 1.85 or
# later with the source of its library. RUSTC= names a compiler. Exits 1 with one
# message if something is missing.

. "$(dirname "$0")/lib.sh"
. "$SCRIPTS/toolchain.sh"

readonly OLDEST_MINOR=85

# The minor version of a compiler, or nothing.
minor_of() {
	"$1" --version 2>/dev/null | sed -n 's/^rustc 1\.\([0-9]*\)\..*/\1/p'
}

library_of() {
	echo "$("$1" --print sysroot)/lib/rustlib/src/rust/library"
}

# Compilers by their usual names, the distribution's first, then versioned ones,
# the newest first.
candidates() {
	printf '%s\n' ${RUSTC:+"$RUSTC"} /usr/bin/rustc rustc
	compgen -G '/usr/bin/rustc-1.*' | sort -rV || true
	compgen -G '/usr/lib/rust-1.*/bin/rustc' | sort -rV || true
}

# Sets RUSTC to the first compiler that is new enough and has its library's
# source.
find_rustc() {
	local command minor reason=
	while read -r command; do
		command=$(command -v "$command") || continue
		minor=$(minor_of "$command")
		if ((${minor:-0} < OLDEST_MINOR)); then
			reason=${reason:-"$command is $(called "$command")"}
		elif [[ ! -e $(library_of "$command")/core/src/lib.rs ]]; then
			reason=${reason:-"$command has no source of its library ($(library_of "$command"))"}
		else
			RUSTC=$command
			return
		fi
	done < <(candidates)
	# shellcheck disable=SC2046 # a list of words
	lacks "rustc 1.$OLDEST_MINOR or later with the source of its library is missing${reason:+ ($reason)}" $(packages)
}

# The packages that apt offers for it: Debian's rustc, the newer one that Debian
# 12 has for browsers, or Ubuntu's with the version in the name.
packages() {
	local name minor
	for name in rustc rustc-web; do
		minor=$(candidate_version "$name" | sed -n 's/^1\.\([0-9]*\)\..*/\1/p')
		((${minor:-0} < OLDEST_MINOR)) || { echo "$name ${name/rustc/rust}-src" && return; }
	done
	minor=$(apt-cache search --names-only '^rustc-1\.[0-9]+$' 2>/dev/null |
		sed -n 's/^rustc-1\.\([0-9]*\) .*/\1/p' | sort -rn | head -n 1)
	((${minor:-0} < OLDEST_MINOR)) && echo "rustc rust-src" || echo "rustc-1.$minor rust-1.$minor-src"
}

# unsuitable REASON: stops the build for a kernel that only its own crate, or none,
# can be used with.
unsuitable() {
	[[ $(config_value RUST) != y ]] || die "$*: this kernel can use its own crate, make RUST=kernel"
	die "$*, and it has no Rust crate (CONFIG_RUST) either: take a kernel of the distribution that gcc has built"
}

# Stops the build for kernels of whose modules the stand-in crate cannot make one.
check_kernel() {
	[[ $(config_value X86_64) == y ]] ||
		unsuitable "the stand-in crate is for x86-64 so far"
	[[ $(config_value CC_IS_CLANG) != y ]] ||
		unsuitable "the kernel $KVER was built by clang, and the stand-in crate is for kernels that gcc has built"
	[[ $(config_value LTO_CLANG) != y && $(config_value LTO) != y ]] ||
		unsuitable "the kernel $KVER was built with LTO, for which the stand-in crate has no bitcode"
	[[ $(config_value CFI_CLANG) != y && $(config_value CFI) != y ]] ||
		unsuitable "the kernel $KVER was built with kCFI, for which the stand-in crate emits no hashes"
	[[ -n $(config_value CC_VERSION_TEXT) ]] ||
		die "the configuration of $KVER does not name its compiler (CONFIG_CC_VERSION_TEXT), as kernels before 5.10: toa works with Linux 5.10 and later, take such a kernel"
	[[ $(config_value OBJTOOL) != y && $(config_value STACK_VALIDATION) != y || -x $KDIR/tools/objtool/objtool ]] ||
		die "the headers have no $KDIR/tools/objtool/objtool: $(install_command --reinstall "$(objtool_package)")"
}

# Debian's headers link to the tools of another package.
objtool_package() {
	dpkg-query -S "$(readlink -m "$KDIR/tools/objtool/objtool")" 2>/dev/null | sed 's/:.*//' | grep . ||
		echo "linux-headers-$KVER"
}

main() {
	parse_arguments "$@"
	find_headers
	[[ $(config_value RUST) != y ]] || OTHER_CHOICE=", or make RUST=kernel"
	check_kernel
	find_rustc
	check_cc
	stop_if_lacking
	if [[ $PRINT == vars ]]; then
		make_vars RUSTC="$RUSTC" CLIPPY_DRIVER="$(tool_beside clippy-driver)"
	else
		echo "$KDIR"
	fi
}

main "$@"
