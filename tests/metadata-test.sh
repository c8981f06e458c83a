#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Tests of scripts/metadata.sh: its messages and actions for missing or wrong tools.
#
#   metadata-test.sh [CASE…]
#
# KERNEL= and KVER= select the kernel (see kernel.sh). SLOW=1 also runs the cases
# that make metadata, one to three minutes each. Run it as root: it enters the root
# in which modules are built. Prints TAP.
#
# Each case has private mounts, with which it hides or replaces files. Only the
# answers of apt-cache are simulated, so that they do not depend on the lists of
# the day.

. "$(dirname "$0")/../scripts/lib.sh"
. "$REPO/tests/cases.sh"
. "$REPO/tests/doctored.sh"

METADATA=$SCRIPTS/metadata.sh
# The kernel's version, written outside the root for the cases.
GIVEN=$REPO/build/metadata-test

# --- the stage ---------------------------------------------------------------

set_stage() {
	CACHE=$TMP/cache
	HEADERS=$(realpath "/lib/modules/$KVER/build")
	mkdir "$TMP/bin"
	RUSTC_TEXT=$(config RUSTC_VERSION_TEXT)
	BINDGEN_TEXT=$(config BINDGEN_VERSION_TEXT)
	GCC=$(config CC_VERSION_TEXT | awk '{ print $1 }')
	RUSTC_VERSION=$(dpkg-query -W -f '${Version}' rustc)
	BINDGEN_VERSION=$(dpkg-query -W -f '${Version}' bindgen)
	SOURCE=linux-source-$(grep -oE '^[0-9]+\.[0-9]+' <<<"$KVER")
	SOURCE_VERSION=$(dpkg-query -W -f '${source:Version}' "linux-headers-$KVER")
	apt_offers rustc "$RUSTC_VERSION" rust-src "$RUSTC_VERSION" bindgen "$BINDGEN_VERSION" "$SOURCE" "$SOURCE_VERSION"
}

metadata() {
	STATUS=0
	PATH=$TMP/bin:$PATH TOA_METADATA_CACHE=$CACHE "$METADATA" "$@" \
		>"$TMP/stdout" 2>"$TMP/stderr" || STATUS=$?
}

# --- claims ------------------------------------------------------------------

# fails_with MESSAGE ARGUMENT…: checks that metadata.sh prints MESSAGE and the other
# choice, and nothing else.
fails_with() {
	local message=$1
	shift
	fails_plainly_with "$message, or make RUST=standin, which takes rustc 1.85 or later and its source only" "$@"
}

# fails_plainly_with MESSAGE ARGUMENT…: checks that metadata.sh prints only MESSAGE,
# within seconds.
fails_plainly_with() {
	local message=$1
	shift
	SECONDS=0
	metadata "$@"
	same "status" 1 "$STATUS"
	same "message" "metadata.sh: $message" "$(<"$TMP/stderr")"
	same "standard output" "" "$(<"$TMP/stdout")"
	nothing_kept
	((SECONDS < 10)) || die "the message took $SECONDS s"
}

# fails_late_with PATTERN ARGUMENT…: checks the last line, after some work.
fails_late_with() {
	local pattern=$1
	shift
	metadata "$@"
	same "status" 1 "$STATUS"
	tail -n 1 "$TMP/stderr" | grep -qE -- "$pattern" || die "stderr: $(<"$TMP/stderr")"
	same "standard output" "" "$(<"$TMP/stdout")"
	nothing_kept
}

prints() {
	local expected=$1
	shift
	metadata "$@"
	same "status ($(<"$TMP/stderr"))" 0 "$STATUS"
	same "standard output" "$expected" "$(<"$TMP/stdout")"
}

nothing_kept() {
	local kept
	kept=$(find "$CACHE" -mindepth 1 ! -name .lock 2>/dev/null | head -n 3 || true)
	[[ -z $kept ]] || die "left in the cache: $kept"
}

