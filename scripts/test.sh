#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Runs the tests. The last line is always "N passed, N failed, N skipped".
#
#   test.sh all     host tests, then the tests in a virtual machine
#   test.sh host    tests that need no kernel
#   test.sh vm      tests in a virtual machine only
#   test.sh unload  many loads and unloads, in virtual machines
#   test.sh model   random scripts of what happens to sockets, compared with a model
#   test.sh soak    an hour of mixed traffic and hostile segments
#   test.sh servers tests of servers that need a larger guest image
#   test.sh selftests
#                   the kernel's own tests of TCP, without the module and with it
#   test.sh debug   the suite, failed allocations and planted bugs on a debug kernel,
#                   KERNEL=debug unless it names another one
#   test.sh secure-boot
#                   tests of a machine with Secure Boot
#   test.sh packages
#                   tests of tarballs and packages that need no virtual machine
#   test.sh litmus  the module's orderings under the kernel's memory model
#   test.sh fuzz    the fuzzers under AddressSanitizer, TOA_SECONDS= each
#   test.sh deb     all Debian packages, installed, upgraded and purged
#   test.sh deb-short
#                   the first tests of toa-dkms only, and of its repository
#   test.sh demo    no tests: the module at work, in a virtual machine
#
# FILTER="word word"   only the tests in a virtual machine whose names contain one of
#                      the words
# SHORT=1              the tests of tests/short.txt, in the same way
# KERNEL=, KVER=       which kernel (see kernel.sh); one that the archive does not
#                      have is counted as skipped
#
# If the archive cannot be reached, the run ends with the words "archive unavailable"
# and status 75.

. "$(dirname "$0")/lib.sh"
shopt -s inherit_errexit

# "PASSED FAILED SKIPPED" of each part of the run.
RESULTS=${TOA_RESULTS:-$REPO/build/results}
LOG=$REPO/build/host-test.log
# The counts of the last virtual machine.
export TOA_SUMMARY=${TOA_SUMMARY:-$REPO/build/vm-summary}

host() {
	host_tests "host tests" cargo
	host_tests "tests in Go" go
	host_tests "tests in Python" python
	fuzz
}

# host_tests NAME TOOL: runs TOOL's tests, and counts them from their log.
host_tests() {
	local status=0
	stage "$1" "$0" "$2-test" || status=$?
	[[ $status != "$ARCHIVE_UNAVAILABLE" ]] || not_begun "$status"
	count "$status" "$("$2_counts")"
}

# count STATUS PASSED FAILED SKIPPED: collects the counts of a test, which may also fail before or
# after it counts.
count() {
	local status=$1 counts
	read -r -a counts <<<"${*:2}"
	[[ $status == 0 || ${counts[1]} != 0 ]] || counts[1]=1
	echo "${counts[*]}" >>"$RESULTS"
}

cargo_counts() {
	awk '/^test result: / { p += $4; f += $6; s += $8 } END { print p + 0, f + 0, s + 0 }' "$LOG"
}

# Top-level tests and examples.
go_counts() {
	awk '/^--- / { n[$2]++ } END { print n["PASS:"] + 0, n["FAIL:"] + 0, n["SKIP:"] + 0 }' "$LOG-go"
}

# From pytest's last line.
python_counts() {
	tail -n 1 "$LOG-python" | awk '{
		for (i = 2; i <= NF; i++) { word = $i; sub(/[^a-z].*/, "", word); n[word] += $(i - 1) }
	} END { print n["passed"] + 0, n["failed"] + n["error"] + n["errors"], n["skipped"] + 0 }'
}

go_test() {
	: >"$LOG-go"
	"$SCRIPTS/root.sh" run go \
		go test -C "$REPO/peer/go" -v -count=1 -vet=off . 2>&1 | tee "$LOG-go" >&2
}

python_test() {
	: >"$LOG-python"
	"$SCRIPTS/root.sh" run python \
		python3 -m pytest -q -rs "$REPO/peer/python" 2>&1 | tee "$LOG-python" >&2
}

cargo_test() {
	local crates features status=0
	: >"$LOG"
	for crates in tests peer cli; do
		features=()
		[[ $crates != cli ]] || features=(--features dev-tests)
		CARGO_TARGET_DIR=$REPO/build/target "$SCRIPTS/root.sh" run tools \
			cargo test --locked --workspace --no-fail-fast "${features[@]}" --manifest-path "$REPO/$crates/Cargo.toml" 2>&1 |
			tee -a "$LOG" >&2 || status=$?
	done
	return "$status"
}

