# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# The runner of test scripts, which source it after scripts/lib.sh. It runs each
# function named case_… in a separate process and directory (TMP), prints TAP,
# and ends with "N passed, N failed, N skipped".
#
# A case that cannot run here calls `skip REASON`. The output of a case is
# printed if the case fails.

# The exit status of a skipped case, as in automake.
readonly SKIPPED=77

# same WHAT EXPECTED GOT
same() {
	[[ $2 == "$3" ]] || die "$(printf '%s\n expected: %s\n got:      %s' "$@")"
}

# has WHAT TEXT GOT: TEXT is part of GOT.
has() {
	[[ $3 == *"$2"* ]] || die "$(printf '%s\n expected: …%s…\n got:      %s' "$@")"
}

skip() {
	echo "$*" >"$TMP/reason"
	exit "$SKIPPED"
}

# fails STATUS LINE COMMAND…: COMMAND prints LINE and no other error, and exits
# with STATUS.
fails() {
	local status=$1 line=$2 got=0 output
	shift 2
	output=$("$@" 2>&1 >/dev/null </dev/null) || got=$?
	same "message of $*" "$line" "$output"
	same "status of $*" "$status" "$got"
}

# one_case NAME DIRECTORY
one_case() {
	TMP=$2
	cd "$TMP" || exit
	"case_$1"
}

# run_cases SCRIPT [NAME…]: runs all cases of SCRIPT, or the named ones.
run_cases() {
	local script=$1 names name number=0 failed=0 skipped=0 dir status
	shift
	mapfile -t names < <(printf '%s\n' "$@")
	[[ $# -gt 0 ]] || mapfile -t names < <(declare -F | sed -n 's/^declare -f case_//p')
	echo "1..${#names[@]}"
	for name in "${names[@]}"; do
		number=$((number + 1))
		dir=$(mktemp -d)
		status=0
		"$script" --case "$name" "$dir" >"$dir.log" 2>&1 || status=$?
		case $status in
		0) echo "ok $number - $name" ;;
		"$SKIPPED")
			skipped=$((skipped + 1))
			echo "ok $number - $name # SKIP $(<"$dir/reason")"
			;;
		*)
			failed=$((failed + 1))
			echo "not ok $number - $name"
			sed 's/^/# /' "$dir.log"
			;;
		esac
		rm -rf --one-file-system "$dir" "$dir.log"
	done
	[[ -z ${TOA_RESULTS:-} ]] || echo "$((number - failed - skipped)) $failed $skipped" >>"$TOA_RESULTS"
	echo "$((number - failed - skipped)) passed, $failed failed, $skipped skipped"
	[[ $failed == 0 && $number -gt $skipped ]]
}

# cases_main "$@": runs the script; the last line of each test script.
cases_main() {
	case ${1:-} in
	--case) one_case "$2" "$3" ;;
	-h | --help | help) usage ;;
	*) run_cases "$0" "$@" ;;
	esac
}

# cases_in_root NAME PREPARE "$@": runs the cases in the root NAME (see root.sh),
# each in a separate mount namespace. PREPARE runs first, outside the root.
cases_in_root() {
	local root=$1 prepare=$2
	shift 2
	case ${1:-} in
	--inside)
		shift
		run_cases "$0" "$@"
		;;
	--case) unshare --mount --propagation unchanged "$0" --in-namespace "$2" "$3" ;;
	--in-namespace) one_case "$2" "$3" ;;
	-h | --help | help) usage ;;
	*)
		"$prepare"
		"$SCRIPTS/root.sh" run "$root" env "TOA_RESULTS=${TOA_RESULTS:-/dev/null}" "$0" --inside "$@"
		;;
	esac
}