# --- the kernel --------------------------------------------------------------

case_headers_missing() {
	fails_plainly_with "the headers of 9.9.9-amd64 are missing (/lib/modules/9.9.9-amd64/build): apt install linux-headers-9.9.9-amd64" \
		--kver 9.9.9-amd64
}

case_headers_of_another_release() {
	fails_plainly_with "$HEADERS has the headers of $KVER, not of 9.9.9-amd64: apt install linux-headers-9.9.9-amd64" \
		--kver 9.9.9-amd64 --kdir "$HEADERS"
}

case_kernel_without_rust() {
	local installed
	installed=$(cd /lib/modules && grep -ls '^CONFIG_RUST=y' -- */build/.config | sed 's|/.*||' | paste -sd' ')
	copy_headers
	sed -i 's/^CONFIG_RUST=y/# CONFIG_RUST is not set/' "$KDIR/.config"
	fails_plainly_with "the kernel $KVER was built without Rust (CONFIG_RUST is off): toa's own crate builds for it, make RUST=standin. Debian's kernels have it in trixie-backports (7.2 and later), forky and sid, trixie's own 6.12 has not. Headers that have it, installed here: $installed: apt install -t trixie-backports linux-image-amd64 linux-headers-amd64" \
		--kdir "$KDIR"
}

case_headers_of_no_package() {
	copy_headers
	dpkg_says "linux-headers-$KVER" "not-installed"
	fails_with "$KDIR has no Rust metadata (rust/libkernel.rmeta), and it is not Debian's package linux-headers-$KVER, for which it can be made: apt install linux-headers-$KVER" \
		--kdir "$KDIR"
}

case_ubuntu_without_its_package() {
	dpkg_says "linux-headers-$KVER" "not-installed"
	replace /etc/os-release <<<'ID=ubuntu'
	fails_with "the headers of $KVER have no Rust metadata: apt install linux-lib-rust-$KVER" --kver "$KVER"
}

case_path_with_blanks() {
	copy_headers
	mv "$KDIR" "$TMP/k dir"
	fails_plainly_with "the kernel's build system cannot work in a path with blanks or colons: $TMP/k dir" --kdir "$TMP/k dir"
}

# --- compilers ---------------------------------------------------------------

hide_rustc() {
	hide /usr/bin/rustc /usr/bin/rustc-[0-9]*
}

case_rustc_missing() {
	hide_rustc
	fails_with "the kernel was built by $RUSTC_TEXT, which is missing: apt install rustc=$RUSTC_VERSION rust-src=$RUSTC_VERSION" \
		--kver "$KVER"
}

case_rustc_not_to_the_letter() {
	replace /usr/bin/rustc <<<"echo '${RUSTC_TEXT/)/x)}'"
	fails_with "the kernel was built by $RUSTC_TEXT, and /usr/bin/rustc is ${RUSTC_TEXT/)/x)}: apt install rustc=$RUSTC_VERSION rust-src=$RUSTC_VERSION" \
		--kver "$KVER"
}

case_rustc_web_installed() {
	replace /usr/bin/rustc <<<"echo 'rustc 1.99.0 (web)'"
	dpkg_says rustc-web "installed 1.99.0"
	fails_with "the kernel was built by $RUSTC_TEXT, and /usr/bin/rustc is rustc 1.99.0 (web) (the package rustc-web provides rustc, but not the kernel's): apt install rustc=$RUSTC_VERSION rust-src=$RUSTC_VERSION" \
		--kver "$KVER"
}

case_rustc_of_a_newer_suite_preferred_by_apt() {
	local minor
	minor=$(grep -oE '[0-9]+\.[0-9]+' <<<"$RUSTC_TEXT" | head -n 1)
	hide_rustc
	apt_offers rustc 9.9.9+dfsg1-1 rustc "$RUSTC_VERSION"
	fails_with "the kernel was built by $RUSTC_TEXT, which is missing: apt install rustc=$RUSTC_VERSION rust-src=$RUSTC_VERSION libstd-rust-dev=$RUSTC_VERSION libstd-rust-$minor=$RUSTC_VERSION" \
		--kver "$KVER"
}