# Runs the tests on one kernel, after `prepare` made their files.
vm() {
	boot "tests on $KERNEL" test
	boot "tests on $KERNEL without IPv6" test-no-ipv6
}

unload() {
	boot "many loads on $KERNEL" test-unload
	boot "loads on $KERNEL with one processor" test-one-cpu
}

# boot NAME ACTION: runs that action of vm-test.sh, and counts its results.
boot() {
	local status=0
	filtered "$2" || return 0
	rm -f "$TOA_SUMMARY"
	stage "$1" "$SCRIPTS/vm-test.sh" "$2" || status=$?
	[[ $status != "$ARCHIVE_UNAVAILABLE" ]] || not_begun "$status"
	[[ -s $TOA_SUMMARY ]] || echo "0 1 0" >"$TOA_SUMMARY"
	count "$status" "$(cat "$TOA_SUMMARY")"
}

# filtered ACTION: whether the tests of that action have any that FILTER= names.
filtered() {
	[[ -n ${FILTER:-} ]] || return 0
	"$SCRIPTS/vm-test.sh" has-tests "$1"
}

# prepare ACTION…: the stages of vm-test.sh before a test.
prepare() {
	local status=0
	"$SCRIPTS/vm-test.sh" "$@" || status=$?
	[[ $status == 0 ]] || { not_begun "$status" && return "$status"; }
}

# not_begun STATUS: counts a test that could not begin.
not_begun() {
	case $1 in
	"$ARCHIVE_UNAVAILABLE")
		stage_table >&2
		echo "archive unavailable"
		exit "$1"
		;;
	"$NO_KERNEL") echo "0 0 1" >>"$RESULTS" ;;
	*) echo "0 1 0" >>"$RESULTS" ;;
	esac
}

all() {
	local status=0
	prepare roots || status=$?
	host
	[[ $status != 0 ]] || ! prepare builds || vm
}

model() {
	boot "model on $KERNEL" test-model
}

soak() {
	boot "soak on $KERNEL" test-soak
}

servers() {
	prepare roots && made "larger guest image" vm-image.sh guest guest-more &&
		prepare builds && boot "servers on $KERNEL" test-servers
}

# Builds the tests from the kernel's source, unless the cache has them.
selftests() {
	prepare roots && made "guest image for the kernel's own tests" vm-image.sh guest guest-selftests &&
		made "kernel's own tests" selftests.sh make &&
		prepare builds && boot "kernel's own tests on $KERNEL" test-selftests
}

# The kernel is built first, unless the cache has it. Failed allocations run beside the rest, because a
# virtual machine uses one processor. Their output follows, and their stage begins with "|" in the table.
debug() {
	local other=$REPO/build/debug-second beside='' status=0
	if filtered test-faults; then
		rm -rf "$other"
		mkdir -p "$other"
		TOA_RESULTS=$other/results TOA_STAGES=$other/stages TOA_LOGS=$other/log TOA_SUMMARY=$other/summary \
			"$0" faults >"$other/output" 2>&1 &
		beside=$!
	fi
	boot "tests on $KERNEL" test
	boot "planted bugs on $KERNEL" test-planted
	[[ -n $beside ]] || return 0
	wait "$beside" || status=$?
	cat "$other/output" >&2
	[[ $status == 0 ]] || not_begun "$status"
	cat "$other/results" >>"$RESULTS"
	sed "s/^/| /" "$other/stages" >>"$TOA_STAGES"
}

# The part of `debug` that runs beside the rest.
faults() {
	boot "failed allocations on $KERNEL" test-faults
}

secure_boot() {
	made "firmware and keys" secure-boot.sh keys && made "modules signed by DKMS" secure-boot.sh modules || return 0
	boot "Secure Boot on $KERNEL" test-secure-boot
	made "prebuilt tarballs" secure-boot.sh prebuilt || return 0
	boot "prebuilt tarballs on $KERNEL" test-prebuilt
}

# made NAME SCRIPT ACTION…: a stage before a test.
made() {
	local name=$1 script=$2 status=0
	shift 2
	stage "$name" "$SCRIPTS/$script" "$@" >&2 || status=$?
	[[ $status == 0 ]] || { not_begun "$status" && return "$status"; }
}

# cases_of TEST [CASE…]: runs a script in tests/, which counts its own results if it
# could begin.
cases_of() {
	local test=$1 counted status=0
	shift
	counted=$(wc -l <"$RESULTS")
	stage "tests of $test" env "TOA_RESULTS=$RESULTS" "$REPO/tests/$test-test.sh" "$@" >&2 || status=$?
	# A test that cannot reach the archive has written that to RESULTS.
	[[ $status == "$ARCHIVE_UNAVAILABLE" || $(wc -l <"$RESULTS") == "$counted" ]] || return 0
	not_begun "$status"
}

