#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Asserts that scripts/check-object.sh accepts a plain object, and that each of its
# parts rejects an object made for it.
#
#   check-object-test.sh
#
# Run it as `scripts/root.sh run tools tests/check-object-test.sh`.

. "$(dirname "$0")/../scripts/lib.sh"

# A kernel with thunks, and without: its configuration and its exports.
kernels() {
	mkdir -p "$TMP/thunks" "$TMP/plain"
	printf 'CONFIG_MITIGATION_%s=y\n' RETHUNK RETPOLINE >"$TMP/thunks/.config"
	: >"$TMP/plain/.config"
	printf '0x00000000\t%s\tvmlinux\tEXPORT_SYMBOL\t\n' exported __x86_return_thunk _GLOBAL_OFFSET_TABLE_ |
		tee "$TMP/thunks/Module.symvers" >"$TMP/plain/Module.symvers"
}

# object NAME INSTRUCTIONS: with a call of an export, and a return by the thunk.
object() {
	printf '%s\n' .text 'start: call exported' "$2" 'jmp __x86_return_thunk' '.section .debug_info' \
		'.long start' | as -o "$TMP/$1.ko" -
}

# accepted NAME KERNEL
accepted() {
	"$SCRIPTS/check-object.sh" "$TMP/$1.ko" "$TMP/$2" || die "$1.ko is rejected for the kernel with $2"
}

# rejected NAME KERNEL TEXT
rejected() {
	local output
	! output=$("$SCRIPTS/check-object.sh" "$TMP/$1.ko" "$TMP/$2" 2>&1) || die "$1.ko is accepted: $3"
	[[ $output == *"$3"* && $(wc -l <<<"$output") == 1 ]] || die "$1.ko: expected '$3', not '$output'"
}

main() {
	case ${1:-} in
	'') ;;
	-h | --help) usage ;;
	*) usage 1 >&2 ;;
	esac
	TMP=$(mktemp -d)
	trap 'rm -rf "$TMP"' EXIT
	kernels

	object good 'mov %rax, %rbx'
	accepted good thunks
	object got 'call *exported@GOTPCREL(%rip)'
	rejected got plain 'relocations that the kernel'
	object undefined 'call hidden'
	rejected undefined thunks 'symbols that the kernel does not export: hidden'
	object panic $'_RNvNtCs0_4core9panicking9panic_fmt:\nnop'
	rejected panic thunks 'code that panics: _RNvNtCs0_4core9panicking9panic_fmt'
	object vector 'movaps %xmm0, (%rsp)'
	rejected vector thunks 'vector registers'
	object return 'ret'
	rejected return thunks 'plain returns'
	accepted return plain
	object repeated 'repz ret'
	rejected repeated thunks 'plain returns'
	object branch 'jmp *%rax'
	rejected branch thunks 'indirect branches'
	accepted branch plain
	object call 'call *8(%rax)'
	rejected call thunks 'indirect branches'
	object table 'notrack jmp *start(,%rax,8)'
	rejected table thunks 'indirect branches'
	object multimedia 'movq %mm0, (%rsp)'
	rejected multimedia thunks 'vector registers'
	object float 'fld %st(1)'
	rejected float thunks 'vector registers'
	echo "scripts/check-object.sh rejects what it is for" >&2
}

main "$@"
