# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# shellcheck disable=SC2034 # used by the scripts that source this one
#
# Functions that the scripts share: messages, retries, timed stages, entries of the
# cache, and a private view of Debian's archive.
#
# The archive's mirror, proxy and checks are those of the host's apt.

set -euo pipefail
export LC_ALL=C

SCRIPTS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
REPO=$(dirname "$SCRIPTS")
TOA_CACHE=${TOA_CACHE:-/var/cache/toa}
export TOA_CACHE

# EX_TEMPFAIL of sysexits.h: no test failed, and the run can be repeated.
readonly ARCHIVE_UNAVAILABLE=75
# The archive has no kernel that fits: counted as skipped.
readonly NO_KERNEL=77

# The roots with the user-space programs, and with the kernel's compilers (see
# root.sh). `make demo` has one for both.
TOOLS=${TOA_DEMO_ROOT:-tools}
BUILD_ROOT=${TOA_DEMO_ROOT:-build}

info() {
	printf '%s\n' "$*" >&2
}

die() {
	info "${0##*/}: $*"
	exit 1
}

archive_unavailable() {
	info "${0##*/}: $*: archive unavailable"
	[[ -z ${TOA_RESULTS:-} ]] || echo "archive unavailable" >>"$TOA_RESULTS"
	exit "$ARCHIVE_UNAVAILABLE"
}

# Prints the comment block at the head of the calling script, its help text.
usage() {
	awk 'NR > 3 && !/^#/ { exit } NR > 3 { sub(/^# ?/, ""); print }' "$0"
	exit "${1:-0}"
}

need_root() {
	[[ $(id -u) == 0 ]] || die "run it as root: mmdebstrap makes the root directories, and chroot enters them"
}

