#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Builds the module for each kernel that the archive has, and for the small kernels of
# tests/kernels. Runs the tests on it, and writes the results into the README's table.
#
#   matrix.sh run      build, test and write; the last line is "N passed, N failed,
#                      N skipped", in which each built module counts as one
#   matrix.sh table    only write the table, from the results in build/matrix
#
# MATRIX=   the kernels, by their names for KERNEL= (see kernel.sh); with :build
#           appended, the module is only built:
#           MATRIX="trixie-backports trixie-backports-rt:build"
#
# The small kernels run the short set of tests/short.txt, and the demonstration.
#
# Rows of other kernels stay as they are. A kernel that the archive does not have is
# skipped, with the reason.

. "$(dirname "$0")/lib.sh"
shopt -s inherit_errexit

ROWS=$REPO/build/matrix
README=$REPO/README.md

# All names, in the table's order.
names() {
	local suite
	printf '%s\n' bullseye bullseye-amd64 bookworm bookworm-amd64 bookworm-rt trixie trixie-amd64 trixie-rt
	for suite in trixie-backports forky sid experimental; do
		printf '%s\n' "$suite" "$suite-amd64" "$suite-rt"
	done
	find "$REPO/tests/kernels" -name 'like-*.config' -printf '%f\n' | sed 's/\.config$//' | sort
}

flavour_of() {
	case $1 in
	like-*) echo "built here, imitates $(of_small "$1" Imitates)" ;;
	*-rt) echo "PREEMPT_RT" ;;
	*-amd64) echo "full" ;;
	*) echo "cloud" ;;
	esac
}

# row NAME KERNEL STATE: keeps a row for the table.
row() {
	printf "| \`%s\` | %s | %s |\n" "$@" >"$ROWS/$1.row"
	info "matrix: $1: ${2:+$2: }$3"
}

# The first reason that kernel.sh gave.
reason() {
	sed -n -e 's/^kernel.sh: passing over [^ ]* [^ ]*: \(.*\)/\1/p' \
		-e 's/^kernel.sh: \(no .*\) fits: skipped$/\1 in the archive/p' "$1" | sed -n 1p
}

# The first error that a script or rustc printed, or the log's name.
why_not_built() {
	grep -oP '^([a-z-]+\.sh|error(\[E\d+\])?): \K.*' "$1" | sed '1!d; s/|/\\|/g' ||
		echo "see ${1#"$REPO/"}"
}

# one NAME[:build]: appends "PASSED FAILED SKIPPED" lines to RESULTS.
one() {
	# shellcheck disable=SC2034 # what kernel.sh prints
	local name=${1%:build} found status=0 release version source binary rustc rustc_text small
	export KERNEL=$name
	found=$("$SCRIPTS/kernel.sh" resolve 2>"$ROWS/$name.log") || status=$?
	case $status in
	0) eval "$found" ;;
	"$NO_KERNEL")
		row "$name" "" "skipped: $(reason "$ROWS/$name.log")"
		echo "0 0 1" >>"$RESULTS"
		return
		;;
	*) cat "$ROWS/$name.log" >&2 && exit "$status" ;;
	esac
	stage "module for $name" "$SCRIPTS/vm-test.sh" module 2>&1 | tee "$ROWS/$name.build" >&2 || status=$?
	case $status in
	0) echo "1 0 0" >>"$RESULTS" ;;
	"$ARCHIVE_UNAVAILABLE") exit "$status" ;;
	*)
		row "$name" "$version, $(flavour_of "$name")" "does not build: $(why_not_built "$ROWS/$name.build")"
		echo "0 1 0" >>"$RESULTS"
		return
		;;
	esac
	if [[ $1 == *:build ]]; then
		row "$name" "$version, $(flavour_of "$name")" "built only"
	else
		tests "$name"
	fi
}

# The demonstration of a small kernel counts as one test.
demo() {
	local status=0
	[[ $1 == like-* ]] || return 0
	stage "demo on $1" "$SCRIPTS/test.sh" demo >&2 || status=$?
	[[ $status == 0 ]] && echo "1 0 0" || echo "0 1 0"
}

tests() {
	local name=$1 results=$ROWS/$1.results status=0 counts state short=
	: >"$results"
	[[ $name != like-* ]] || short=1
	stage "tests on $name" env "TOA_RESULTS=$results" "SHORT=$short" "$SCRIPTS/test.sh" vm >&2 || status=$?
	[[ $status != "$ARCHIVE_UNAVAILABLE" ]] || exit "$status"
	demo "$name" >>"$results"
	counts=$(sum_results "$results")
	case $counts in
	"0 passed"*) state="built; the tests did not run" ;;
	*" 0 failed"*) state="tested: ${counts/, 0 failed/}" ;;
	*) state="built; ${counts%, *}" ;;
	esac
	cat "$results" >>"$RESULTS"
	row "$name" "$version, $(flavour_of "$name")" "${state%, 0 skipped}, $(date +%F)"
}

# Writes the table between the two comments: this run's rows replace older ones.
table() {
	local name rows
	mkdir -p "$ROWS"
	rows=$(
		printf '%s\n' "| \`KERNEL=\` | kernel | state |" "|---|---|---|"
		while read -r name; do
			cat "$ROWS/$name.row" 2>/dev/null || grep -F "| \`$name\` |" "$README" || true
		done < <(names)
	)
	grep -q '^<!-- matrix' "$README" || die "README.md has no place for the table: a line with <!-- matrix"
	awk -v rows="$rows" '/^<!-- end of matrix/ { print rows; skip = 0 } !skip { print } /^<!-- matrix/ { skip = 1 }' \
		"$README" >"$ROWS/README"
	cat "$ROWS/README" >"$README"
	info "$rows"
}

run() {
	local names counts
	read -ra names <<<"${MATRIX:-$(names | paste -sd' ')}"
	for name in "${names[@]}"; do
		names | grep -xF -- "${name%:build}" >/dev/null || die "$name is no kernel of the matrix: see --help"
	done
	mkdir -p "$ROWS"
	RESULTS=$ROWS/results
	: >"$RESULTS"
	start_stages
	stage "root of tools" "$SCRIPTS/root.sh" make tools
	for name in "${names[@]}"; do
		one "$name"
	done
	table
	stage_table >&2
	counts=$(sum_results "$RESULTS")
	echo "$counts"
	[[ $counts == *" 0 failed"* && $counts != "0 passed"* ]]
}

main() {
	case ${1:-} in
	run) run ;;
	table) table ;;
	-h | --help | help) usage ;;
	*) usage 1 >&2 ;;
	esac
}

main "$@"