case_rustc_not_offered_by_apt() {
	hide_rustc
	apt_offers rustc 9.9.9+dfsg1-1
	fails_with "the kernel was built by $RUSTC_TEXT, which is missing (apt offers no rustc $(awk '{ print $2 }' <<<"$RUSTC_TEXT"): run apt update, or add the suite that the kernel comes from): apt install rustc rust-src" \
		--kver "$KVER"
}

case_rustup_first_in_path_is_passed_over() {
	stand_in rustc <<<"echo 'rustc 1.99.0 (rustup)'"
	metadata --kver "$KVER" --print-make-vars
	same "status" 0 "$STATUS"
	same "first word" RUSTC=/usr/bin/rustc "$(cut -d' ' -f1 "$TMP/stdout")"
}

case_bindgen_missing() {
	hide /usr/bin/bindgen
	fails_with "bindgen is missing: apt install bindgen=$BINDGEN_VERSION" --kver "$KVER"
}

case_bindgen_of_another_version() {
	replace /usr/bin/bindgen <<<"echo 'bindgen 0.99.0'"
	fails_with "the kernel was built with $BINDGEN_TEXT, and /usr/bin/bindgen is bindgen 0.99.0: apt install bindgen=$BINDGEN_VERSION" \
		--kver "$KVER"
}