# need_host COMMAND=PACKAGE…: installs the packages whose commands the host lacks.
need_host() {
	local pair missing=()
	for pair; do
		command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
	done
	[[ ${#missing[@]} == 0 ]] && return
	info "installing on this machine: ${missing[*]}"
	archive_try apt-get -qq update
	archive_try env DEBIAN_FRONTEND=noninteractive \
		apt-get -qq install --no-install-recommends "${missing[@]}"
}

# Runs a command that uses the archive, up to three times.
archive_try() {
	local try
	for try in 1 2 3; do
		"$@" >&2 && return
		info "try $try of 3 failed: $*"
		[[ $try == 3 ]] || sleep $((try * 5))
	done
	archive_unavailable "$1 failed three times"
}

# locked NAME COMMAND…: runs COMMAND, one at a time on this machine.
locked() {
	local name=$1
	shift
	mkdir -p "$TOA_CACHE/locks"
	(
		flock 9
		"$@"
	) 9>"$TOA_CACHE/locks/$name"
}

seconds_since() {
	awk -v a="$1" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }'
}

# stage NAME COMMAND…: prints NAME, and how long COMMAND took. COMMAND is a program,
# not a function, so that `set -e` keeps its meaning inside.
stage() {
	local name=$1 start=$EPOCHREALTIME status=0 took times TIMEFORMAT='%U %S'
	shift
	times=$(mktemp)
	info "==> $name"
	{ time "$@" 2>&3 3>&-; } 3>&2 2>"$times" || status=$?
	took=$(seconds_since "$start")
	info "<== $name: $took s$([[ $status == 0 ]] || echo " (exit $status)")"
	[[ -z ${TOA_STAGES:-} ]] ||
		printf '%s\t%s\t%s\t%s\n' "$name" "$took" "$status" \
			"$(awk 'END { printf "%.1f", $1 + $2 }' "$times")" >>"$TOA_STAGES"
	rm "$times"
	return "$status"
}

# step NAME COMMAND…: a stage whose output is kept in a log. If the step fails, the
# log's last lines and its name are printed.
step() {
	local name=$1
	shift
	stage "$name" logged "$name" "$(log_of "$name")" "$@"
}

# shown NAME COMMAND…: a stage whose output is printed, and kept in a log too.
shown() {
	local name=$1
	shift
	stage "$name" printed "$name" "$(log_of "$name")" "$@"
}

# TOA_LOGS= names another directory, for a run beside another one.
log_of() {
	local dir=${TOA_LOGS:-$REPO/build/log}
	mkdir -p "$dir"
	echo "$dir/${1//[^A-Za-z0-9]/-}.log"
}

logged() {
	local name=$1 log=$2 status=0 beat
	shift 2
	: >"$log"
	exec {beat}> >(heartbeat "$name" "$log")
	"$@" >"$log" 2>&1 {beat}>&- || status=$?
	exec {beat}>&-
	[[ $status != 0 ]] || return 0
	tail -n 25 "$log" >&2
	info "$name: exit $status, the whole log is $log"
	return "$status"
}

printed() {
	local name=$1 log=$2 status=0 beat
	shift 2
	: >"$log"
	exec {beat}> >(heartbeat "$name" "$log" printed)
	"$@" 2>&1 {beat}>&- | tee "$log" {beat}>&- || status=$?
	exec {beat}>&-
	return "$status"
}

# heartbeat NAME LOG [printed]: prints a line at least every 15 s, until its standard
# input is closed. The line ends with the last one of LOG, unless LOG is printed.
heartbeat() {
	local name=$1 log=$2 start=$SECONDS status age
	while true; do
		status=0
		read -rt 12 || status=$?
		((status > 128)) || return 0
		if [[ ${3:-} != printed ]]; then
			info "    $name, $((SECONDS - start)) s: $(last_line "$log")"
			continue
		fi
		age=$(($(date +%s) - $(stat -c %Y "$log")))
		((age < 12)) || info "    $name, $((SECONDS - start)) s"
	done
}

last_line() {
	tail -c 2000 "$1" | tr '\r' '\n' | awk 'NF { line = $0 } END { sub(/^[ \t]*/, "", line); print (length(line) > 80 ? substr(line, 1, 77) "..." : line) }'
}

# Starts the record of stages for the table at the end, once for a whole run.
start_stages() {
	[[ -z ${TOA_STAGES:-} ]] || return 0
	mkdir -p "$REPO/build"
	export TOA_STAGES=$REPO/build/stages
	: >"$TOA_STAGES"
}

stage_table() {
	[[ -s ${TOA_STAGES:-} ]] || return 0
	awk -F'\t' 'BEGIN { print "seconds      CPU  stage" }
		{ printf "%7.1f  %7.1f  %s%s\n", $2, $4, $1, $3 ? " (exit " $3 ")" : "" }' "$TOA_STAGES"
}

# The closing line, from "PASSED FAILED SKIPPED" lines.
sum_results() {
	awk '{ p += $1; f += $2; s += $3 }
		END { printf "%d passed, %d failed, %d skipped\n", p, f, s }' "$1"
}

# --- entries of the cache ----------------------------------------------------

# The last file that is written into an entry, a directory of TOA_CACHE. It lists
# the sizes of some of the entry's files.
readonly MARK=.toa-complete

# contents DIRECTORY: "SIZE PATH" of its files, of a root's first programs, of the
# crates in a kernel's metadata, and of a small kernel's headers.
contents() {
	(cd "$1" && find . rust headers usr/bin/env usr/bin/sh usr/lib/x86_64-linux-gnu/libc.so.6 -maxdepth 1 -type f \
		! -name '.*' ! -name lock -printf '%s %p\n' 2>/dev/null | sort) || true
}

# mark DIRECTORY: marks the entry as complete, after its files are on the disk.
mark() {
	sync -f "$1"
	contents "$1" >"$1/$MARK"
}

# complete DIRECTORY: whether the entry has a mark, and files of the listed sizes.
complete() {
	[[ -s $1/$MARK && $(contents "$1") == "$(<"$1/$MARK")" ]]
}

# Removes entries. The mark is removed first: an interrupted removal leaves an
# incomplete entry.
discard() {
	local entry
	for entry; do
		[[ ! -e $entry/$MARK ]] || rm "$entry/$MARK"
		rm -rf --one-file-system "$entry"
	done
}

# entry DIRECTORY COMMAND…: makes the entry DIRECTORY, unless it is complete.
# COMMAND gets the name of a directory to make, which is renamed to DIRECTORY.
entry() {
	local dir=$1
	shift
	! complete "$dir" || return 0
	[[ ! -e $dir ]] || info "$dir is incomplete: making it again"
	discard "$dir" "$dir.new"
	"$@" "$dir.new"
	mark "$dir.new"
	mv -T "$dir.new" "$dir"
}

# forget_unused DIRECTORY PATTERN: removes entries that nothing has used for two
# weeks. Each use touches its entry. An entry in the making keeps the times of its
# packages, so its age has no meaning.
forget_unused() {
	local unused
	mapfile -d '' unused < <(find "$1" -mindepth 1 -maxdepth 1 -name "$2" ! -name '*.new' -mtime +14 -print0)
	discard "${unused[@]}"
}

# git_here ARGUMENT…: runs git in the project's clone. git refuses a clone of another user, whose
# files the builds here run in any case.
git_here() {
	git -C "$REPO" -c safe.directory="$REPO" "$@"
}

# The project's files that git tracks or would track, or all files without git.
sources() (
	cd "$REPO"
	git_here ls-files -co --exclude-standard 2>/dev/null ||
		find . -path ./build -prune -o -path ./.git -prune -o -type f -printf '%P\n'
)

# copy_sources DIRECTORY [OPTION…]: copies the files that standard input names, if
# they exist. The options are passed to the tar that unpacks.
copy_sources() {
	local dir=$1
	shift
	mkdir -p "$dir"
	tar -c -C "$REPO" --ignore-failed-read -T - 2>/dev/null | tar -x -C "$dir" --no-same-owner "$@"
}

# is_debug NAME: whether it is a debug kernel.
is_debug() {
	[[ $1 == debug || $1 == debug-* ]]
}

# is_small NAME: whether the project builds the kernel, a small one or a debug kernel.
is_small() {
	[[ $1 == like-* ]] || is_debug "$1"
}

# of_small NAME WORD: the text behind "# WORD: " in the small kernel's fragment.
of_small() {
	[[ -s $REPO/tests/kernels/$1.config ]] || die "there is no KERNEL=$1: see tests/kernels"
	sed -n "s/^# $2: //p" "$REPO/tests/kernels/$1.config"
}

# source_of_small NAME: "PACKAGE SUITE" of a small kernel's source.
source_of_small() {
	of_small "$1" Source | sed 's/ of / /'
}

# fragments_of_small NAME: the files with the small kernel's options, the most general one first.
fragments_of_small() {
	local included
	included=$(of_small "$1" Includes)
	[[ $1 == base ]] || fragments_of_small "${included:-base}"
	echo "$REPO/tests/kernels/$1.config"
}

# options_of_small NAME: the lines of its fragments. A later line replaces an earlier one of the
# same option.
options_of_small() {
	local files
	mapfile -t files < <(fragments_of_small "$1")
	awk '/^CONFIG_/ { option = $0; sub(/=.*/, "", option) }
		/^# CONFIG_.* is not set$/ { option = $2 }
		option { line[option] = $0; option = "" }
		END { for (option in line) print line[option] }' "${files[@]}" | sort
}

# The suites that the kernels of KERNEL= and their compilers come from: the Debian
# release that they belong to first, the kernels' own suite last. bullseye has no rustc
# that is new enough: its kernels take bookworm's.
suites_of_kernel() {
	local name=${KERNEL:-trixie-backports}
	if is_small "$name"; then
		KERNEL=$(source_of_small "$name" | awk '{ print $2 }') suites_of_kernel
		return
	fi
	name=${name%-rt}
	case ${name%-amd64} in
	bullseye) echo bookworm bookworm-security bullseye bullseye-security ;;
	bookworm) echo bookworm bookworm-security ;;
	trixie) echo trixie trixie-security ;;
	trixie-backports) echo trixie trixie-backports ;;
	forky) echo forky ;;
	sid) echo sid ;;
	experimental) echo sid experimental ;;
	*) die "there is no KERNEL=$KERNEL: see kernel.sh --help" ;;
	esac
}

