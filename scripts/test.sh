#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The tests. The last line is always "N passed, N failed, N skipped".
#
#   test.sh all     host tests, then the tests in a virtual machine
#   test.sh host    tests that need no kernel
#   test.sh vm      tests in a virtual machine only
#   test.sh unload  a hundred loads and unloads, in virtual machines
#   test.sh servers tests of servers that need a larger virtual machine's image
#   test.sh secure-boot
#                   tests of a machine with Secure Boot
#   test.sh packages
#                   tests of tarballs and packages that need no virtual machine
#   test.sh demo    no tests: the module at work, in a virtual machine
#
# KERNEL= says which kernel, see kernel.sh; one that the archive cannot serve
# now is counted as skipped. If the archive cannot be reached at all, the run
# ends with the words "archive unavailable" and status 75.

. "$(dirname "$0")/lib.sh"
shopt -s inherit_errexit

# "PASSED FAILED SKIPPED" of each part of the run.
RESULTS=${TOA_RESULTS:-$REPO/build/results}
LOG=$REPO/build/host-test.log
SUMMARY=$REPO/build/vm-summary

host() {
	local status=0 counts
	stage "host tests" "$0" cargo-test || status=$?
	counts=$(awk '/^test result: / { p += $4; f += $6; s += $8 } END { print p + 0, f + 0, s + 0 }' "$LOG")
	# Cargo fails without a failed test if something does not compile.
	[[ $status == 0 || $counts == *' '[1-9]*' '* ]] || counts="${counts%% *} 1 ${counts##* }"
	echo "$counts" >>"$RESULTS"
}

cargo_test() {
	local crates status=0
	: >"$LOG"
	for crates in tests peer; do
		CARGO_TARGET_DIR=$REPO/build/target "$SCRIPTS/root.sh" run tools \
			cargo test --locked --workspace --no-fail-fast --manifest-path "$REPO/$crates/Cargo.toml" 2>&1 |
			tee -a "$LOG" >&2 || status=$?
	done
	return "$status"
}

# The tests on one kernel, after `prepare` made all that they need.
vm() {
	boot "tests on $KERNEL" test
	boot "tests on $KERNEL without IPv6" test-no-ipv6
}

unload() {
	boot "a hundred loads on $KERNEL" test-unload
	boot "loads on $KERNEL with one processor" test-one-cpu
}

# boot NAME ACTION: counts what that action of vm-test.sh finds. It may also fail
# before it counts, or after.
boot() {
	local status=0 counts
	rm -f "$SUMMARY"
	stage "$1" "$SCRIPTS/vm-test.sh" "$2" || status=$?
	[[ -s $SUMMARY ]] || echo "0 1 0" >"$SUMMARY"
	counts=$(cat "$SUMMARY")
	[[ $status == 0 || $counts != *" 0 "* ]] || counts="${counts%% *} 1 ${counts##* }"
	echo "$counts" >>"$RESULTS"
}

# prepare WHAT…: the stages before a test, and what it means if one fails.
prepare() {
	local status=0
	"$SCRIPTS/vm-test.sh" "$@" || status=$?
	case $status in
	0) return ;;
	"$ARCHIVE_UNAVAILABLE")
		stage_table >&2
		echo "archive unavailable"
		exit "$status"
		;;
	"$NO_KERNEL") echo "0 0 1" >>"$RESULTS" ;;
	*) echo "0 1 0" >>"$RESULTS" ;;
	esac
	return "$status"
}

all() {
	local status=0
	prepare roots || status=$?
	host
	[[ $status != 0 ]] || ! prepare builds || vm
}

servers() {
	prepare roots && stage "larger guest image" "$SCRIPTS/vm-image.sh" guest guest-more >/dev/null &&
		prepare builds && boot "servers on $KERNEL" test-servers
}

secure_boot() {
	local status=0
	stage "firmware and keys" "$SCRIPTS/secure-boot.sh" keys || status=$?
	case $status in
	0) ;;
	"$NO_KERNEL") echo "0 0 1" >>"$RESULTS" && return ;;
	*) echo "0 1 0" >>"$RESULTS" && return ;;
	esac
	stage "modules signed by DKMS" "$SCRIPTS/secure-boot.sh" modules || { echo "0 1 0" >>"$RESULTS" && return; }
	boot "Secure Boot on $KERNEL" test-secure-boot
	stage "prebuilt tarballs" "$SCRIPTS/secure-boot.sh" prebuilt || { echo "0 1 0" >>"$RESULTS" && return; }
	boot "prebuilt tarballs on $KERNEL" test-prebuilt
}

# Each of these counts by itself, unless it could not begin.
PACKAGE_TESTS=(dist prebuilt matrix)

packages() {
	local test counted status
	for test in "${PACKAGE_TESTS[@]}"; do
		counted=$(wc -l <"$RESULTS")
		status=0
		stage "tests of $test" env "TOA_RESULTS=$RESULTS" "$REPO/tests/$test-test.sh" >&2 || status=$?
		[[ $status != "$ARCHIVE_UNAVAILABLE" ]] || { echo "archive unavailable" && exit "$status"; }
		[[ $(wc -l <"$RESULTS") == "$counted" ]] || continue
		case $status in
		"$NO_KERNEL") echo "0 0 1" >>"$RESULTS" ;;
		*) echo "0 1 0" >>"$RESULTS" ;;
		esac
	done
}

demo() {
	"$SCRIPTS/vm-test.sh" roots
	"$SCRIPTS/vm-test.sh" builds
	exec "$SCRIPTS/vm-test.sh" demo
}

# Closes the run. A run that is part of another one leaves that to it.
total() {
	local counts
	[[ -z ${TOA_RESULTS:-} ]] || return 0
	stage_table >&2
	counts=$(sum_results "$RESULTS")
	echo "$counts"
	[[ $counts == *" 0 failed"* && $counts != "0 passed"* ]]
}

main() {
	local action=${1:-}
	export KERNEL=${KERNEL:-trixie-backports}
	mkdir -p "$REPO/build"
	start_stages
	case $action in
	demo) demo ;;
	cargo-test) cargo_test ;;
	all | host | vm | unload | servers | secure-boot | packages)
		[[ -n ${TOA_RESULTS:-} ]] || : >"$RESULTS"
		case $action in
		all) all ;;
		host | packages) "$action" ;;
		vm | unload) ! prepare roots || ! prepare builds || "$action" ;;
		servers) servers || true ;;
		secure-boot) ! prepare roots || ! prepare builds || secure_boot ;;
		esac
		total
		;;
	-h | --help | help) usage ;;
	*) usage 1 >&2 ;;
	esac
}

main "$@"
