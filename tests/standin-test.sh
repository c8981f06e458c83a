#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Tests of the build with the stand-in crate on Debian 13's own kernel: the messages for
# kernels and machines that cannot build, interrupted and simultaneous builds,
# installing.
#
#   standin-test.sh [CASE…]
#
# Run it as root: it enters the root in which modules are built. Prints TAP. Headers and
# compilers are hidden, replaced or changed by private mounts (see doctored.sh).

. "$(dirname "$0")/../scripts/lib.sh"
. "$REPO/tests/cases.sh"
. "$REPO/tests/doctored.sh"

export KERNEL=trixie
GIVEN=$REPO/build/standin-test

set_stage() {
	unset RUST
	HEADERS=$(realpath "/lib/modules/$KVER/build")
	mkdir "$TMP/bin"
	LIBRARY=$(rustc --print sysroot)/lib/rustlib/src/rust/library
	GCC=$(config CC_VERSION_TEXT | awk '{ print $1 }')
	apt_offers rustc 1.85.0+dfsg3-1 rust-src 1.85.0+dfsg3-1
	export TOA_CORE_CACHE=$TOA_CACHE/core
}

# --- claims ------------------------------------------------------------------

# stops_with MESSAGE [VARIABLE=VALUE…]: checks that make prints what it builds, then
# MESSAGE, and leaves nothing.
stops_with() {
	local message=$1
	shift
	[[ -e ${TREE:-} ]] || copy_tree
	run_make "KVER=$KVER" "$@"
	same "status ($(<"$TMP/stderr"))" 2 "$STATUS"
	same "last line" "$message" "$(grep -v '^make: \*\*\*' "$TMP/stderr" | tail -n 1)"
	nothing_left
}

builds() {
	run_make "KVER=$KVER" "$@"
	same "status ($(<"$TMP/stdout") $(<"$TMP/stderr"))" 0 "$STATUS"
	[[ -s $TREE/toa.ko ]] || die "no toa.ko"
}

