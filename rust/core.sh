#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Compiles Rust's `core` from rust-src, or takes it from the cache.
#
#   core.sh CACHE LIBRARY OUT TARGET.json COMPILER [OPTION…]
#
# The result depends on the compiler, its options, the target and the library, not on the kernel. The
# cache is a directory with a file for each combination; those unused for a month are removed.

set -eu

cache=$1 library=$2 out=$3 target=$4
shift 4

[ -e "$library/core/src/lib.rs" ] || {
	echo "toa: the source of Rust's core library is missing ($library/core/src/lib.rs): apt install rust-src" >&2
	exit 1
}

# Options and target without the names of directories.
key=$({
	env "$@" -vV 2>/dev/null || env "$1" "$2" -vV
	cat "$target" "$library/core/Cargo.toml"
	printf '%s\n' "$@" | sed -e '/^--target=/d' -e '/standin$/d'
} | sha256sum | cut -c 1-16)
kept=$cache/libcore-$key.rlib

if [ ! -s "$kept" ]; then
	mkdir -p "$cache"
	new=$cache/.libcore-$key.$$.rlib
	trap 'rm -f "$new"' EXIT
	trap 'exit 1' HUP INT TERM
	env "$@" --edition="$(sed -n 's/^edition = "\(.*\)"/\1/p' "$library/core/Cargo.toml")" \
		--cap-lints=allow --cfg no_fp_fmt_parse -Clinker-plugin-lto \
		--crate-name core --crate-type rlib --emit=link="$new" "$library/core/src/lib.rs"
	mv "$new" "$kept"
	find "$cache" -name 'libcore-*.rlib' -mtime +30 -exec rm -f {} +
fi
touch "$kept"
cp "$kept" "$out"