case_libclang_missing() {
	hide /usr/lib/llvm-*/lib/libclang*.so* /usr/lib/*-linux-gnu/libclang*.so*
	fails_with "/usr/bin/bindgen does not find libclang: apt install libclang-dev" --kver "$KVER"
}

case_rust_src_missing() {
	local library
	library=$(rustc --print sysroot)/lib/rustlib/src/rust/library
	hide "$library"
	fails_with "the source of Rust's core library is missing ($library/core/src/lib.rs): apt install rust-src=$RUSTC_VERSION" \
		--kver "$KVER"
}

case_gcc_missing() {
	hide "/usr/bin/$GCC"
	fails_with "the kernel was built by $(config CC_VERSION_TEXT), which is missing: apt install ${GCC#*-linux-gnu-}" --kver "$KVER"
}

# --- what making it takes ----------------------------------------------------

case_source_missing() {
	dpkg_says "$SOURCE" "not-installed"
	fails_with "$SOURCE is missing: apt install $SOURCE=$SOURCE_VERSION" --kver "$KVER"
}

case_source_of_another_version() {
	dpkg_says "$SOURCE" "installed 7.0.1-1"
	fails_with "$SOURCE is 7.0.1-1 and the headers of $KVER are $SOURCE_VERSION: apt install $SOURCE=$SOURCE_VERSION" \
		--kver "$KVER"
}

case_source_gone_from_the_archive() {
	dpkg_says "$SOURCE" "not-installed"
	apt_offers "$SOURCE" 9.9.9-1
	fails_with "$SOURCE is missing (apt does not offer that version now: run apt update; if it is gone, take the newest kernel, headers and source): apt install $SOURCE=$SOURCE_VERSION" \
		--kver "$KVER"
}

case_tarball_missing() {
	hide "/usr/src/$SOURCE.tar.xz"
	fails_with "/usr/src/$SOURCE.tar.xz is missing, though $SOURCE is installed: apt install --reinstall $SOURCE" \
		--kver "$KVER"
}

# The state in which DKMS finds the headers while dpkg configures them.
case_headers_that_are_being_configured() {
	dpkg_says "linux-headers-$KVER" "half-configured $SOURCE_VERSION"
	hide "/usr/src/$SOURCE.tar.xz"
	fails_with "/usr/src/$SOURCE.tar.xz is missing, though $SOURCE is installed: apt install --reinstall $SOURCE" \
		--kver "$KVER"
}

case_source_that_is_unpacked_but_not_configured() {
	dpkg_says "$SOURCE" "unpacked $SOURCE_VERSION"
	hide "/usr/src/$SOURCE.tar.xz"
	fails_with "/usr/src/$SOURCE.tar.xz is missing, though $SOURCE is installed: apt install --reinstall $SOURCE" \
		--kver "$KVER"
}

case_bison_flex_and_bc_missing() {
	hide /usr/bin/bison /usr/bin/flex /usr/bin/bc
	fails_with "bc is missing; bison is missing; flex is missing: apt install bc bison flex" --kver "$KVER"
}

case_libssl_headers_missing() {
	hide /usr/include/openssl
	fails_with "<openssl/opensslv.h> is missing: apt install libssl-dev" --kver "$KVER"
}

case_several_things_missing_are_one_message() {
	hide_rustc
	hide /usr/bin/flex
	dpkg_says "$SOURCE" "not-installed"
	fails_with "the kernel was built by $RUSTC_TEXT, which is missing; flex is missing; $SOURCE is missing: apt install rustc=$RUSTC_VERSION rust-src=$RUSTC_VERSION flex $SOURCE=$SOURCE_VERSION" \
		--kver "$KVER"
}

case_disk_full() {
	mkdir "$CACHE"
	mount -t tmpfs -o size=16M tmpfs "$CACHE"
	# The rest of a killed run does not count.
	mkdir "$CACHE/.new-killed"
	head -c 8M /dev/zero >"$CACHE/.new-killed/file"
	fails_with "$CACHE has 16 MB free, making the metadata takes 800 MB: make room there, or TOA_METADATA_CACHE=/some/directory make" \
		--kver "$KVER"
}

case_cache_cannot_be_written() {
	mkdir "$CACHE"
	mount --bind "$CACHE" "$CACHE"
	mount -o remount,bind,ro "$CACHE"
	fails_with "cannot write to $CACHE: TOA_METADATA_CACHE=/some/directory make" --kver "$KVER"
}

case_cache_path_with_blanks() {
	CACHE="$TMP/a cache"
	fails_with "the kernel's build system cannot work in a path with blanks or colons: TOA_METADATA_CACHE=/some/directory make" \
		--kver "$KVER"
}

case_unknown_option() {
	metadata --frobnicate
	same "status" 1 "$STATUS"
	grep -q -- '--print-make-vars' "$TMP/stderr" || die "no help"
}

# --- what works --------------------------------------------------------------

case_headers_with_metadata_are_taken_as_they_are() {
	copy_headers
	mkdir "$KDIR/rust"
	touch "$KDIR/rust/libkernel.rmeta" "$KDIR/rust/libmacros.so"
	rm "$KDIR/scripts"
	mkdir "$KDIR/scripts"
	touch "$KDIR/scripts/target.json"
	dpkg_says "$SOURCE" "not-installed"
	prints "$KDIR" --kdir "$KDIR"
}

case_make_vars_name_the_tools() {
	local tools=/usr/bin
	prints "RUSTC=$tools/rustc BINDGEN=$tools/bindgen CLIPPY_DRIVER=$tools/clippy-driver RUSTFMT=$tools/rustfmt" \
		--kver "$KVER" --print-make-vars
}

# A configuration that differs from the source's is rejected before Rust is built.
case_configuration_that_is_not_the_kernels() {
	slow
	copy_headers
	echo 'CONFIG_TOA_OF_ANOTHER_KERNEL=y' >>"$KDIR/.config"
	fails_late_with "^metadata.sh: the settings above differ" --kdir "$KDIR"
	grep -qx '  CONFIG_TOA_OF_ANOTHER_KERNEL=y' "$TMP/stderr" || die "does not name the setting"
}

case_symbols_that_are_not_the_kernels() {
	slow
	copy_headers
	awk -F '\t' '$2 ~ /^_R/ && !done { done = 1; next } { print }' "$HEADERS/Module.symvers" >"$KDIR/Module.symvers"
	fails_late_with "^metadata.sh: the regenerated crates are not the kernel's \([0-9]+ symbols, 1 differ\): nothing was kept" \
		--kdir "$KDIR"
}

case_tarball_cut_short() {
	slow
	head -c 20M "/usr/src/$SOURCE.tar.xz" >"$TMP/short"
	mount --bind "$TMP/short" "/usr/src/$SOURCE.tar.xz"
	fails_late_with "^metadata.sh: /usr/src/$SOURCE.tar.xz could not be unpacked: apt install --reinstall $SOURCE; nothing was kept" \
		--kver "$KVER"
}

case_failing_build_keeps_nothing() {
	slow
	replace "$HEADERS/scripts/mod/modpost" <<<'exit 1'
	fails_late_with "^metadata.sh: the kernel's own .make M=.* failed, its last lines are above; nothing was kept" \
		--kver "$KVER"
}

# The caller's own make variables must not reach the kernel's make.
case_made_once_by_two_at_a_time_then_instant() {
	slow
	local first second
	export MAKEFLAGS=" -- CLIPPY=1 V=1" KCFLAGS=-Wfrobnicate RUSTFLAGS=--frobnicate
	mkdir -p "$CACHE/.new-left-by-one-that-was-killed"
	PATH=$TMP/bin:$PATH TOA_METADATA_CACHE=$CACHE "$METADATA" --kver "$KVER" >"$TMP/first" 2>"$TMP/first.err" &
	until [[ -e $CACHE/.lock ]]; do read -rt 0.1 <> <(:) || true; done
	metadata --kver "$KVER"
	wait $! || die "$(<"$TMP/first.err")"
	same "status ($(<"$TMP/stderr"))" 0 "$STATUS"
	first=$(<"$TMP/first")
	second=$(<"$TMP/stdout")
	same "directory" "$first" "$second"
	[[ -e $first/rust/libkernel.rmeta ]] || die "nothing in $first"
	same "makers" 1 "$(cat "$TMP/first.err" "$TMP/stderr" | grep -c '^metadata: made ')"
	SECONDS=0
	prints "$first" --kver "$KVER"
	((SECONDS < 2)) || die "the second time took $SECONDS s"
	same "in the cache" ".lock ${first##*/}" "$(cd "$CACHE" && find . -mindepth 1 -maxdepth 1 -printf '%f\n' | sort | paste -sd' ')"
}

