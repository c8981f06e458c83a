#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Checks a module that was built with the stand-in crate, by binutils alone.
#
#   check-object.sh MODULE.ko KDIR
#
#   KDIR   the kernel's build directory: its configuration and its exports
#
# modpost and objtool see some of this, and the loader the rest, on the server:
#
#   - only relocations that the kernel's loader has, in sections that are loaded
#   - no undefined symbol but exports
#   - no code that panics
#   - no vector register
#   - no plain return or indirect branch where the configuration has thunks
#
# Exits 1 with one line for each violation.

. "$(dirname "$0")/lib.sh"

readonly RELOCATIONS='R_X86_64_(64|32S|PC32|PLT32)'

violation() {
	echo "$(basename "$MODULE"): $*" >&2
	VIOLATIONS=yes
}

# The first few lines of stdin, on one line; nothing if there are none.
few() {
	awk 'NR <= 3 { printf "%s%s", (NR > 1 ? ", " : ""), $0 } NR == 4 { printf ", …" }'
}

# "SECTION TYPE SYMBOL" of each relocation. Debugging sections are not loaded.
relocations() {
	readelf -rW "$MODULE" | awk '
		/^Relocation section/ { section = $3; gsub(/\047|\.rela/, "", section) }
		$3 ~ /^R_/ && section !~ /^\.debug/ { print section, $3, $5 }'
}

check_relocations() {
	local found
	found=$(relocations | grep -vE "^[^ ]+ $RELOCATIONS " | sort -u | few || true)
	[[ -z $found ]] || violation "relocations that the kernel's loader does not have: $found"
}

check_undefined() {
	local found
	found=$(comm -23 <(nm --undefined-only --just-symbols "$MODULE" | sort -u) \
		<(awk '{ print $2 }' "$KDIR/Module.symvers" | sort -u) | few)
	[[ -z $found ]] || violation "symbols that the kernel does not export: $found"
}

check_panics() {
	local found
	found=$(nm "$MODULE" | awk '{ print $NF }' | grep -E 'panick?ing|panic_|rust_begin_unwind' | few || true)
	[[ -z $found ]] || violation "code that panics: $found"
}

# check_code WHAT PATTERN: no instruction, as objdump prints them, has the pattern.
check_code() {
	local found
	found=$(grep -E "$2" "$TMP/code" | sed 's/.*\t//' | sort -u | few || true)
	[[ -z $found ]] || violation "$1: $found"
}

config() {
	grep -qxE "CONFIG_($1)=y" "$KDIR/.config"
}

main() {
	[[ ${1:-} != -h && ${1:-} != --help ]] || usage
	[[ $# == 2 ]] || usage 1 >&2
	MODULE=$1 KDIR=$2 VIOLATIONS=
	TMP=$(mktemp -d)
	trap 'rm -rf "$TMP"' EXIT
	objdump -d --no-show-raw-insn "$MODULE" >"$TMP/code"
	grep -q 'call ' "$TMP/code" || die "objdump finds no code in $MODULE"

	check_relocations
	check_undefined
	check_panics
	check_code "vector registers, which kernel code must not use" '%([xyz]?mm[0-9]|st\>)'
	! config 'MITIGATION_RETHUNK|RETHUNK' ||
		check_code "plain returns, though the kernel has return thunks" $'\t((repz?|bnd|notrack) )*l?ret'
	! config 'MITIGATION_RETPOLINE|RETPOLINE' ||
		check_code "indirect branches, though the kernel has retpolines" $'\t((repz?|bnd|notrack) )*l?(call|jmp)[a-z]* +\\*'
	[[ -z $VIOLATIONS ]]
}

main "$@"
