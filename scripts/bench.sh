#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Measures the instructions and the memory that the module costs, in a virtual
# machine whose clock counts instructions. Prints a table; asserts nothing.
#
#   bench.sh run     build what is needed, then measure
#
# KERNEL=, KVER=   which kernel (see kernel.sh)
# RUST=            which kernel crate, kernel or standin (default: make's choice)
#
# The table is also in build/bench/vm/ktap.log.

. "$(dirname "$0")/lib.sh"
shopt -s inherit_errexit

BENCH=$REPO/build/bench

run() {
	local found release
	"$SCRIPTS/vm-test.sh" builds
	found=$("$SCRIPTS/kernel.sh" resolve)
	eval "$found"
	rm -rf "$BENCH"
	mkdir -p "$BENCH/payload/bin"
	cp "$REPO/build/$release${RUST:+-$RUST}/module/toa.ko" "$BENCH/payload/"
	cp "$REPO/build/target/release/toa-guest" "$BENCH/payload/bin/"
	export VM_DIR=$BENCH/vm VM_OPTIONS="--plain --icount --idle 600 --timeout 1800 ${VM_OPTIONS:-}"
	stage "benchmark on $release" "$SCRIPTS/vm-test.sh" boot "$BENCH/payload" "exec /toa/bin/toa-guest bench"
}

case ${1:-} in
run) run ;;
-h | --help | help) usage ;;
*) usage 1 >&2 ;;
esac