# --- the crate ---------------------------------------------------------------

# make_here ARGUMENT…: runs make in a copy of the sources, with the metadata that other
# tests have made.
make_here() {
	export TOA_METADATA_CACHE=$TOA_CACHE/metadata TOA_CORE_CACHE=$TOA_CACHE/core
	unset RUST
	compgen -G "$TOA_METADATA_CACHE/${KVER}_*" >/dev/null || slow
	[[ -e ${TREE:-} ]] || copy_tree
	run_make "KVER=$KVER" "$@"
}

# need_item LINE: adds a line to the probe that the kernel's crate refuses.
need_item() {
	copy_tree
	echo "$1" >>"$TREE/rust/probe.rs"
}

# Prints the last message, without those of make.
last_message() {
	grep -v '^make: \*\*\*' "$TMP/stderr" | tail -n 1
}

case_crate_that_toa_knows_is_used() {
	make_here
	same "status ($(<"$TMP/stderr"))" 0 "$STATUS"
	same "crate" kernel "$(crate_of "$TREE/toa.ko")"
	has "first line" "with the kernel's own Rust crate" "$(sed -n 1p "$TMP/stderr")"
}

case_crate_without_an_item_is_not_used() {
	need_item 'use kernel::toa_lacks_this as _;'
	make_here
	same "status ($(<"$TMP/stderr"))" 0 "$STATUS"
	has "stderr" "the Rust crate of the kernel $KVER is not one that toa can use (unresolved import \`kernel::toa_lacks_this\`): taking the stand-in crate, as make RUST=standin does" \
		"$(<"$TMP/stderr")"
	same "crate" stand-in "$(crate_of "$TREE/toa.ko")"
	same "answers kept" 1 "$(find "$TREE/build" -name 'probe-*' | wc -l)"
}