debian_of_kernel() {
	local suites
	suites=$(suites_of_kernel) || exit
	echo "${suites%% *}"
}

# --- the archive -----------------------------------------------------------

# The suites that kernels and roots come from.
readonly ARCHIVE_SUITES=(bullseye bullseye-security bookworm bookworm-security trixie trixie-security
	trixie-backports forky sid experimental)
# Past its support: some day mirrors lose it.
readonly ENDING_SUITES=(bullseye bullseye-security)

# archive_mirror NAME: the base address of the archive NAME (debian or debian-security) in
# the host's apt, or the file of mirrors that cloud images have.
archive_mirror() {
	# shellcheck disable=SC2016 # apt expands it
	apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' |
		awk -v name="$1" '$1 ~ "/" name "(\\.list)?/?$" && !found { print $1; found = 1 }'
}

archive_keyring() {
	local file
	for file in "${TOA_KEYRING:-}" /usr/share/keyrings/debian-archive-keyring.{pgp,gpg}; do
		[[ -n $file && -s $file ]] && echo "$file" && return
	done
	die "no keyring of the Debian archive: apt-get install debian-archive-keyring"
}

# archive_sources SUITE…: one-line apt sources. A host whose apt has no security archive gets
# none of it, and so the kernels of the last point release.
archive_sources() {
	local mirror security keyring suite
	mirror=$(archive_mirror debian)
	[[ -n $mirror ]] || die "apt names no Debian archive: add one to /etc/apt/sources.list.d"
	security=$(archive_mirror debian-security)
	keyring=$(archive_keyring)
	for suite; do
		case $suite in
		*-security) [[ -z $security ]] || echo "deb [signed-by=$keyring] $security $suite main" ;;
		*) echo "deb [signed-by=$keyring] $mirror $suite main" ;;
		esac
	done
}