# configure SETTING…: changes the headers' configuration, the file that scripts read
# and the one that C reads: NAME=y, or NAME= to switch it off.
configure() {
	local setting name
	changeable "$HEADERS"
	for setting; do
		name=CONFIG_${setting%%=*}
		sed -i -e "/^$name=/d" "$HEADERS/.config" "$HEADERS/include/config/auto.conf"
		sed -i -e "/^#define $name /d" "$HEADERS/include/generated/autoconf.h"
		[[ -n ${setting#*=} ]] || continue
		echo "$name=${setting#*=}" | tee -a "$HEADERS/.config" >>"$HEADERS/include/config/auto.conf"
		echo "#define $name 1" >>"$HEADERS/include/generated/autoconf.h"
	done
}

# --- kernels -----------------------------------------------------------------

NO_CRATE="and it has no Rust crate (CONFIG_RUST) either: take a kernel of the distribution that gcc has built"

case_kernel_built_by_clang() {
	configure CC_IS_GCC= CC_IS_CLANG=y
	stops_with "standin.sh: the kernel $KVER was built by clang, and the stand-in crate is for kernels that gcc has built, $NO_CRATE"
}

case_kernel_built_by_clang_that_has_rust() {
	configure CC_IS_GCC= CC_IS_CLANG=y RUST=y
	stops_with "standin.sh: the kernel $KVER was built by clang, and the stand-in crate is for kernels that gcc has built: this kernel can use its own crate, make RUST=kernel" RUST=standin
}

case_kernel_with_lto() {
	configure LTO_CLANG=y
	stops_with "standin.sh: the kernel $KVER was built with LTO, for which the stand-in crate has no bitcode, $NO_CRATE"
}

case_kernel_with_kcfi() {
	configure CFI_CLANG=y
	stops_with "standin.sh: the kernel $KVER was built with kCFI, for which the stand-in crate emits no hashes, $NO_CRATE"
}

case_kernel_of_another_processor() {
	configure X86_64= ARM64=y
	stops_with "standin.sh: the stand-in crate is for x86-64 so far, $NO_CRATE"
}

# The configuration of 4.18 has no such setting.
case_kernel_4_18() {
	configure CC_VERSION_TEXT=
	stops_with "standin.sh: the configuration of $KVER does not name its compiler (CONFIG_CC_VERSION_TEXT), as kernels before 5.10: toa works with Linux 5.10 and later, take such a kernel"
}

case_kernel_without_a_header() {
	local header
	header=$(realpath "$HEADERS"/../linux-headers-*-common/include/linux/rcupdate_trace.h)
	hide "$header"
	stops_with "module.sh: the kernel $KVER has no <linux/rcupdate_trace.h>, which toa needs: it works with Linux 5.10 and later"
}

case_kernel_without_ftrace() {
	configure DYNAMIC_FTRACE_WITH_ARGS= DYNAMIC_FTRACE_WITH_REGS=
	stops_with "module.sh: this kernel is built without CONFIG_DYNAMIC_FTRACE_WITH_ARGS and CONFIG_DYNAMIC_FTRACE_WITH_REGS: toa needs one of them to hook getname and accept"
}

case_kernel_without_tracepoints() {
	configure TRACEPOINTS=
	stops_with "module.sh: this kernel is built without CONFIG_TRACEPOINTS, which toa needs to see sockets die"
}

case_kernel_without_netfilter() {
	configure NETFILTER=
	stops_with "module.sh: this kernel is built without CONFIG_NETFILTER, which toa needs to answer getsockopt"
}

case_headers_missing() {
	KVER=9.9.9-amd64
	stops_with "module.sh: the headers of 9.9.9-amd64 are missing (/lib/modules/9.9.9-amd64/build): apt install linux-headers-9.9.9-amd64"
}

case_headers_without_objtool() {
	local objtool
	objtool=$(readlink -m "$HEADERS/tools/objtool/objtool")
	hide "$objtool"
	stops_with "standin.sh: the headers have no $HEADERS/tools/objtool/objtool: apt install --reinstall $(dpkg-query -S "$objtool" | sed 's/:.*//')"
}

# --- compilers ---------------------------------------------------------------

MISSING="standin.sh: rustc 1.85 or later with the source of its library is missing"

case_rustc_missing() {
	hide /usr/bin/rustc /usr/bin/rustc-[0-9]* /usr/lib/rust-*
	stops_with "$MISSING: apt install rustc rust-src"
}

case_rustc_too_old() {
	replace /usr/bin/rustc <<<"echo 'rustc 1.63.0 (web)'"
	apt_offers rustc 1.63.0+dfsg1-2 rustc-web 1.96.0+dfsg1-1
	stops_with "$MISSING (/usr/bin/rustc is rustc 1.63.0 (web)): apt install rustc-web rust-web-src"
}

case_rust_src_missing() {
	hide "$LIBRARY"
	stops_with "$MISSING (/usr/bin/rustc has no source of its library ($LIBRARY)): apt install rustc rust-src"
}

case_rustc_missing_on_a_kernel_with_rust() {
	configure RUST=y
	hide "$LIBRARY"
	stops_with "$MISSING (/usr/bin/rustc has no source of its library ($LIBRARY)): apt install rustc rust-src, or make RUST=kernel" RUST=standin
}

case_gcc_missing() {
	hide "/usr/bin/$GCC" "/usr/bin/${GCC#*-linux-gnu-}"
	stops_with "standin.sh: the kernel was built by $(config CC_VERSION_TEXT), which is missing: apt install ${GCC#*-linux-gnu-}"
}

case_gcc_of_another_version() {
	# shellcheck disable=SC2016 # for the replacement
	replace "/usr/bin/$GCC" <<<'[[ $1 == -dumpversion ]] && echo 9 || echo "gcc 9.9.0"'
	stops_with "standin.sh: the kernel was built by $(config CC_VERSION_TEXT), and /usr/bin/$GCC is gcc 9.9.0: apt install ${GCC#*-linux-gnu-}"
}

case_unknown_crate() {
	stops_with "module.sh: RUST=other is neither kernel nor standin: make RUST=standin" RUST=other
}

# --- the machine -------------------------------------------------------------

case_path_with_blanks() {
	TREE="$TMP/a tree"
	copy_tree
	stops_with "module.sh: the kernel's build system cannot work in a path with blanks or the characters of a shell: mv '$TREE' /some/directory"
}

case_path_with_an_apostrophe() {
	TREE="$TMP/toa's tree"
	copy_tree
	stops_with "module.sh: the kernel's build system cannot work in a path with blanks or the characters of a shell: mv '${TREE/\'/\'\\\'\'}' /some/directory"
}

case_little_room() {
	mkdir "$TMP/small"
	mount -t tmpfs -o size=16M tmpfs "$TMP/small"
	TREE=$TMP/small/tree
	copy_tree
	stops_with "module.sh: $TREE has $(df -Pm "$TREE" | awk 'NR == 2 { print $4 }') MB free, and a build takes 100 MB: make room there"
}

# The file system has room for bytes, but not for more files than the first ones.
case_disk_that_fills_up() {
	mkdir "$TMP/few"
	copy_tree
	mount -t tmpfs -o "size=300M,nr_inodes=$(($(find "$TREE" | wc -l) + 16))" tmpfs "$TMP/few"
	mv "$TREE" "$TMP/few/tree"
	TREE=$TMP/few/tree
	stops_with "module.sh: the disk of $TREE is full: make room there; nothing is kept"
}

case_tree_that_cannot_be_written() {
	copy_tree
	mount --bind "$TREE" "$TREE"
	mount -o remount,bind,ro "$TREE"
	stops_with "module.sh: cannot write to $TREE, which belongs to root: copy it to a directory of yours, or sudo make"
}

case_core_cache_that_cannot_be_written() {
	mkdir "$TMP/cache"
	mount --bind "$TMP/cache" "$TMP/cache"
	mount -o remount,bind,ro "$TMP/cache"
	export TOA_CORE_CACHE=$TMP/cache
	stops_with "module.sh: cannot write to $TMP/cache: TOA_CORE_CACHE=/some/directory make"
}

case_core_cache_on_a_full_disk() {
	mkdir "$TMP/cache"
	mount -t tmpfs -o size=16M tmpfs "$TMP/cache"
	export TOA_CORE_CACHE=$TMP/cache
	stops_with "module.sh: $TMP/cache has 16 MB free, and core takes 120 MB: TOA_CORE_CACHE=/some/directory make"
	same "in the cache" "" "$(ls -A "$TMP/cache")"
}

# --- core --------------------------------------------------------------------

# core NUMBER: core.sh with a compiler that writes 'core' and counts its calls.
core() {
	[[ -e $TMP/compiler ]] || {
		cat >"$TMP/compiler" <<-'STUB'
			#!/bin/bash
			[[ ${!#} != -vV ]] || exec echo 1.85
			for word; do [[ $word != --emit=link=* ]] || out=${word#--emit=link=}; done
			[[ ! -e ${0%/*}/wait ]] || read -r <"${0%/*}/wait"
			echo core >"$out"
			echo compiled >>"${0%/*}/calls"
		STUB
		chmod +x "$TMP/compiler"
		echo target >"$TMP/target.json"
	}
	"$REPO/rust/core.sh" "$TMP/kept" "$LIBRARY" "$TMP/out$1" "$TMP/target.json" "$TMP/compiler"
}

calls() {
	wc -l <"$TMP/calls"
}

case_core_is_compiled_once() {
	core 1
	core 2
	same "calls" 1 "$(calls)"
	same "copy" core "$(<"$TMP/out2")"
}

case_damaged_core_is_compiled_again() {
	core 1
	truncate -s 2 "$TMP"/kept/libcore-*.rlib
	core 2
	same "calls" 2 "$(calls)"
	same "copy" core "$(<"$TMP/out2")"
	same "kept" 1 "$(find "$TMP/kept" -type f | wc -l)"
}

case_core_is_taken_from_a_cache_that_cannot_be_written() {
	core 1
	mount --bind "$TMP/kept" "$TMP/kept"
	mount -o remount,bind,ro "$TMP/kept"
	core 2
	same "copy" core "$(<"$TMP/out2")"
}

case_core_unused_for_a_month_is_removed() {
	core 1
	touch -d '32 days ago' "$TMP"/kept/*
	touch -d '32 days ago' "$TMP/kept/libcore-0123-4567.rlib"
	echo other >"$TMP/target.json"
	core 2
	same "kept" 1 "$(find "$TMP/kept" -type f | wc -l)"
}

# A build that removes what is old waits for one that copies, and the reverse.
case_core_is_not_removed_while_a_build_copies_it() {
	local holder
	core 1
	exec 5<"$TMP/kept"
	flock -s 5
	echo other >"$TMP/target.json"
	core 2 >"$TMP/output" 5<&- &
	holder=$!
	until grep -q waiting "$TMP/output"; do read -rt 0.1 <> <(:) || true; done
	same "calls" 1 "$(calls)"
	exec 5<&-
	wait "$holder"
	same "calls" 2 "$(calls)"
}

case_two_builds_compile_core_once() {
	mkfifo "$TMP/wait"
	core 1 &
	until [[ -d $TMP/kept ]] && ! flock -sn "$TMP/kept" true; do read -rt 0.1 <> <(:) || true; done
	core 2 >"$TMP/output" &
	until grep -q waiting "$TMP/output"; do read -rt 0.1 <> <(:) || true; done
	echo go >"$TMP/wait"
	wait
	same "calls" 1 "$(calls)"
	same "copies" "core core" "$(cat "$TMP/out1" "$TMP/out2" | paste -sd' ')"
}

case_core_cut_off_leaves_nothing() {
	local pid
	mkfifo "$TMP/wait"
	set -m
	core 1 &
	pid=$!
	set +m
	until [[ -d $TMP/kept ]] && ! flock -sn "$TMP/kept" true; do read -rt 0.1 <> <(:) || true; done
	kill -TERM -- "-$pid"
	! wait "$pid" || die "it succeeded"
	same "kept" "" "$(find "$TMP/kept" -type f)"
}

# --- builds ------------------------------------------------------------------

# begin: starts make in a process group, and waits for the line of its first compiler.
begin() {
	copy_tree
	: >"$TMP/output"
	set -m
	make --no-print-directory -C "$TREE" "KVER=$KVER" >"$TMP/output" 2>&1 </dev/null &
	BUILD=$!
	set +m
	until grep -q 'OFFSETS\|RUSTC' "$TMP/output"; do
		kill -0 "$BUILD" 2>/dev/null || die "$(<"$TMP/output")"
		read -rt 0.1 <> <(:) || true
	done
}

# No process of a build in the copy is left.
no_process_left() {
	local left
	left=$(grep -lsF "$TREE" /proc/[0-9]*/cmdline || true)
	[[ -z $left ]] || die "still runs: $(tr '\0' ' ' <"${left%%$'\n'*}")"
}

case_interrupted_build_leaves_nothing() {
	begin
	kill -INT -- "-$BUILD"
	! wait "$BUILD" || die "it succeeded"
	has "output" "module.sh: interrupted, nothing is kept" "$(<"$TMP/output")"
	no_process_left
	nothing_left
	builds
	! grep -q 'starting over\|waiting' "$TMP/stderr" || die "$(<"$TMP/stderr")"
}

case_terminated_build_leaves_nothing() {
	begin
	kill -TERM "$BUILD"
	! wait "$BUILD" || die "it succeeded"
	no_process_left
	nothing_left
}

case_killed_build_is_started_over() {
	copy_tree
	builds
	touch "$TREE/toa.rs"
	unshare --pid --fork --kill-child --mount-proc make -C "$TREE" "KVER=$KVER" >"$TMP/output" 2>&1 </dev/null &
	BUILD=$!
	until grep -q 'RUSTC \[M\]' "$TMP/output"; do
		kill -0 "$BUILD" 2>/dev/null || die "$(<"$TMP/output")"
		read -rt 0.1 <> <(:) || true
	done
	kill -KILL "$BUILD"
	! wait "$BUILD" 2>/dev/null || die "it succeeded"
	: >"$TREE/main.o"
	builds
	has "stderr" "the last build in $TREE was killed: starting over" "$(<"$TMP/stderr")"
}

case_two_builds_at_once_take_turns() {
	begin
	builds
	has "stderr" "waiting for another build in $TREE" "$(<"$TMP/stderr")"
	wait "$BUILD" || die "$(<"$TMP/output")"
}

# Each of these is the caller's, and must not change the build.
case_umask_and_home_of_any_kind() {
	umask 077
	unset HOME
	copy_tree
	builds -j2 V=
	run_make "KVER=$KVER" "DESTDIR=$TMP/dest" install
	same "status ($(<"$TMP/stderr"))" 0 "$STATUS"
	same "modes" "755 755 644 644" \
		"$(cd "$TMP/dest/lib" && stat -c %a modules "modules/$KVER/updates" "modules/$KVER/updates/toa.ko" "modules/$KVER/modules.dep" | paste -sd' ')"
}

case_says_what_it_does_first() {
	copy_tree
	builds
	has "first line" "for $KVER ($HEADERS) with the stand-in crate: about 10 s, and 20 s more for the first build, of CPU time; the log is $TREE/build/make.log" \
		"$(sed -n 1p "$TMP/stderr")"
	has "second line" "compilers: rustc 1." "$(sed -n 2p "$TMP/stderr")"
	has "second line" "(/usr/bin/rustc), $(config CC_VERSION_TEXT)" "$(sed -n 2p "$TMP/stderr")"
	same "log" "$(<"$TMP/stdout")" "$(<"$TREE/build/make.log")"
	same "crate" stand-in "$(crate_of "$TREE/toa.ko")"
}

# --- installing --------------------------------------------------------------

# A toa.ko without code: installing reads its .modinfo only.
module_for() {
	copy_tree
	printf '.section .modinfo, "a"\n.asciz "%s"\n.asciz "version=1.2.3"\n.asciz "crate=stand-in"\n.asciz "name=toa"\n' \
		"vermagic=$1 SMP" | as -o "$TREE/toa.ko" -
}

# refuses MESSAGE TARGET: checks that make prints only MESSAGE.
refuses() {
	local message=$1
	shift
	run_make "$@"
	same "status" 2 "$STATUS"
	same "message" "module.sh: $message" "$(grep -v '^make: \*\*\*' "$TMP/stderr")"
	[[ ! -e /lib/modules/$KVER/updates ]] || die "something is installed"
}

case_install_without_a_module() {
	copy_tree
	refuses "there is no toa.ko in $TREE: make KVER=$KVER" install "KVER=$KVER"
}

case_install_of_another_kernels_module() {
	module_for 9.9.9-amd64
	refuses "toa.ko here is for 9.9.9-amd64, not for $KVER: make KVER=$KVER" install "KVER=$KVER"
}

case_install_of_a_damaged_module() {
	module_for "$KVER"
	echo damaged >"$TREE/toa.ko"
	refuses "$TREE/toa.ko is damaged: make clean, and make again" install "KVER=$KVER"
}

case_install_for_a_kernel_that_is_not_installed() {
	module_for 9.9.9-amd64
	refuses "the kernel 9.9.9-amd64 is not installed, there is no /lib/modules/9.9.9-amd64: apt install linux-image-9.9.9-amd64" \
		install KVER=9.9.9-amd64
}

case_install_without_kmod() {
	module_for "$KVER"
	hide /usr/sbin/modinfo
	refuses "modinfo and depmod are missing: apt install kmod" install "KVER=$KVER"
}

# Users' PATH has no /usr/sbin.
case_install_without_permission() {
	module_for "$KVER"
	chmod 755 "$TMP" "$TREE"
	STATUS=0
	setpriv --reuid 65534 --regid 65534 --clear-groups env -i PATH=/usr/bin:/bin \
		make --no-print-directory -C "$TREE" install "KVER=$KVER" >"$TMP/stdout" 2>"$TMP/stderr" || STATUS=$?
	same "message" "module.sh: no permission to write to /lib/modules/$KVER: sudo make install KVER=$KVER" "$(grep -v '^make: \*\*\*' "$TMP/stderr")"
	same "status" 2 "$STATUS"
}

case_install_and_uninstall() {
	changeable /usr/lib/modules
	module_for "$KVER"
	run_make install "KVER=$KVER"
	same "messages" "installed /lib/modules/$KVER/updates/toa.ko, version 1.2.3, stand-in crate" "$(<"$TMP/stderr")"
	same "status" 0 "$STATUS"
	same "modinfo" "/lib/modules/$KVER/updates/toa.ko" "$(modinfo -k "$KVER" -F filename toa)"
	mkdir -p /etc/modules-load.d
	changeable /etc/modules-load.d
	echo toa >/etc/modules-load.d/toa.conf
	run_make uninstall "KVER=$KVER"
	same "messages" "removed /lib/modules/$KVER/updates/toa.ko
/etc/modules-load.d/toa.conf still loads toa at each start-up: rm /etc/modules-load.d/toa.conf" "$(<"$TMP/stderr")"
	[[ ! -e /lib/modules/$KVER/updates ]] || die "left"
	! modinfo -k "$KVER" toa 2>/dev/null || die "depmod did not run"
	run_make uninstall "KVER=$KVER"
	has "messages" "toa.ko is not installed for $KVER" "$(<"$TMP/stderr")"
}

case_uninstall_while_toa_is_loaded() {
	mount -t tmpfs tmpfs /sys
	mkdir -p /sys/module/toa
	copy_tree
	run_make uninstall "KVER=$KVER"
	same "last line" "toa is still loaded: rmmod toa" "$(tail -n 1 "$TMP/stderr")"
}

# --- running them ------------------------------------------------------------

give() {
	"$SCRIPTS/root.sh" make build
	mkdir -p "$REPO/build"
	"$SCRIPTS/kernel.sh" resolve | sed -n 's/^release=/KVER=/p' >"$GIVEN"
}

if [[ ${1:-} == --in-namespace ]]; then
	# shellcheck source=/dev/null
	. "$GIVEN"
	export TMP=$3
	need_private_mounts
	set_stage
fi
cases_in_root build give "$@"
