#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Builds the module and the test programs, and runs them in a virtual machine.
#
#   vm-test.sh test [ARGUMENT…]     toa-guest test ARGUMENT…, judged as KTAP
#   vm-test.sh test-no-ipv6 [ARGUMENT…]
#                                   the tests for a kernel that has no IPv6 and
#                                   does not clear memory
#   vm-test.sh test-unload [ARGUMENT…]
#                                   many loads and unloads
#   vm-test.sh test-one-cpu [ARGUMENT…]
#                                   the tests of loads, on one processor
#   vm-test.sh test-servers [ARGUMENT…]
#                                   the tests of servers that need a larger image
#   vm-test.sh test-selftests [ARGUMENT…]
#                                   the kernel's own tests, after selftests.sh built
#                                   them; prints their table
#   vm-test.sh test-secure-boot [ARGUMENT…]
#                                   the tests with Secure Boot, after
#                                   secure-boot.sh made keys and modules
#   vm-test.sh test-faults [ARGUMENT…]
#                                   the tests of failed allocations, on a debug
#                                   kernel
#   vm-test.sh test-planted         planted bugs, each in a separate machine,
#                                   which the debug kernel must report
#   vm-test.sh test-model [ARGUMENT…]
#                                   random scripts, compared with a model
#   vm-test.sh test-soak [ARGUMENT…]
#                                   mixed traffic and hostile segments
#   vm-test.sh test-prebuilt        the tarballs of secure-boot.sh, in the same
#                                   machine
#   vm-test.sh has-tests test[-NAME]
#                                   succeeds if FILTER= selects any of these
#   vm-test.sh demo                 toa-guest demo, with its output
#   vm-test.sh boot DIR COMMAND [OPTION…]
#                                   any files and any command, with options of
#                                   toa-vm: DIR becomes /toa
#
# These need the following, in this order:
#
#   vm-test.sh programs             the user-space programs, release builds
#   vm-test.sh command-line-tool    the command toa, which is one of them
#   vm-test.sh go-server            the tests' server in Go
#   vm-test.sh peer-servers         the example servers of peer/
#   nginx.sh bundles                the modules for nginx, and sid's nginx
#   vm-test.sh metadata             the Rust metadata that toa.ko is built with
#   vm-test.sh module               toa.ko for KERNEL, in build/<release>/module
#   vm-test.sh test-module          the tests' own module, beside it
#   vm-test.sh bench-objects        what `make bench` compares toa.ko with, and toa.ko with
#                                   records
#   vm-test.sh clippy               clippy for both
#   vm-test.sh roots                all roots, images and kernels, as stages
#   vm-test.sh builds               all programs and modules, as stages
#   vm-test.sh demo-roots, demo-builds
#                                   roots and builds for the demonstration only
#
# KERNEL=, KVER=      which kernel (see kernel.sh)
# RUST=               which kernel crate, kernel or standin (default: make's choice); what
#                     is made with it goes to build/<release>-<crate>
# VM_OPTIONS=         more options of toa-vm, such as "--idle 300 --plain"
# FILTER=             words: only the tests whose names contain one of them
# EXPECT=             the least number of results (default: the number of tests
#                     that `toa-guest test --list` prints)
#
# TOA_STEPS=, TOA_SEED=
#                     the least number of steps of test-model (default: 100000), and
#                     the seed of its first script (default: 1)
# TOA_SCRIPT=         a file with a script that test-model runs in place of random ones
# TOA_CYCLES=         the loads and unloads of each case of test-unload (default: 100)
# TOA_MINUTES=, TOA_SEGMENTS=
#                     the time of test-soak (default: 60), and the least number of its
#                     hostile segments (default: 1000000), which come from TOA_SEED=
#
# TCG=                multi: QEMU runs each processor of test-unload in a thread (default:
#                     single)
# TRACER=             1: the function tracer runs during the tests
#
# VM_DIR=             the directory of the logs (default: build/<release>/vm, and
#                     for test-NAME build/<release>/vm-NAME)
#
# tests/skips.txt     the skips that each kernel is expected to have
#
# TOA_SUMMARY=        a file for the counts of the run, beside the one in VM_DIR
#
# A run writes console.log, ktap.log and out/ to VM_DIR. Two runs can work side by
# side in one clone: builds take turns.

. "$(dirname "$0")/lib.sh"
shopt -s inherit_errexit

BUILD=$REPO/build
TARGET=$BUILD/target
PROGRAMS=$TARGET/release
# The demonstration's programs are not optimized: that takes longer than their run.
DEMO_TARGET=$BUILD/demo

