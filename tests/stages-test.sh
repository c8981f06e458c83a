#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The stages of a run: what test.sh starts, what a step prints, and what FILTER=
# chooses.
#
#   stages-test.sh [CASE…]
#
# The builds and the virtual machines are stand-ins. Run it as root. Prints TAP.

. "$(dirname "$0")/../scripts/lib.sh"
. "$REPO/tests/cases.sh"

# A project whose boots have the tests "quick" and "common", or "common" only.
set_stage() {
	unset TOA_STAGES TOA_RESULTS TOA_SUMMARY TOA_LOGS FILTER TOA_DEMO_ROOT
	export CALLS=$TMP/calls TOA_CACHE=$TMP/cache
	mkdir -p project
	cp -r "$SCRIPTS" project/scripts
	: >calls
	stand_in kernel.sh <<<":"
	stand_in root.sh <<-'STUB'
		[[ $1 != has ]]
	STUB
	stand_in vm-test.sh <<-'STUB'
		echo "$* ${TOA_DEMO_ROOT:-}" >>"$CALLS"
		case "$* $FILTER" in
		"has-tests test quick" | "has-tests "*" common") exit 0 ;;
		has-tests*) exit 1 ;;
		test*) echo "1 0 0" >"$TOA_SUMMARY" ;;
		esac
	STUB
}

stand_in() {
	{ echo '#!/bin/bash' && cat; } >"project/scripts/$1"
}

# booted: the boots of the run, on one line.
booted() {
	sed -n 's/^\(test[^ ]*\) .*/\1/p' calls | paste -sd' '
}

# run STATUS ACTION: its output is in the files out and err.
run() {
	local status=0
	project/scripts/test.sh "$2" >out 2>err || status=$?
	same "status ($(<err))" "$1" "$status"
}

case_filter_boots_only_what_has_such_tests() {
	set_stage
	FILTER=quick run 0 vm
	same "boots" "test" "$(booted)"
	same "last line" "1 passed, 0 failed, 0 skipped" "$(tail -n 1 out)"
}

case_filter_may_choose_tests_of_several_boots() {
	set_stage
	FILTER=common run 0 vm
	same "boots" "test test-no-ipv6" "$(booted)"
	same "last line" "2 passed, 0 failed, 0 skipped" "$(tail -n 1 out)"
}

case_filter_that_chooses_nothing_is_red() {
	set_stage
	FILTER=frobnicate run 1 vm
	same "boots" "" "$(booted)"
	same "message" "test.sh: no test of this target has a name that contains one of: frobnicate" "$(tail -n 1 err)"
}

case_without_a_filter_all_is_booted() {
	set_stage
	run 0 vm
	same "boots" "test test-no-ipv6" "$(booted)"
	same "asked" "" "$(grep has-tests calls)"
}

case_demo_has_its_own_root_and_builds() {
	set_stage
	run 0 demo
	same "calls" "demo-roots demo
demo-builds demo
demo demo" "$(<calls)"
	has "downloads" "0 s of CPU time, 0 MB downloaded" "$(tail -n 1 err)"
}

case_demo_of_a_newer_debian_keeps_its_programs_apart() {
	set_stage
	KERNEL=sid run 0 demo
	same "first call" "demo-roots " "$(head -n 1 calls)"
}

case_demo_takes_roots_that_are_there() {
	set_stage
	stand_in root.sh <<<":"
	run 0 demo
	same "first call" "demo-roots " "$(head -n 1 calls)"
}

case_demo_without_root_is_one_sentence() {
	set_stage
	chmod 755 . project project/scripts
	fails 1 "test.sh: run it as root: mmdebstrap makes the root directories, and chroot enters them" \
		setpriv --reuid 65534 --clear-groups project/scripts/test.sh demo
}

# Runs the stages on standard input in the stage's project, which keeps the logs.
steps() {
	{ printf '. project/scripts/lib.sh\n' && cat; } >steps
	bash steps 2>&1
}

case_step_that_succeeds_is_quiet() {
	set_stage
	same "output" "==> a step
<== a step: 0.S s" "$(steps <<<"step 'a step' echo noise" | sed -E 's/[0-9]+\.[0-9] s/0.S s/')"
	same "log" noise "$(<project/build/log/a-step.log)"
}

case_step_that_fails_names_its_log() {
	local out
	set_stage
	out=$(steps <<<"step 'a step' bash -c 'echo first; echo last >&2; exit 3' || echo status \$?")
	has "output" "first
last
a step: exit 3, the whole log is $TMP/project/build/log/a-step.log" "$out"
	has "status" "status 3" "$out"
}

case_step_prints_a_line_every_15_seconds() {
	local out
	set_stage
	out=$(steps <<<"step 'a step' bash -c 'echo \"  a long line \"; sleep 16'")
	grep -qE '^    a step, 1[2-5] s: a long line $' <<<"$out" || die "$out"
}

case_stages_are_a_table_with_cpu_time() {
	set_stage
	steps <<-'STEPS' >out
		start_stages
		step idle sleep 0.2
		step busy bash -c 'for ((i = 0; i < 300000; i++)); do :; done'
		stage_table
	STEPS
	awk '$3 == "idle" { exit $2 < 0.2 && $1 >= 0.2 ? 0 : 1 }' out || die "$(<out)"
	awk '$3 == "busy" { exit $2 >= 0.1 ? 0 : 1 }' out || die "$(<out)"
}

cases_main "$@"
