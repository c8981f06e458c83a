#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Measures the instructions and the memory that the module costs, beside a C module and eBPF, in a
# virtual machine whose clock counts instructions. Prints a table; asserts nothing.
#
#   bench.sh run     build what is needed, then measure
#
# KERNEL=, KVER=   which kernel (see kernel.sh)
# RUST=            which kernel crate, kernel or standin (default: make's choice)
#
# The table is also in build/bench/vm/ktap.log, and its plot in build/bench/cost.svg.

. "$(dirname "$0")/lib.sh"
shopt -s inherit_errexit

BENCH=$REPO/build/bench

run() {
	local found release made
	"$SCRIPTS/vm-test.sh" builds
	stage "modules to compare" "$SCRIPTS/vm-test.sh" bench-objects
	found=$("$SCRIPTS/kernel.sh" resolve)
	eval "$found"
	made=$REPO/build/$release${RUST:+-$RUST}
	rm -rf "$BENCH"
	mkdir -p "$BENCH/payload/bin"
	cp "$made/module/toa.ko" "$made"/bench/*.{ko,o} "$BENCH/payload/"
	cp "$REPO/build/target/release/toa-guest" "$BENCH/payload/bin/"
	export VM_DIR=$BENCH/vm VM_OPTIONS="--plain --icount --idle 1200 --timeout 7200 ${VM_OPTIONS:-}"
	stage "benchmark on $release" "$SCRIPTS/vm-test.sh" boot "$BENCH/payload" "exec /toa/bin/toa-guest bench"
	"$SCRIPTS/root.sh" run "$TOOLS" "$REPO/build/target/release/toa-plot" "$VM_DIR/out/bench.tsv" >"$BENCH/cost.svg"
	info "the plot: $BENCH/cost.svg"
}

case ${1:-} in
run) run ;;
-h | --help | help) usage ;;
*) usage 1 >&2 ;;
esac
