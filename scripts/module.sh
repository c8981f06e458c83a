#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Builds, installs and removes toa.ko. The Makefile calls it.
#
#   module.sh build       build the modules of the directory TOA_M
#   module.sh install     copy toa.ko to the kernel's modules
#   module.sh uninstall   remove it from there
#   module.sh clean       remove what a build leaves in TOA_M
#
# KVER=              the kernel; default: the running one
# RUST=              the `kernel` crate: kernel (the kernel's own) or standin
#                    (rust/kernel/); default: the kernel's own if its configuration
#                    has CONFIG_RUST and rust/probe.rs compiles against it
# CLIPPY=, W=, V=    passed to the kernel's build system
# TOA_M=             the directory of the Kbuild file; default: that of toa.rs
# DESTDIR=           the directory in which install and uninstall find lib/modules
#
# A build that fails or is interrupted removes all it has made but its log,
# build/make.log. Builds in one tree run one at a time.

. "$(dirname "$0")/lib.sh"
RELEASE=${KVER:-}
. "$SCRIPTS/toolchain.sh"
KVER=$RELEASE

M=${TOA_M:-$REPO}
LOG=$REPO/build/make.log
# Written while a build runs. A build that was killed leaves it.
RUNNING=$M/.tmp_building
# The process group of the command that runs, and the process that sees it end.
GROUP='' WATCH=''
# Beside the cache of `core`.
readonly NEEDED_MB=100
# Errors of rustc that have other causes than an item that the crate lacks or has in
# another form: no metadata, or that of another compiler.
readonly NO_REFUSAL='E0(152|458|46[0-9]|514|519|523|55[4-7]|786)'

# --- before a build ----------------------------------------------------------

# The kernel's makefiles do not quote paths.
check_path() {
	local special=$' \t\n:#$%\'"`\\&;()<>|*?{}!,[]'
	[[ $M != *["$special"]* ]] ||
		die "the kernel's build system cannot work in a path with blanks or the characters of a shell: mv '${REPO//\'/\'\\\'\'}' /some/directory"
}

check_writable() {
	local file
	if ! mkdir -p "$REPO/build" 2>/dev/null || [[ ! -w $M ]]; then
		die "cannot write to $M, which belongs to $(stat -c %U "$M"): copy it to a directory of yours, or sudo make"
	fi
	file=$(find "$M" "$REPO/build" -maxdepth 2 ! -writable ! -type l \
		\( -path "$REPO/build*" -o -path "$M/standin*" -o -name '*.o' -o -name '*.ko' -o -name '.*.cmd' \) -print -quit)
	[[ -z $file ]] || die "cannot write to $file, which belongs to $(stat -c %U "$file"): sudo make clean"
}

check_space() {
	local free
	free=$(df -Pm "$M" | awk 'NR == 2 { print $4 }')
	((free >= NEEDED_MB)) || die "$M has $free MB free, and a build takes $NEEDED_MB MB: make room there"
}

# Waits for other builds in this tree. The processes of a build that was killed
# hold the lock until they end.
lock() {
	exec 8<"$M"
	flock -n 8 2>/dev/null && return
	info "waiting for another build in $M"
	flock 8 2>/dev/null || true
}