case_crate_without_an_item_that_was_chosen() {
	need_item 'fn _refused() -> u32 { kernel::cpu::nr_cpu_ids(1) }'
	make_here RUST=kernel
	same "status" 2 "$STATUS"
	has "message" "module.sh: the Rust crate of the kernel $KVER is not one that toa can use (" "$(last_message)"
	has "message" "): make RUST=standin" "$(last_message)"
	nothing_left
}

# As module! of 6.8, which has no key \`authors\`.
case_crate_whose_macro_refuses() {
	need_item ''
	sed -i 's/authors:/writers:/' "$TREE/rust/probe.rs"
	make_here RUST=kernel
	same "status" 2 "$STATUS"
	has "message" "is not one that toa can use (" "$(last_message)"
}

# No answer on the crate: the build must stop, and must not take the other one.
case_crate_of_another_compiler() {
	local overlay
	overlay=$(find "$TOA_CACHE/metadata" -maxdepth 1 -name "${KVER}_*" -print -quit)
	[[ -n $overlay ]] || slow
	changeable "$overlay/rust"
	sed -i 's/rustc 1\.\([0-9]*\)\.[0-9] (/rustc 1.\1.9 (/' "$overlay/rust/libkernel.rmeta"
	make_here
	same "status" 2 "$STATUS"
	has "stderr" "error[E0514]" "$(<"$TMP/stderr")"
	same "message" "module.sh: rust/probe.rs could not be compiled against $overlay/rust by /usr/bin/rustc: its first error is above, all are in $TREE/build/make.log; make RUST=standin needs no metadata" \
		"$(last_message)"
	nothing_left
}

# The probe names each item that the sources import.
case_probe_asks_for_what_the_sources_import() {
	local item
	while read -r item; do
		grep -qw -- "$item" "$REPO/rust/probe.rs" || die "rust/probe.rs lacks $item"
	done < <(cd "$REPO" && cat ./*.rs linux/*.rs | sed 's|//.*||' | tr -d ' \n\t' | grep -oE 'usekernel::[^;]*;' |
		sed 's/^usekernel:://' | grep -oE '[A-Za-z_]+' | grep -vx prelude | sort -u)
}

case_user_without_home() {
	local status=0
	setpriv --reuid 65534 --regid 65534 --clear-groups env -u HOME -u TOA_METADATA_CACHE -u XDG_CACHE_HOME \
		PATH="$TMP/bin:$PATH" TOA_CACHE=/nonexistent "$METADATA" --kver "$KVER" >"$TMP/stdout" 2>"$TMP/stderr" || status=$?
	same "status" 1 "$status"
	same "message" "metadata.sh: cannot write to /nonexistent/.cache/toa/metadata: TOA_METADATA_CACHE=/some/directory make, or make RUST=standin, which takes rustc 1.85 or later and its source only" \
		"$(<"$TMP/stderr")"
}

# --- running them ------------------------------------------------------------

slow() {
	[[ -n $SLOW ]] || skip "it makes metadata: SLOW=1"
}

give() {
	"$SCRIPTS/root.sh" make build
	mkdir -p "$REPO/build"
	"$SCRIPTS/kernel.sh" resolve | sed -n 's/^release=/KVER=/p' >"$GIVEN"
	echo "SLOW=${SLOW:-}" >>"$GIVEN"
}

if [[ ${1:-} == --in-namespace ]]; then
	# shellcheck source=/dev/null
	. "$GIVEN"
	export TMP=$3
	need_private_mounts
	set_stage
fi
cases_in_root build give "$@"
