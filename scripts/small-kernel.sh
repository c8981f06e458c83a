#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Builds a small kernel from Debian's source, with the options of tests/kernels.
#
#   small-kernel.sh DIRECTORY NAME RELEASE SOURCE
#
# DIRECTORY gets tree/, what the kernel would install, and headers/, what building a module
# takes. SOURCE is the package of the source, such as linux-source-6.12. kernel.sh runs this in
# the build root.

. "$(dirname "$0")/lib.sh"
shopt -s inherit_errexit

# Lines of the fragment that Kconfig did not follow. An option that the source does not
# have is as good as off.
lost() {
	local line option
	while read -r line; do
		case $line in
		'#'*) option=$(awk '{ print $2 }' <<<"$line") && ! grep -q "^$option=" .config || echo "$line" ;;
		*) grep -qxF -- "$line" .config || echo "$line" ;;
		esac
	done <"$1"
}

# The compiler that the fragment names, or gcc.
set_compiler() {
	local clang
	clang=$(of_small "$NAME" Compiler)
	MAKE=(make -s ${clang:+"LLVM=${clang#clang}"})
}

configure() {
	local lost
	options_of_small "$NAME" >toa.config
	echo "CONFIG_LOCALVERSION=\"-$NAME\"" >>toa.config
	# With CONFIG_EXPERT, allnoconfig turns off what other kernels cannot be without: futexes, sysfs and
	# more. So CONFIG_EXPERT comes when those have their values.
	grep -vxF CONFIG_EXPERT=y toa.config >toa.first.config
	"${MAKE[@]}" KCONFIG_ALLCONFIG=toa.first.config allnoconfig
	! grep -qxF CONFIG_EXPERT=y toa.config || {
		cat toa.config >>.config
		"${MAKE[@]}" olddefconfig
	}
	lost=$(lost toa.config)
	[[ -z $lost ]] || die "$NAME: the source does not take: $(paste -sd ' ' <<<"$lost")"
}

# What an external module reads, as scripts/package/install-extmod-build has it.
headers() {
	local dir=$1
	{
		find . arch/x86 -maxdepth 1 -name 'Makefile*'
		find include scripts arch/x86/include -type f -o -type l
		find arch/x86 -name Kbuild.platforms -o -name Platform
		find tools/objtool/objtool certs/signing_key.* -maxdepth 0 2>/dev/null || true
		find rust -maxdepth 1 '(' -name '*.rmeta' -o -name '*.so' ')'
		echo .config
		echo Module.symvers
	} | grep -vE '\.(o|cmd)$|/\.' >list
	echo .config >>list
	mkdir -p "$dir"
	tar -c -T list | tar -x -C "$dir"
}

main() {
	local dir=$1 source=$4
	NAME=$2 RELEASE=$3
	# In memory, which goes with the root's mounts.
	mkdir -p "$dir" /tmp/source
	tar -xf "/usr/src/$source.tar.xz" -C /tmp/source --strip-components 1
	cd /tmp/source
	set_compiler
	configure
	"${MAKE[@]}" -j"$(nproc)" bzImage modules
	[[ $(<include/config/kernel.release) == "$RELEASE" ]] ||
		die "the source is $(<include/config/kernel.release), not $RELEASE"
	mkdir -p "$dir/tree/boot"
	cp arch/x86/boot/bzImage "$dir/tree/boot/vmlinuz"
	"${MAKE[@]}" INSTALL_MOD_PATH="$dir/tree/usr" modules_install
	rm -f "$dir/tree/usr/lib/modules/$RELEASE"/{build,source}
	headers "$dir/headers"
}

case ${1:-} in
-h | --help | help) usage ;;
*) [[ $# == 4 ]] || usage 1 >&2 ;;
esac
main "$@"
