#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Compiles Rust's `core` from rust-src, or takes it from the cache.
#
#   core.sh CACHE LIBRARY OUT TARGET.json COMPILER [OPTION…]
#
# The result depends on the compiler, its options, the target and the library, not on the kernel. The
# cache is a directory with a file for each combination, whose name ends with the file's checksum: a
# damaged file is made again. Files that nothing has used for a month are removed. The directory is
# locked for that time, shared by the builds that only copy.

set -eu

cache=$1 library=$2 out=$3 target=$4
shift 4

die() {
	echo "core.sh: $*" >&2
	exit 1
}

[ -e "$library/core/src/lib.rs" ] ||
	die "the source of Rust's core library is missing ($library/core/src/lib.rs): apt install rust-src"

# Options and target without the names of directories.
key=$({
	env "$@" -vV 2>/dev/null || env "$1" "$2" -vV
	cat "$target" "$library/core/Cargo.toml"
	printf '%s\n' "$@" | sed -e '/^--target=/d' -e '/standin$/d'
} | sha256sum | cut -c 1-16)

lock() {
	flock --nonblock "$1" 7 || {
		echo "  waiting for another build that uses $cache"
		flock "$1" 7
	}
}

checksum() {
	sha256sum "$1" | cut -c 1-16
}

# Copies the file of this key to OUT, if the cache has an intact one.
copy() {
	for kept in "$cache/libcore-$key"-*.rlib; do
		[ -e "$kept" ] || return 1
		cp "$kept" "$out.new" || die "cannot copy $kept to $out: make room there"
		if [ "$kept" = "$cache/libcore-$key-$(checksum "$out.new").rlib" ]; then
			mv "$out.new" "$out"
			touch "$kept" 2>/dev/null || true
			return 0
		fi
		rm -f "$kept" "$out.new"
	done
	return 1
}

# Needs the room of the file, and of the library's metadata that the compiler writes beside it.
compile() {
	free=$(df -Pm "$cache" | awk 'NR == 2 { print $4 }')
	[ "$free" -ge 120 ] || die "$cache has $free MB free, and core takes 120 MB: TOA_CORE_CACHE=/some/directory make"
	new=$cache/.libcore-$key.$$.rlib
	trap 'rm -f "$new"' EXIT
	trap 'exit 1' HUP INT TERM
	env "$@" --edition="$(sed -n 's/^edition = "\(.*\)"/\1/p' "$library/core/Cargo.toml")" \
		--cap-lints=allow --cfg no_fp_fmt_parse -Clinker-plugin-lto \
		--crate-name core --crate-type rlib --emit=link="$new" "$library/core/src/lib.rs"
	mv "$new" "$cache/libcore-$key-$(checksum "$new").rlib"
	find "$cache" \( -name 'libcore-*.rlib' -mtime +30 -o -name '.libcore-*.rlib' -mmin +60 \) -exec rm -f {} +
}

mkdir -p "$cache" 2>/dev/null || die "cannot make $cache: TOA_CORE_CACHE=/some/directory make"
exec 7<"$cache"
lock --shared
! copy || exit 0
[ -w "$cache" ] || die "cannot write to $cache: TOA_CORE_CACHE=/some/directory make"
lock --exclusive
copy || { compile "$@" && copy; }