in_tools() {
	CARGO_TARGET_DIR=$TARGET "$SCRIPTS/root.sh" run "$TOOLS" "$@"
}

programs() {
	in_tools cargo build --release --locked --workspace --bins --manifest-path "$REPO/tests/Cargo.toml" >&2
	command_line_tool
}

# Builds the command toa as packages and tarballs have it: static, so that it runs on any Debian.
command_line_tool() {
	in_tools env CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS="-C target-feature=+crt-static" \
		cargo build --release --locked --target x86_64-unknown-linux-gnu --manifest-path "$REPO/cli/Cargo.toml" >&2
}

demo_programs() {
	TARGET=$DEMO_TARGET in_tools env CARGO_PROFILE_DEV_DEBUG=0 cargo build --locked --bins \
		-p toa-guest -p toa-balancer -p toa-vm --manifest-path "$REPO/tests/Cargo.toml" >&2
}

# go_build NAME DIRECTORY SOURCES
go_build() {
	mkdir -p "$TARGET/release"
	"$SCRIPTS/root.sh" run go \
		go build -C "$REPO/$2" -buildvcs=false -ldflags=-s -o "$TARGET/release/$1" "$3" >&2
}

go_server() {
	go_build toa-go-server tests/guest/servers/go .
}

# Builds the example servers: in C with the installed library, in Rust from the host
# tests' build. Python's needs no build: payload copies its package.
peer_servers() {
	local prefix=$BUILD/peer
	go_build peer-server-go peer/examples server.go
	in_tools cargo build --locked --example server --manifest-path "$REPO/peer/Cargo.toml" >&2
	cp "$TARGET/debug/examples/server" "$TARGET/release/peer-server-rust"
	rm -rf "$prefix"
	in_tools cargo cinstall --locked --release --manifest-path "$REPO/peer/c/Cargo.toml" \
		--prefix "$prefix" --libdir "$prefix/lib" >&2
	# shellcheck disable=SC2016 # the shell in the root expands it
	in_tools env "PKG_CONFIG_PATH=$prefix/lib/pkgconfig" sh -c \
		'cc -O2 -Wall -Wextra -Werror -o "$1" "$2" $(pkg-config --cflags --libs toa_peer) -Wl,-rpath,/toa/lib' \
		sh "$TARGET/release/peer-server-c" "$REPO/peer/examples/server.c"
}

