#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Tests of the kernel matrix: its counts, and the rows that it writes to the README.
#
#   matrix-test.sh [CASE…]
#
# The archive, the builds and the virtual machines are stand-ins. Prints TAP.

. "$(dirname "$0")/../scripts/lib.sh"
. "$REPO/tests/cases.sh"

# set_stage: makes a project whose archive has two kernels and whose README has a
# table.
set_stage() {
	mkdir -p project/scripts project/tests/kernels
	printf '%s\n' "# Source: linux-source-1.0 of trixie" "# Imitates: Example 9 (1.0)" \
		>project/tests/kernels/like-example.config
	cp "$SCRIPTS/lib.sh" "$SCRIPTS/matrix.sh" project/scripts/
	cat >project/README.md <<-'README'
		Before.
		<!-- matrix: of a test -->
		| `KERNEL=` | kernel | state |
		|---|---|---|
		| `sid` | 1.0-1, cloud | tested: 9 passed |
		| `sid-rt` | 1.0-1, PREEMPT_RT | built only |
		<!-- end of matrix -->
		After.
	README
	stand_in root.sh <<<"exit 0"
	stand_in kernel.sh <<-'STUB'
		case $KERNEL in
		trixie-backports | trixie-rt | sid | like-example) printf '%s=%q\n' release 7.9 version 7.9-1 source s binary b rustc r rustc_text t ;;
		sid-amd64)
			echo "kernel.sh: passing over linux-headers-7.9 7.9-1: no linux-source-7.9 of that version" >&2
			echo "kernel.sh: no amd64 kernel of sid fits: skipped" >&2
			exit 77
			;;
		forky)
			echo "kernel.sh: no cloud-amd64 kernel of forky fits: skipped" >&2
			exit 77
			;;
		*) exit 75 ;;
		esac
	STUB
	builds "exit 0"
	tests "20 0 0" "5 0 1"
}

stand_in() {
	{ echo '#!/bin/bash' && cat; } >"project/scripts/$1"
	chmod +x "project/scripts/$1"
}

builds() {
	stand_in vm-test.sh <<<"$1"
}

# tests COUNTS…: makes a stand-in whose tests report these counts.
tests() {
	printf '%s\n' "$@" >counts
	stand_in test.sh <<<"cat '$PWD/counts' >>\"\$TOA_RESULTS\""
}