# Comments out the lines of the ENDING_SUITES that the archive does not have any more. An
# archive that cannot be reached is left to `apt-get update`.
without_ended_suites() {
	local type options mirror suite component out
	while read -r type options mirror suite component; do
		if [[ " ${ENDING_SUITES[*]} " == *" $suite "* ]] &&
			! out=$(PATH=$PATH:/usr/lib/apt APT_CONFIG=$TOA_CACHE/apt/apt.conf apt-helper download-file \
				"${mirror%/}/dists/$suite/InRelease" "$TOA_CACHE/apt/InRelease" 2>&1) &&
			[[ $out == *" 404 "* ]]; then
			info "the archive has no $suite any more: its kernels are skipped"
			printf '# '
		fi
		echo "$type $options $mirror $suite $component"
	done
	rm -f "$TOA_CACHE/apt/InRelease"
}

# The settings of the host's apt that decide whether the archive can be reached.
archive_acquire() {
	apt-config dump --format '%F "%v";%n' Acquire |
		grep -E '^Acquire::((http|https)(::|")|(Check-Valid-Until|Check-Date|ForceIPv[46]|Max-FutureTime|Retries) ).*"[^"]+";$' || true
}

archive_conf() {
	local dir=$TOA_CACHE/apt
	mkdir -p "$dir/lists/partial" "$dir/archives/partial"
	: >"$dir/status"
	cat >"$dir/apt.conf" <<-CONF
		Dir::Etc::main "/dev/null";
		Dir::Etc::parts "/dev/null";
		Dir::Etc::sourcelist "$dir/sources.list";
		Dir::Etc::sourceparts "/dev/null";
		Dir::Etc::preferences "/dev/null";
		Dir::Etc::preferencesparts "/dev/null";
		Dir::State::lists "$dir/lists";
		Dir::State::status "$dir/status";
		Dir::Cache "$dir";
		APT::Sandbox::User "root";
		APT::Architecture "amd64";
		APT::Architectures "amd64";
		Acquire::Languages "none";
		$(archive_acquire)
	CONF
	archive_sources "${ARCHIVE_SUITES[@]}" | without_ended_suites >"$dir/sources.list"
}

# Whether the lists are less than an hour old and hold every suite: an older checkout, which
# shares the cache, fetches fewer.
archive_is_fresh() {
	local suite
	[[ -n $(find "$TOA_CACHE/apt/fresh" -mmin -"${TOA_ARCHIVE_MINUTES:-60}" 2>/dev/null) ]] || return
	for suite in "${ARCHIVE_SUITES[@]}"; do
		[[ $suite == *-security ]] || grep -q " $suite main\$" "$TOA_CACHE/apt/sources.list" || return
	done
}

archive_fetch_lists() {
	local lists=$TOA_CACHE/apt/lists
	! archive_is_fresh || ! complete "$lists" || return 0
	# apt does not check lists that it has downloaded before.
	[[ ! -d $lists ]] || complete "$lists" || discard "$lists"
	archive_conf
	archive_try env APT_CONFIG="$TOA_CACHE/apt/apt.conf" \
		apt-get -q update -o APT::Update::Error-Mode=any
	archive_cache gencaches >/dev/null
	mark "$lists"
	touch "$TOA_CACHE/apt/fresh"
}

# Updates the package lists, at most once an hour.
archive_update() {
	locked apt archive_fetch_lists
}

archive_cache() {
	APT_CONFIG=$TOA_CACHE/apt/apt.conf apt-cache "$@"
}

# archive_versions PACKAGE SUITE: the versions in that suite, newest first.
archive_versions() {
	archive_cache madison "$1" 2>/dev/null |
		awk -v suite="$2" -F ' *[|] *' '{ split($3, a, " "); split(a[2], b, "/") }
			b[1] == suite { print $2 }' | uniq
}

# drop_damaged DIRECTORY PATTERN: removes packages that cannot be unpacked. apt
# checks only the size of a package that it has downloaded before.
drop_damaged() {
	local deb
	while read -r deb; do
		dpkg-deb --fsys-tarfile "$deb" >/dev/null 2>&1 && continue
		info "$deb is damaged: removing it"
		rm -f "$deb"
	done < <(find "$1" -maxdepth 1 -name "$2")
}

# archive_download DIRECTORY PACKAGE=VERSION…: downloads the .deb files.
archive_download() {
	local dir=$1 package
	shift
	mkdir -p "$dir"
	for package; do
		package=${package/=/_}
		drop_damaged "$dir" "${package//:/%3a}_*.deb"
	done
	(
		cd "$dir"
		APT_CONFIG=$TOA_CACHE/apt/apt.conf archive_try apt-get -q download "$@"
	)
}