# Updates the copy of the module's sources in which a plain `make` runs. Files that did
# not change keep their times. Files that no longer exist are removed.
update_sources() {
	local dir=$1 file
	mkdir -p "$dir"
	sources | grep -vP '^(tests/(?!kernel/)|peer/|nginx/|cli/|build/|\.ci/)' | while read -r file; do
		[[ ! -e $REPO/$file ]] || cmp -s "$REPO/$file" "$dir/$file" || {
			mkdir -p "$(dirname "$dir/$file")"
			cp -p "$REPO/$file" "$dir/$file"
		}
	done
	find "$dir" "$dir/linux" "$dir"/rust/kernel{,/sync} -maxdepth 1 -name '*.rs' ! -name toa_offsets.rs | while read -r file; do
		[[ -e $REPO/${file#"$dir/"} ]] || rm "$file"
	done
}

# Sets release, version, … and kernel_dir, and MADE, the directory of what is made for the
# kernel with that crate.
kernel() {
	local found
	found=$("$SCRIPTS/kernel.sh" "$1")
	eval "$found"
	MADE=$BUILD/$release${RUST:+-$RUST}
}

# Builds the small kernel, and puts its headers where packages have theirs.
small_headers() {
	"$SCRIPTS/kernel.sh" fetch >/dev/null
	"$SCRIPTS/root.sh" run "$BUILD_ROOT" ln -sfn "$small/headers" "/usr/src/linux-headers-$release"
}

# as_installed MODULE: strips debugging information, as DKMS does, and signs the module by the key
# of a small kernel that demands it. Other kernels have none.
as_installed() {
	local key=${small:-}/headers/certs/signing_key
	# A module that make did not build again has its signature.
	! tail -c 28 "$1" | grep -qx '~Module signature appended~' || return 0
	"$SCRIPTS/root.sh" run tools strip --strip-debug "$1"
	[[ -n ${small:-} && -s $key.pem ]] || return 0
	"$SCRIPTS/root.sh" run "$BUILD_ROOT" "$small/headers/scripts/sign-file" sha256 "$key.pem" "$key.x509" "$1"
}

# make_module DIRECTORY [NAME=VALUE…]: runs a plain `make` in a copy of the sources.
make_module() {
	local dir=$1
	shift
	update_sources "$dir"
	[[ -z ${small:-} ]] || small_headers
	cd "$dir"
	"$SCRIPTS/root.sh" run "$BUILD_ROOT" env "TOA_CORE_CACHE=$TOA_CACHE/core" \
		make --no-print-directory "KVER=$release" "$@" >&2
}

# Makes the kernel's Rust metadata, which the archive does not have.
metadata() {
	kernel resolve
	# A kernel without Rust, or the stand-in crate, takes none.
	[[ -n ${rustc_text:-} && ${RUST:-kernel} == kernel ]] || return 0
	"$SCRIPTS/root.sh" run "$BUILD_ROOT" "$SCRIPTS/metadata.sh" --kver "$release" >&2
}

module() {
	kernel resolve
	make_module "$MADE/module"
	[[ -s $MADE/module/toa.ko ]] || die "make left no toa.ko in $MADE/module"
	as_installed "$MADE/module/toa.ko"
}

# Builds beside toa.ko, because the sources include some of the module's.
test_module() {
	local dir
	kernel resolve
	dir=$MADE/module/tests/kernel
	make_module "$MADE/module" "M=$dir"
	[[ -s $dir/toa_test.ko ]] || die "make left no toa_test.ko in $dir"
	as_installed "$dir/toa_test.ko"
}

# Builds what `make bench` compares in $MADE/bench: modules whose tables have records, the C module,
# and the eBPF programs.
bench_objects() {
	local count dir
	kernel resolve
	dir=$MADE/bench
	for count in 10 100000 1000000; do
		make_module "$dir/$count" "TOA_FILL=$count"
		cp "$dir/$count/toa.ko" "$dir/toa-$count.ko"
	done
	make_module "$dir/timed" TOA_FILL=1000000 TOA_TIME_LOCKS=1
	cp "$dir/timed/toa.ko" "$dir/toa-timed.ko"
	make_module "$dir/no-lookup" TOA_NO_LOOKUP=1
	cp "$dir/no-lookup/toa.ko" "$dir/toa-no-lookup.ko"
	rm -rf "$dir/overwrite"
	cp -r "$REPO/tests/bench/overwrite" "$dir/overwrite"
	"$SCRIPTS/root.sh" run "$BUILD_ROOT" \
		make -C "/lib/modules/$release/build" "M=$dir/overwrite" modules >&2
	cp "$dir/overwrite/toa_overwrite.ko" "$dir/"
	in_tools clang-19 -target bpf -O2 -g -Wall -Wextra -Werror "-I/usr/include/$(uname -m)-linux-gnu" \
		-c "$REPO/tests/bench/ebpf/toa.bpf.c" -o "$dir/toa.bpf.o"
}

clippy() {
	kernel resolve
	make_module "$MADE/clippy" CLIPPY=1 W=e
	make_module "$MADE/clippy" CLIPPY=1 W=e "M=$MADE/clippy/tests/kernel"
}

# take_turn, end_turn: between these, no other run in this clone builds or copies what was
# built.
take_turn() {
	mkdir -p "$BUILD"
	exec {TURN}>"$BUILD/.turn"
	flock -n "$TURN" || { info "waiting for another run in $REPO" && flock "$TURN"; }
}

end_turn() {
	exec {TURN}>&-
}

# payload DIRECTORY: copies the module and the programs as the guest expects them.
payload() {
	local dir=$1
	take_turn
	rm -rf "$dir"
	mkdir -p "$dir/bin/toa_peer"
	cp "$MADE/module/toa.ko" "$MADE/module/tests/kernel/toa_test.ko" "$dir/"
	cp "$TARGET"/release/toa-{guest,balancer,go-server} "$TARGET"/release/peer-server-{rust,c,go} "$dir/bin/"
	cp "$TARGET/x86_64-unknown-linux-gnu/release/toa" "$dir/bin/"
	cp "$REPO/peer/examples/server.py" "$dir/bin/peer-server.py"
	cp "$REPO"/peer/python/src/toa_peer/*.py "$dir/bin/toa_peer/"
	cp -PR "$BUILD/peer/lib" "$dir/lib"
	rm -r "$dir"/lib/{pkgconfig,*.a}
	[[ ! -d $BUILD/nginx/bundle ]] || cp -r "$BUILD/nginx/bundle" "$dir/nginx"
	[[ -z ${MODULES:-} ]] || cp -r "$MODULES"/. "$dir"
	end_turn
}

# boot DIRECTORY COMMAND [OPTION…]: boots with DIRECTORY as /toa, one machine at a
# time for each directory of logs.
boot() {
	local run=${VM_DIR:-$MADE/vm}
	kernel fetch
	guest=$("$SCRIPTS/vm-image.sh" guest "${GUEST:-guest}")
	locked "vm-$(cksum <<<"$run" | tr -d ' ')" boot_in "$run" "$@"
}

# Sets DEBUG, the options of a machine whose kernel the project builds.
debug_options() {
	DEBUG=()
	is_small "${KERNEL:-}" || return 0
	DEBUG=(--append "$(of_small "$KERNEL" Boot)")
	# The checks of a debug kernel make it several times slower, and take memory. They see in some
	# thousands of connections what they would see in all ports.
	! is_debug "$KERNEL" || DEBUG+=(--timeout 10800 --idle 900 --memory 4096 --append TOA_CONNECTIONS=4096)
}

boot_in() {
	local run=$1 dir=$2 command=$3 status=0
	shift 3
	debug_options
	rm -rf "$run"
	mkdir -p "$run" "$dir/out"
	printf '%s\n' "$command" >"$dir/command"
	in_tools "$SCRIPTS/vm-image.sh" payload "$dir" "$run/payload.ext4"
	# shellcheck disable=SC2086 # options are words
	in_tools "$PROGRAMS/toa-vm" --kernel "$kernel_dir/vmlinuz" --initrd "$kernel_dir/initrd.cpio.gz" \
		--disk "$guest" --disk "$kernel_dir/modules.ext4" --payload "$run/payload.ext4" \
		--out "$run" "$@" "${DEBUG[@]}" ${VM_OPTIONS:-} || status=$?
	in_tools "$SCRIPTS/vm-image.sh" unpack "$run/payload.ext4" "$run"
	rm -f "$run/payload.ext4"
	info "the guest's console: $run/console.log, its output: $run/ktap.log"
	[[ -z ${TOA_SUMMARY:-} || ! -e $run/summary ]] || cp "$run/summary" "$TOA_SUMMARY"
	return "$status"
}

# list ARGUMENT…: prints the names of the tests that the arguments select.
list() {
	in_tools "$TARGET/release/toa-guest" test --list "$@"
}

# Sets FILTERS, the arguments of toa-guest for FILTER=.
filters() {
	local words
	read -ra words <<<"${FILTER:-}"
	FILTERS=("${words[@]/#/--filter=}")
}

# has_tests ACTION: whether FILTER= selects any test of the action.
has_tests() {
	local boot=${1#test} found
	filters
	boot=${boot#-}
	found=$(list --boot "${boot:-stock}" "${FILTERS[@]}")
	[[ -n $found ]]
}

# ktap ARGUMENT… [-- OPTION…]: runs the tests that the arguments select, in a machine
# with these options.
ktap() {
	local arguments=() least
	filters
	while [[ $# -gt 0 && $1 != -- ]]; do
		arguments+=("$1")
		shift
	done
	arguments+=("${FILTERS[@]}" ${TRACER:+--tracer})
	least=${EXPECT:-$(list "${arguments[@]}" | grep -c .)}
	payload "$MADE/payload"
	boot "$MADE/payload" "exec /toa/bin/toa-guest test ${arguments[*]@Q}" \
		--expect "$least" --skips "$REPO/tests/skips.txt" --release "$release" "${@:2}"
}

run_test() {
	ktap "$@" -- --label "${MADE##*/}: " --timeout 3600
}

# Free memory keeps the pattern of slab_debug, because init_on_alloc is off.
# Before 6.9 the parameter is slub_debug.
run_test_no_ipv6() {
	VM_DIR=${VM_DIR:-$MADE/vm-no-ipv6} ktap --boot no-ipv6 "$@" -- \
		--label "${MADE##*/} without IPv6: " --append "ipv6.disable=1 init_on_alloc=0 slab_debug=FZP slub_debug=FZP"
}

# Runs many loads, on two processors.
run_test_unload() {
	VM_DIR=${VM_DIR:-$MADE/vm-unload} ktap --boot unload ${TOA_CYCLES:+--cycles "$TOA_CYCLES"} "$@" -- \
		--label "${MADE##*/}, loads: " --threads "${TCG:-single}" --timeout 28800 --idle 600
}

# Runs all loads, on one processor.
run_test_one_cpu() {
	VM_DIR=${VM_DIR:-$MADE/vm-one-cpu} ktap --boot one-cpu ${TOA_CYCLES:+--cycles "$TOA_CYCLES"} "$@" -- \
		--label "${MADE##*/}, one processor: " --append nr_cpus=1 --timeout 28800 --idle 600
}

# Runs the tests of PostgreSQL and others that the usual image has no room for.
run_test_servers() {
	GUEST=guest-more VM_DIR=${VM_DIR:-$MADE/vm-servers} ktap --boot servers "$@" -- \
		--label "${MADE##*/}, servers: "
}

# Runs with the kernel's own tests beside the module, and prints the table of their results. A test
# prints nothing while it runs.
run_test_selftests() {
	local tests run=${VM_DIR:-$MADE/vm-selftests} status=0
	tests=$("$SCRIPTS/selftests.sh" make)
	MODULES=$MADE/selftests
	rm -rf "$MODULES"
	mkdir -p "$MODULES"
	cp -r "$tests" "$MODULES/selftests"
	GUEST=guest-selftests VM_DIR=$run ktap --boot selftests "$@" -- \
		--label "${MADE##*/}, the kernel's own tests: " --memory 4096 --timeout 14400 --idle 2000 || status=$?
	info "the kernel's own tests on $release, which is also in $run/out/selftests.txt:"
	cat "$run/out/selftests.txt" >&2 || status=1
	return "$status"
}

# Runs with the modules and the firmware's variables of secure-boot.sh.
run_test_secure_boot() {
	local made=$BUILD/$release/secure-boot options
	mapfile -t options < <(firmware "$made")
	MODULES=$made/modules VM_DIR=${VM_DIR:-$MADE/vm-secure-boot} ktap --boot secure-boot "$@" -- \
		--label "${MADE##*/}, Secure Boot: " "${options[@]}"
}

run_test_faults() {
	VM_DIR=${VM_DIR:-$MADE/vm-faults} ktap --boot faults "$@" -- --label "${MADE##*/}, failed allocations: "
}

# "TEST TEXT" lines: the planted bugs that the kernel's checks are for, and a part of each report's
# first line.
planted() {
	local has
	has=" $(options_of_small "$KERNEL" | sed -n 's/^CONFIG_\(.*\)=y$/\1/p' | paste -sd ' ') "
	[[ $has != *" PROVE_LOCKING "* ]] || echo "planted_lock_inversion possible circular locking dependency"
	if [[ $has == *" KASAN "* ]]; then
		echo "planted_use_after_free KASAN: slab-use-after-free"
	else
		echo "planted_use_after_free Poison overwritten"
	fi
	[[ $has != *" DEBUG_KMEMLEAK "* ]] || echo "planted_leak new suspected memory leaks"
	[[ $has != *" CFI "* ]] || echo "planted_call_by_another_prototype CFI failure"
}

run_test_planted() {
	local test text bugs run=${VM_DIR:-$MADE/vm-planted} status=0 results=$MADE/planted-results
	is_debug "${KERNEL:-}" || die "planted bugs need a debug kernel: KERNEL=debug"
	bugs=$(planted)
	: >"$results"
	payload "$MADE/payload"
	while read -r test text; do
		VM_DIR=$run-$test boot "$MADE/payload" "exec /toa/bin/toa-guest test --boot planted --filter $test" \
			--label "${MADE##*/}, $test: " --planted "$text" </dev/null || status=$?
		cat "$run-$test/summary" >>"$results"
	done <<<"$bugs"
	awk '{ p += $1; f += $2; s += $3 } END { print p + 0, f + 0, s + 0 }' "$results" >"${TOA_SUMMARY:-/dev/null}"
	return "$status"
}

# Runs random scripts, or that of TOA_SCRIPT=, which travels beside the modules.
run_test_model() {
	local arguments=(--steps "${TOA_STEPS:-100000}" --seed "${TOA_SEED:-1}")
	if [[ -n ${TOA_SCRIPT:-} ]]; then
		MODULES=$MADE/model
		rm -rf "$MODULES"
		mkdir -p "$MODULES"
		cp "$TOA_SCRIPT" "$MODULES/script"
		arguments=(--script /toa/script)
	fi
	VM_DIR=${VM_DIR:-$MADE/vm-model} ktap --boot model "${arguments[@]}" "$@" -- \
		--label "${MADE##*/}, model: " --timeout 28800
}

# Runs mixed traffic.
run_test_soak() {
	VM_DIR=${VM_DIR:-$MADE/vm-soak} ktap --boot soak --seed "${TOA_SEED:-1}" \
		--minutes "${TOA_MINUTES:-60}" --segments "${TOA_SEGMENTS:-1000000}" "$@" -- \
		--label "${MADE##*/}, soak: " --timeout 28800
}

run_test_prebuilt() {
	local made=$BUILD/$release/secure-boot options
	mapfile -t options < <(firmware "$made")
	VM_DIR=${VM_DIR:-$MADE/vm-prebuilt} boot "$made/prebuilt" "exec sh /toa/prebuilt-in-guest.sh" \
		--label "${MADE##*/}, prebuilt: " --expect 4 "${options[@]}"
}

# firmware DIRECTORY: prints toa-vm's options, with variables for one run.
firmware() {
	cp "$1/variables.fd" "$1/variables-of-this-run.fd"
	printf '%s\n' --firmware "$1/firmware.fd" --variables "$1/variables-of-this-run.fd"
}

run_demo() {
	local dir=$MADE/demo
	PROGRAMS=$DEMO_TARGET/debug
	rm -rf "$dir"
	mkdir -p "$dir/bin"
	cp "$MADE/module/toa.ko" "$dir/"
	cp "$PROGRAMS"/toa-{guest,balancer} "$dir/bin/"
	VM_DIR=${VM_DIR:-$MADE/vm-demo} boot "$dir" "exec /toa/bin/toa-guest demo" --plain
}

# Makes all roots, images and kernels. After the first root they are made in
# parallel: most of the time is waiting for the archive.
roots() {
	local building guest go nginx status=0
	step "find a kernel" "$SCRIPTS/kernel.sh" resolve
	step "root of tools" "$SCRIPTS/root.sh" make tools
	step "root for building" "$SCRIPTS/root.sh" make build &
	building=$!
	step "guest image" "$SCRIPTS/vm-image.sh" guest &
	guest=$!
	step "root for Go" "$SCRIPTS/root.sh" make go &
	go=$!
	step "roots for nginx" "$SCRIPTS/nginx.sh" roots &
	nginx=$!
	step "kernel" "$SCRIPTS/kernel.sh" fetch || status=$?
	wait "$building" || status=$?
	wait "$guest" || status=$?
	wait "$go" || status=$?
	wait "$nginx" || status=$?
	return "$status"
}

# Builds all programs and modules.
builds() {
	take_turn
	step "programs" "$0" programs
	step "server in Go" "$0" go-server
	step "example servers" "$0" peer-servers
	step "modules for nginx" "$SCRIPTS/nginx.sh" bundles
	step "kernel's Rust metadata" "$0" metadata
	step "module" "$0" module
	step "tests' module" "$0" test-module
}

demo_roots() {
	local guest status=0
	step "compilers and QEMU" "$SCRIPTS/root.sh" make "$TOOLS"
	[[ $BUILD_ROOT == "$TOOLS" ]] || step "kernel's compilers" "$SCRIPTS/root.sh" make "$BUILD_ROOT"
	step "guest image" "$SCRIPTS/vm-image.sh" guest &
	guest=$!
	step "kernel" "$SCRIPTS/kernel.sh" fetch || status=$?
	wait "$guest" || status=$?
	return "$status"
}

demo_builds() {
	take_turn
	step "programs" "$0" demo-programs
	step "kernel's Rust metadata" "$0" metadata
	step "module" "$0" module
}

main() {
	# shellcheck disable=SC2034 # set by `kernel`
	local action=${1:-} release version source binary rustc rustc_text small kernel_dir guest
	[[ $# == 0 ]] || shift
	case $action in
	metadata | module | test-module | bench-objects | clippy | programs | command-line-tool | demo-programs | go-server | peer-servers) "${action//-/_}" ;;
	has-tests) has_tests "$1" ;;
	roots | builds | demo-roots | demo-builds) "${action//-/_}" ;;
	test | test-no-ipv6 | test-unload | test-one-cpu | test-servers | test-selftests | test-secure-boot | test-prebuilt | test-model | test-soak | test-faults | test-planted | demo)
		kernel resolve
		"run_${action//-/_}" "$@"
		;;
	boot)
		[[ $# -ge 2 ]] || usage 1 >&2
		kernel resolve
		[[ -x $TARGET/release/toa-vm ]] || stage "build the programs" "$0" programs
		boot "$@"
		;;
	-h | --help | help) usage ;;
	*) usage 1 >&2 ;;
	esac
}

main "$@"
