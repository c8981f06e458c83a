#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Runs the litmus tests of tests/litmus under the kernel's memory model (tools/memory-model of the
# kernel's source) with herdtools7. Each file names its result. A file NAME-weak.litmus lacks one
# ordering of NAME.litmus, so that its result shows what the ordering is for.

. "$(dirname "$0")/../scripts/lib.sh"
shopt -s inherit_errexit

RESULTS=${TOA_RESULTS:-$REPO/build/results}

# Runs in the root: prints "FILE EXPECTED FOUND" lines.
herd() {
	local file model=/tmp/model found expected
	mkdir -p "$model"
	tar -xf /usr/src/linux-source-*.tar.xz -C "$model" --strip-components 3 --wildcards 'linux-source-*/tools/memory-model/*'
	cd "$model"
	for file in "$REPO"/tests/litmus/*.litmus; do
		found=$(herd7 -conf linux-kernel.cfg "$file" 2>&1 | sed -n 's/^Observation [^ ]* \([^ ]*\) .*/\1/p')
		expected=$(sed -n 's/^ \* Result: //p' "$file")
		echo "${file##*/} ${expected:-none} ${found:-none}"
	done
}

main() {
	local file expected found passed=0 failed=0 lines
	lines=$("$SCRIPTS/root.sh" run litmus "$0" herd)
	while read -r file expected found; do
		if [[ $expected == "$found" ]]; then
			passed=$((passed + 1))
			info "ok $file: $found"
		else
			failed=$((failed + 1))
			info "not ok $file: $found, and $expected is expected"
		fi
	done <<<"$lines"
	echo "$passed $failed 0" >>"$RESULTS"
	[[ $failed == 0 && $passed -gt 0 ]]
}

case ${1:-} in
herd) herd ;;
*)
	mkdir -p "$REPO/build"
	main
	;;
esac
