#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Runs the fuzzers of tests/fuzz under AddressSanitizer, each for TOA_SECONDS= (10 by default).
#
#   fuzz-test.sh          all fuzzers
#   fuzz-test.sh seeds    no run: copies found inputs that reach more code to tests/fuzz/seeds
#
# TOA_CORPORA= names the directory that keeps found inputs, by default TOA_CACHE/corpora. A run begins
# with them and with tests/fuzz/seeds, and drops those that add no coverage. It works on a copy, and
# runs at the same time keep each other's inputs. An input that fails is left in build/fuzz: copy it to
# tests/fuzz/seeds.
#
# One program, planted, reads out of bounds: it passes if the sanitizer reports that.

. "$(dirname "$0")/../scripts/lib.sh"
shopt -s inherit_errexit

RESULTS=${TOA_RESULTS:-$REPO/build/results}
KEPT=${TOA_CORPORA:-$TOA_CACHE/corpora}
DURATION=${TOA_SECONDS:-10}
FUZZ=$REPO/tests/fuzz
WORK=$REPO/build/fuzz
CORPORA=$WORK/corpora
BUILT=$REPO/build/target/x86_64-unknown-linux-gnu/release
# Longer than the 40 bytes of options in a TCP header, and long enough for a few rules.
readonly LONGEST=96

# In the root. Debian's rustc has the sanitizer's pass but not its runtime, which is clang's. The
# fuzzer itself is clang's too. The flags are those of cargo-fuzz.
build() {
	local flag flags=(-Zsanitizer=address -Zexternal-clangrt -Clink-arg=-fsanitize=address
		-Cpasses=sancov-module -Ccodegen-units=1 -Cdebug-assertions --cfg=fuzzing)
	for flag in level=4 inline-8bit-counters pc-table trace-compares; do
		flags+=("-Cllvm-args=-sanitizer-coverage-$flag")
	done
	env RUSTC_BOOTSTRAP=1 RUSTFLAGS="${flags[*]}" \
		CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER=clang-19 \
		CUSTOM_LIBFUZZER_PATH="$(clang-19 -print-file-name=libclang_rt.fuzzer-x86_64.a)" \
		CARGO_TARGET_DIR="$REPO/build/target" cargo build --quiet --release --locked \
		--target x86_64-unknown-linux-gnu --manifest-path "$FUZZ/Cargo.toml" >&2
}

fuzzers() {
	basename -s .rs "$FUZZ"/fuzz_targets/*.rs | grep -vx planted
}

# program NAME ARGUMENT…
program() {
	ASAN_OPTIONS=external_symbolizer_path=/usr/bin/addr2line "$BUILT/$1" -max_len=$LONGEST -artifact_prefix="$WORK/$1-" "${@:2}" >"$WORK/$1.log" 2>&1
}

# minimised NAME: replaces the corpus by a small part with the same coverage, without the seeds. A merge
# passes over inputs that fail, so all inputs come first.
minimised() {
	local corpus=$CORPORA/$1
	program "$1" -runs=0 "$corpus" "$FUZZ/seeds/$1" || return
	cp -r "$FUZZ/seeds/$1" "$corpus.new"
	program "$1" -merge=1 "$corpus.new" "$corpus" || return
	files "$FUZZ/seeds/$1" | (cd "$corpus.new" && xargs rm -f)
	rm -r "$corpus"
	mv "$corpus.new" "$corpus"
}

# fuzz NAME: the run itself.
fuzz() {
	minimised "$1" &&
		program "$1" -max_total_time="$DURATION" -print_final_stats=1 "$CORPORA/$1" "$FUZZ/seeds/$1" && return
	tail -n 100 "$WORK/$1.log" >&2
	return 1
}

# In the root: prints "ok NAME" or "not ok NAME" for each program.
in_root() {
	local name result
	build
	mkdir -p "$WORK"
	"$BUILT/planted" "$FUZZ/seeds/option/ipv4" >"$WORK/planted.log" 2>&1 || true
	result="not ok planted: the sanitizer sees no read out of bounds"
	! grep -q "AddressSanitizer: heap-buffer-overflow" "$WORK/planted.log" || result="ok planted"
	echo "$result"
	for name in $(fuzzers); do
		result="not ok"
		! fuzz "$name" || result=ok
		echo "$result $name:" "$(found "$name")"
	done
}

# found NAME: what the run has done, from its log.
found() {
	awk -v files="$(find "$CORPORA/$1" -type f | wc -l)" '
		/^stat::number_of_executed_units/ { runs = $2 }
		/^stat::average_exec_per_sec/ { rate = $2 }
		/ cov: / { for (i = 1; i < NF; i++) if ($i == "cov:") cov = $(i + 1) }
		END { printf "%d runs, %d a second, coverage %d, %d inputs kept\n", runs, rate, cov, files }' \
		"$WORK/$1.log"
}

# In the root.
seeds() {
	local name
	build
	mkdir -p "$WORK"
	for name in $(fuzzers); do
		program "$name" -merge=1 -use_counters=0 "$FUZZ/seeds/$name" "$CORPORA/$name"
		tail -n 1 "$WORK/$name.log"
	done
}

enter() {
	"$SCRIPTS/root.sh" run tools env TOA_SECONDS="$DURATION" "$0" "$1"
}

# files DIRECTORY: the names of its files, in order.
files() {
	find "$1" -type f -printf '%P\n' | sort
}

# Copies the kept inputs. The root sees the clone only.
fetch() {
	local name
	rm -rf "$CORPORA"
	for name in $(fuzzers); do
		mkdir -p "$KEPT/$name" "$CORPORA"
		cp -r "$KEPT/$name" "$CORPORA/$name"
		files "$CORPORA/$name" >"$CORPORA/$name.before"
	done
}

# Keeps the inputs that the run found, and removes those that it dropped.
keep() {
	local name
	for name in $(fuzzers); do
		cp -r "$CORPORA/$name" "$KEPT"
		comm -23 "$CORPORA/$name.before" <(files "$CORPORA/$name") | (cd "$KEPT/$name" && xargs rm -f)
	done
}

main() {
	local line lines passed=0 failed=0
	fetch
	lines=$(enter in-root)
	keep
	while read -r line; do
		info "$line"
		case $line in
		ok*) passed=$((passed + 1)) ;;
		*) failed=$((failed + 1)) ;;
		esac
	done <<<"$lines"
	echo "$passed $failed 0" >>"$RESULTS"
	[[ $failed == 0 && $passed -gt 1 ]]
}

case ${1:-} in
in-root) in_root ;;
seeds-in-root) seeds ;;
seeds)
	fetch
	enter seeds-in-root
	;;
'')
	mkdir -p "$REPO/build"
	main
	;;
*) usage 0 ;;
esac