# What kbuild and rust/Makefile.standin leave in the directory.
clean() {
	(
		cd "$M"
		rm -rf "$REPO"/build/{probe,directory} standin toa_offsets.rs ./*.{o,s,ko,mod,mod.c,rmeta} .*.cmd .*.d .tmp_* \
			.module-common.o Module.symvers modules.order
	)
}

# --- the crate ---------------------------------------------------------------

# Sets CRATE, and EXPLICIT if the user has chosen it.
choose_crate() {
	EXPLICIT=${RUST:-}
	case $EXPLICIT in
	kernel | standin) CRATE=$EXPLICIT ;;
	'') [[ $(config_value RUST) == y ]] && CRATE=kernel || CRATE=standin ;;
	*) die "RUST=$RUST is neither kernel nor standin: make RUST=standin" ;;
	esac
}

announce() {
	local name time version
	case $CRATE in
	kernel) name="the kernel's own Rust crate" time="10 s, and one to three minutes more if its metadata must be made," ;;
	standin) name="the stand-in crate" time="10 s, and 20 s more for the first build," ;;
	esac
	version=$("$SCRIPTS/version.sh" print 2>/dev/null) || version=
	info "toa${version:+ $version} for $KVER ($KDIR) with $name: about $time of CPU time; the log is $LOG"
}

# Sets BUILDDIR and VARS, or prints what is missing and exits.
find_tools() {
	local find vars
	case $CRATE in
	kernel) find=$SCRIPTS/metadata.sh ;;
	standin) find=$SCRIPTS/standin.sh ;;
	esac
	grouped "$find" --kver "$KVER" >"$REPO/build/directory" || { clean && exit 1; }
	BUILDDIR=$(<"$REPO/build/directory")
	rm "$REPO/build/directory"
	vars=$("$find" --kver "$KVER" --print-make-vars) || exit
	read -ra VARS <<<"$vars"
	RUSTC=$(sed -n 's/^\(.* \)\?RUSTC=\([^ ]*\).*/\2/p' <<<"$vars")
	CC=$(sed -n 's/^\(.* \)\?CC=\([^ ]*\).*/\2/p' <<<"$vars")
	CC=${CC:-$(config_value CC_VERSION_TEXT | awk '{ print $1 }')}
	info "compilers: $(called "$RUSTC") ($RUSTC), $(called "$CC")"
}

# kernel_make ARGUMENT…: the kernel's make inherits only the job flags of the caller's.
kernel_make() {
	MAKEFLAGS=${TOA_JOBS:-} "${MAKE:-make}" -C "$BUILDDIR" "${VARS[@]}" "$@"
}

# Succeeds if the kernel's own crate is one that toa can use. The answer is kept for
# each metadata, compiler and probe.
probe() {
	local dir=$REPO/build/probe key kept
	key=$({
		echo "$BUILDDIR $(called "$RUSTC")"
		stat -c '%s %Y' "$BUILDDIR"/rust/lib*.rmeta
		cat "$REPO/rust/probe.rs"
	} | sha256sum | cut -c 1-16)
	kept=$REPO/build/probe-$key
	if [[ ! -s $kept ]]; then
		rm -rf "$dir"
		mkdir -p "$dir"
		cp "$REPO/rust/probe.rs" "$dir/toa_probe.rs"
		echo 'obj-m := toa_probe.o' >"$dir/Kbuild"
		if kernel_make "M=$dir" toa_probe.o >"$dir/log" 2>&1; then
			echo accepted >"$kept"
		elif refused "$dir/log"; then
			sed -n 's/^error\(\[E[0-9]*\]\)\?: //p' "$dir/log" | sed -n 1p >"$kept"
		else
			cp "$dir/log" "$LOG"
			grep -m 1 -A 8 '^error' "$dir/log" >&2 || tail -n 8 "$dir/log" >&2
			rm -rf "$dir"
			die "rust/probe.rs could not be compiled against $BUILDDIR/rust by $RUSTC: its first error is above, all are in $LOG; make RUST=standin needs no metadata"
		fi
		rm -rf "$dir"
	fi
	REASON=$(<"$kept")
	[[ $REASON == accepted ]]
}

# refused LOG: whether rustc, or a macro, has refused lines of the probe, and nothing
# else failed.
refused() {
	awk -v other="^error\\[$NO_REFUSAL" '
		at && !/toa_probe\.rs:/ { others++ }
		{ at = /^error/ && !/^error: (aborting due to|could not compile)/; errors += at }
		at && $0 ~ other { others++ }
		END { exit !errors || others }' "$1"
}

# --- a build -----------------------------------------------------------------

# grouped COMMAND…: runs it in a process group that `interrupted` can end. WATCH, whose
# input all of its processes keep open, ends with the last one.
grouped() {
	local status=0 alive
	exec {alive}> >(trap '' HUP INT TERM; exec cat 8<&-)
	WATCH=$!
	set -m
	("$@") </dev/null &
	GROUP=$!
	set +m
	exec {alive}>&-
	wait "$GROUP" || status=$?
	GROUP=
	return "$status"
}

# Ends the build's processes, and removes what they made.
interrupted() {
	trap '' HUP INT TERM
	if [[ -n $GROUP ]]; then
		kill -TERM -- "-$GROUP" 2>/dev/null || true
		wait "$WATCH" || true
	fi
	clean
	info "${0##*/}: interrupted, nothing is kept"
	exit "$1"
}

# The debugging sections name the directory, and with them the module's build ID would differ in each
# directory, even after these sections are stripped.
run_kbuild() {
	local status=0 beat flag flags=("KCFLAGS=${KCFLAGS:+$KCFLAGS }-fdebug-prefix-map=$M=.")
	for flag in CLIPPY W V; do
		[[ -z ${!flag:-} ]] || flags+=("$flag=${!flag}")
	done
	: >"$LOG"
	exec {beat}> >(exec 8<&-; heartbeat module "$LOG" printed)
	grouped logged_make "M=$M" "RUST=$CRATE" "${flags[@]}" modules {beat}>&- || status=$?
	exec {beat}>&-
	return "$status"
}

logged_make() {
	kernel_make "$@" 2>&1 | tee "$LOG"
}

# failed: one sentence on the cause, as far as the log has it.
failed() {
	local reason
	clean
	reason=$(sed -n -e 's/.*error: #error "toa: \(.*\)"$/\1/p' -e 's/.*static assertion failed: "toa: \(.*\)"$/\1/p' "$LOG" | sed -n 1p)
	[[ -z $reason ]] || die "$reason"
	reason=$(sed -n 's/.*fatal error: \([a-z_]*\/[a-z_/]*\.h\): No such file.*/\1/p' "$LOG" | sed -n 1p)
	[[ -z $reason ]] || die "the kernel $KVER has no <$reason>, which toa needs: it works with Linux 5.10 and later"
	reason=$(sed -n -e 's/^core\.sh: //p' "$LOG" | sed -n 1p)
	[[ -z $reason ]] || die "$reason"
	! grep -qi 'no space left on device\|disk quota exceeded' "$LOG" ||
		die "the disk of $M is full: make room there; nothing is kept"
	die "the build for $KVER failed: the log is $LOG; nothing is kept"
}

# A module with the stand-in crate must pass a check of its object. clippy switches
# optimizations off, so its objects have calls that others lack.
check_objects() {
	local module
	[[ $CRATE == standin && -z ${CLIPPY:-} ]] || return 0
	for module in "$M"/*.ko; do
		"$SCRIPTS/check-object.sh" "$module" "$BUILDDIR" && continue
		clean
		die "$(basename "$module") could harm the kernel, as the lines above show: report it with the versions of the compilers"
	done
}

finished() {
	local module cpu
	# `times` in a subshell would print those of the subshell.
	times >"$RUNNING"
	cpu=$(awk -F '[ms ]' 'NR == 2 { printf "%.0f", $1 * 60 + $2 + $4 * 60 + $5 }' "$RUNNING")
	rm -f "$RUNNING"
	for module in "$M"/*.ko; do
		info "${module#"$PWD/"}: $(($(stat -c %s "$module") / 1000)) kB, $CRATE crate, $cpu s of CPU time"
	done
}

build() {
	check_path
	check_writable
	find_headers
	choose_crate
	lock
	trap 'interrupted 129' HUP
	trap 'interrupted 130' INT
	trap 'interrupted 143' TERM
	if [[ -e $RUNNING ]]; then
		info "the last build in $M was killed: starting over"
		clean
	fi
	check_space
	announce
	find_tools
	if [[ $CRATE == kernel ]] && ! probe; then
		[[ -z $EXPLICIT ]] ||
			die "the Rust crate of the kernel $KVER is not one that toa can use ($REASON): make RUST=standin"
		info "the Rust crate of the kernel $KVER is not one that toa can use ($REASON): taking the stand-in crate, as make RUST=standin does"
		CRATE=standin
		find_tools
	fi
	: >"$RUNNING"
	run_kbuild || failed
	check_objects
	finished
}

# --- installing --------------------------------------------------------------

# Sets KVER, DIRECTORY and INSTALLED. Users' PATH may lack the directories of kmod.
find_place() {
	PATH=$PATH:/usr/sbin:/sbin
	KVER=${KVER:-$(uname -r)}
	DIRECTORY=${DESTDIR:-}/lib/modules/$KVER
	INSTALLED=$DIRECTORY/updates/toa.ko
	if ! command -v depmod >/dev/null || ! command -v modinfo >/dev/null; then
		die "modinfo and depmod are missing: $(install_command kmod)"
	fi
	umask 022
}

# can_write DIRECTORY: whether it, or the directory to make it in, can be written.
can_write() {
	local directory=$1
	until [[ -e $directory ]]; do directory=$(dirname "$directory"); done
	[[ -w $directory ]]
}

check_permission() {
	if ! can_write "$DIRECTORY/updates" || ! can_write "$DIRECTORY"; then
		die "no permission to write to $DIRECTORY: sudo make $1${RELEASE:+ KVER=$KVER}"
	fi
}

install_module() {
	local made
	find_place
	[[ -s $REPO/toa.ko ]] || die "there is no toa.ko in $REPO: make${RELEASE:+ KVER=$KVER}"
	made=$(modinfo -F vermagic "$REPO/toa.ko" 2>/dev/null | cut -d ' ' -f 1) || made=
	[[ -n $made ]] || die "$REPO/toa.ko is damaged: make clean, and make again"
	[[ $made == "$KVER" ]] || die "toa.ko here is for $made, not for $KVER: make KVER=$KVER"
	[[ -n ${DESTDIR:-} || -d $DIRECTORY ]] ||
		die "the kernel $KVER is not installed, there is no $DIRECTORY: $(install_command "linux-image-$KVER")"
	check_permission install
	mkdir -p "$DIRECTORY/updates"
	trap 'rm -f "$INSTALLED.new"' EXIT
	if ! install -m 644 "$REPO/toa.ko" "$INSTALLED.new" || ! mv "$INSTALLED.new" "$INSTALLED"; then
		die "toa.ko could not be copied to $DIRECTORY/updates: make room there, and sudo make install again"
	fi
	depmod -b "${DESTDIR:-}/" "$KVER"
	info "installed $INSTALLED, version $(modinfo -F version "$INSTALLED"), $(modinfo -F crate "$INSTALLED") crate"
	[[ -n ${DESTDIR:-} ]] || next_step
}

# What is loaded now, and what to type.
next_step() {
	local first
	first=$(modinfo -k "$KVER" -F filename toa 2>/dev/null || true)
	[[ -z $first || $first -ef $INSTALLED ]] ||
		info "modprobe takes another one, $first: dkms remove toa/VERSION --all, or apt purge toa-dkms, removes it"
	if [[ -d /sys/module/toa ]]; then
		info "toa $(cat /sys/module/toa/version 2>/dev/null || true) is loaded: rmmod toa && modprobe toa replaces it"
	elif [[ $KVER == "$(uname -r)" ]]; then
		info "toa is not loaded now: modprobe toa"
	fi
}

uninstall_module() {
	find_place
	if [[ -e $INSTALLED ]]; then
		check_permission uninstall
		rm "$INSTALLED"
		rmdir "$DIRECTORY/updates" 2>/dev/null || true
		depmod -b "${DESTDIR:-}/" "$KVER"
		info "removed $INSTALLED"
	else
		info "toa.ko is not installed for $KVER: there is no $INSTALLED"
	fi
	[[ -z ${DESTDIR:-} ]] || return 0
	[[ ! -d /sys/module/toa ]] || info "toa is still loaded: rmmod toa"
	[[ ! -e /etc/modules-load.d/toa.conf ]] ||
		info "/etc/modules-load.d/toa.conf still loads toa at each start-up: rm /etc/modules-load.d/toa.conf"
}

main() {
	[[ $RELEASE != "$(uname -r)" ]] || RELEASE=
	case ${1:-} in
	build | clean) "$1" ;;
	install | uninstall) "$1_module" ;;
	-h | --help | help) usage ;;
	*) usage 1 >&2 ;;
	esac
}

main "$@"