packages() {
	cases_of stages
	cases_of cache
	cases_of dist
	cases_of prebuilt
	cases_of required
	cases_of matrix
	cases_of metadata
	cases_of standin
}

litmus() {
	cases_of litmus
}

fuzz() {
	cases_of fuzz
}

deb() {
	made "Debian packages" deb.sh make || return 0
	cases_of user-space-deb
	cases_of repo
	made "static command" vm-test.sh command-line-tool || return 0
	cases_of doctor
	cases_of deb
}

deb_short() {
	made "toa-dkms" deb.sh make toa || return 0
	cases_of repo make_repo_without_a_key_makes_nothing key_comes_from_the_keyring_or_from_a_file \
		published_files_and_the_key_stay server_fetches_the_sources server_refuses_a_changed_index
	cases_of deb install_upgrade_remove_and_purge_leave_nothing headers_that_come_later_get_toa
}

# Uses the roots that the tests have made, or makes one for the demonstration. The
# programs run in a guest of trixie: a newer Debian's C library is not for them.
demo() {
	local before status=0
	before=$(downloaded)
	step "find a kernel" "$SCRIPTS/kernel.sh" resolve
	[[ $(debian_of_kernel) != trixie ]] || "$SCRIPTS/root.sh" has tools build ||
		export TOA_DEMO_ROOT=demo
	"$SCRIPTS/vm-test.sh" demo-roots
	"$SCRIPTS/vm-test.sh" demo-builds
	shown "demo in a virtual machine" "$SCRIPTS/vm-test.sh" demo || status=$?
	stage_table >&2
	info "$(awk -F'\t' '{ cpu += $4 } END { printf "%d", cpu }' "$TOA_STAGES") s of CPU time," \
		"$((($(downloaded) - before + $(lists_downloaded "$(log_of "find a kernel")")) / 1000000)) MB downloaded"
	return "$status"
}

# The bytes of packages and crates in the cache.
downloaded() {
	find "$TOA_CACHE"/{apt/archives,kernels/debs,cargo/registry/cache} -type f -printf '%s\n' 2>/dev/null |
		awk '{ bytes += $1 } END { printf "%d\n", bytes }' || true
}

# lists_downloaded LOG: the bytes of the package lists that apt has fetched.
lists_downloaded() {
	sed -n 's/^Get:.* \(Packages\|InRelease\) \[\(.*\) \(k\?M\?\)B\]$/\2 \3/p' "$1" |
		awk '{ bytes += $1 * ($2 == "M" ? 1000000 : $2 == "k" ? 1000 : 1) } END { printf "%d\n", bytes }'
}

# Prints the counts, unless this run is part of another one.
total() {
	local counts
	[[ -z ${FILTER:-} || -s $RESULTS ]] ||
		die "no test of this target has a name that contains one of: $FILTER"
	[[ -z ${TOA_RESULTS:-} ]] || return 0
	stage_table >&2
	counts=$(sum_results "$RESULTS")
	echo "$counts"
	[[ $counts == *" 0 failed"* && $counts != "0 passed"* ]]
}

main() {
	local action=${1:-}
	case $action in
	-h | --help | help) usage ;;
	esac
	need_root
	[[ -z ${SHORT:-} ]] || FILTER=$(sed 's/#.*//' "$REPO/tests/short.txt" | xargs)
	export FILTER
	[[ $action != debug ]] || is_debug "${KERNEL:-}" || KERNEL=debug
	export KERNEL=${KERNEL:-trixie-backports}
	mkdir -p "$REPO/build"
	start_stages
	case $action in
	demo) demo ;;
	cargo-test | go-test | python-test) "${action//-/_}" ;;
	all | host | vm | unload | model | soak | servers | selftests | debug | faults | secure-boot | packages | litmus | fuzz | deb | deb-short)
		[[ -n ${TOA_RESULTS:-} ]] || : >"$RESULTS"
		case $action in
		all) all ;;
		host | packages | litmus | fuzz | deb | deb-short) "${action//-/_}" ;;
		vm | unload | model | soak | debug) ! prepare roots || ! prepare builds || "$action" ;;
		servers | selftests) "$action" || true ;;
		faults) faults ;;
		secure-boot) ! prepare roots || ! prepare builds || secure_boot ;;
		esac
		total
		;;
	*) usage 1 >&2 ;;
	esac
}

main "$@"