# matrix STATUS LAST-LINE KERNELS: runs the matrix and compares the README's rows
# with standard input.
matrix() {
	local status=0
	TOA_STAGES='' MATRIX=$3 project/scripts/matrix.sh run >out 2>err || status=$?
	same "status ($(<err))" "$1" "$status"
	same "last line" "$2" "$(tail -n 1 out)"
	same "README" "$(printf '%s\n' Before. '<!-- matrix: of a test -->' "| \`KERNEL=\` | kernel | state |" '|---|---|---|' \
		"$(cat)" '<!-- end of matrix -->' After.)" "$(sed "s/, $(date +%F) |/, today |/" project/README.md)"
}

case_tested_and_built_only_are_told_apart_and_other_rows_stay() {
	set_stage
	matrix 0 "27 passed, 0 failed, 1 skipped" "trixie-backports sid:build" <<-'ROWS'
		| `trixie-backports` | 7.9-1, cloud | tested: 25 passed, 1 skipped, today |
		| `sid` | 7.9-1, cloud | built only |
		| `sid-rt` | 1.0-1, PREEMPT_RT | built only |
	ROWS
}

case_kernel_that_cannot_be_had_is_skipped_with_its_reason() {
	set_stage
	matrix 0 "1 passed, 0 failed, 2 skipped" "forky sid:build sid-amd64" <<-'ROWS'
		| `forky` |  | skipped: no cloud-amd64 kernel of forky in the archive |
		| `sid` | 7.9-1, cloud | built only |
		| `sid-amd64` |  | skipped: no linux-source-7.9 of that version |
		| `sid-rt` | 1.0-1, PREEMPT_RT | built only |
	ROWS
}

case_build_that_fails_is_red() {
	set_stage
	builds "exit 1"
	matrix 1 "0 passed, 1 failed, 0 skipped" "sid" <<-'ROWS'
		| `sid` | 7.9-1, cloud | does not build: see build/matrix/sid.build |
		| `sid-rt` | 1.0-1, PREEMPT_RT | built only |
	ROWS
	builds "echo 'error[E0308]: mismatched types'; echo 'error: aborting'; exit 2"
	matrix 1 "0 passed, 1 failed, 0 skipped" "sid" <<-'ROWS'
		| `sid` | 7.9-1, cloud | does not build: mismatched types |
		| `sid-rt` | 1.0-1, PREEMPT_RT | built only |
	ROWS
	builds "echo 'metadata.sh: /a|b has 1 MB free' >&2; echo 'root.sh: failed' >&2; exit 1"
	matrix 1 "0 passed, 1 failed, 0 skipped" "sid" <<-'ROWS'
		| `sid` | 7.9-1, cloud | does not build: /a\|b has 1 MB free |
		| `sid-rt` | 1.0-1, PREEMPT_RT | built only |
	ROWS
}

case_tests_that_fail_are_red() {
	set_stage
	tests "24 1 0"
	matrix 1 "25 passed, 1 failed, 0 skipped" "sid" <<-'ROWS'
		| `sid` | 7.9-1, cloud | built; 24 passed, 1 failed, today |
		| `sid-rt` | 1.0-1, PREEMPT_RT | built only |
	ROWS
}

case_tests_that_do_not_run_are_red() {
	set_stage
	tests "0 1 0"
	matrix 1 "1 passed, 1 failed, 0 skipped" "sid" <<-'ROWS'
		| `sid` | 7.9-1, cloud | built; the tests did not run, today |
		| `sid-rt` | 1.0-1, PREEMPT_RT | built only |
	ROWS
}

case_small_kernel_runs_the_short_set_and_the_demo() {
	set_stage
	stand_in test.sh <<-'STUB'
		[[ $1 != vm || $SHORT != 1 ]] || echo "2 0 0" >>"$TOA_RESULTS"
	STUB
	matrix 0 "4 passed, 0 failed, 0 skipped" "like-example" <<-'ROWS'
		| `sid` | 1.0-1, cloud | tested: 9 passed |
		| `sid-rt` | 1.0-1, PREEMPT_RT | built only |
		| `like-example` | 7.9-1, built here, imitates Example 9 (1.0) | tested: 3 passed, today |
	ROWS
	stand_in test.sh <<-'STUB'
		[[ $1 == vm ]] || exit 1
		echo "2 0 0" >>"$TOA_RESULTS"
	STUB
	matrix 1 "3 passed, 1 failed, 0 skipped" "like-example" <<-'ROWS'
		| `sid` | 1.0-1, cloud | tested: 9 passed |
		| `sid-rt` | 1.0-1, PREEMPT_RT | built only |
		| `like-example` | 7.9-1, built here, imitates Example 9 (1.0) | built; 2 passed, 1 failed, today |
	ROWS
}

case_without_an_archive_there_is_no_answer() {
	set_stage
	no_answer experimental
	builds "exit 75"
	no_answer sid
	builds "exit 0"
	stand_in test.sh <<<"exit 75"
	no_answer sid
}

# no_answer KERNEL
no_answer() {
	local status=0
	cp project/README.md before
	TOA_STAGES='' MATRIX=$1 project/scripts/matrix.sh run >out 2>err || status=$?
	same "status" 75 "$status"
	same "README" "$(<before)" "$(<project/README.md)"
}

case_unknown_kernels_are_refused() {
	set_stage
	fails 1 "matrix.sh: buster is no kernel of the matrix: see --help" \
		env MATRIX=buster project/scripts/matrix.sh run
}

cases_main "$@"
