#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Checks the sources without running the module: rustfmt, clippy for the module
# and for the user-space crates, rustdoc for the library, vet and mypy for its
# packages in Go and Python, shellcheck. Warnings are errors.
#
#   check.sh all        everything
#   check.sh formats | scripts | crates | docs | go | python | prose | module
#   check.sh compiler   the compiler is the oldest one that the crates allow
#   check.sh systems    the library's crate compiles for systems without the module
#   check.sh package    the library's crate compiles as crates.io would have it
#   check.sh interface  the library's crate is compatible with the last tag; the program that
#                       compares takes half an hour of CPU time to build, once
#
# KERNEL= selects the kernel that the module is built for (see kernel.sh).

. "$(dirname "$0")/lib.sh"
shopt -s inherit_errexit

in_tools() {
	CARGO_TARGET_DIR=$REPO/build/target "$SCRIPTS/root.sh" run tools "$@"
}

formats() {
	cd "$REPO"
	in_tools rustfmt --check --edition 2021 toa.rs tests/kernel/toa_test.rs rust/kernel/lib.rs rust/probe.rs
	in_tools cargo fmt --all --check --manifest-path tests/Cargo.toml
	in_tools cargo fmt --all --check --manifest-path nginx/Cargo.toml
	in_tools cargo fmt --all --check --manifest-path peer/Cargo.toml
	in_tools cargo fmt --all --check --manifest-path cli/Cargo.toml
	[[ ! -e tests/fuzz/Cargo.toml ]] ||
		in_tools cargo fmt --check --manifest-path tests/fuzz/Cargo.toml
}

scripts() {
	cd "$REPO"
	in_tools shellcheck -x -P SCRIPTDIR -P scripts scripts/*.sh scripts/guest/* tests/*.sh tests/upgrade/check .ci/run rust/core.sh peer/c/one-object.sh packaging/{toa-check,toa-dkms,toa-swap,install.sh,load-copied-toa} dkms.conf debian/*.postinst debian/*.postrm
}

crates() {
	local crates features
	for crates in tests peer cli; do
		features=()
		[[ $crates != cli ]] || features=(--features dev-tests)
		in_tools cargo clippy --locked --workspace --all-targets "${features[@]}" \
			--manifest-path "$REPO/$crates/Cargo.toml" -- -D warnings
	done
}

docs() {
	in_tools env RUSTDOCFLAGS='-D warnings' cargo doc --locked --workspace --no-deps \
		--manifest-path "$REPO/peer/Cargo.toml"
}

# Checks that the manifests promise exactly the compiler that all other checks use.
compiler() {
	local ours manifest promised
	ours=$(in_tools rustc --version | sed -E 's/^rustc ([0-9]+\.[0-9]+)\..*/\1/')
	cd "$REPO"
	while IFS=: read -r manifest promised; do
		promised=${promised//[^0-9.]/}
		[[ $promised == "$ours" ]] ||
			die "$manifest has rust-version $promised, and the checks compile with $ours: make them equal"
	done < <(sources | grep 'Cargo\.toml$' | xargs grep '^rust-version = ' /dev/null)
}

# Debian has no standard library for these systems. It is compiled from its source, into
# the cache, as far as the type checker needs it.
readonly SYSTEMS=(x86_64-unknown-freebsd x86_64-pc-windows-msvc)

systems() {
	local system
	for system in "${SYSTEMS[@]}"; do
		CARGO_TARGET_DIR=$TOA_CACHE/systems "$SCRIPTS/root.sh" run tools \
			env RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zno-codegen \
			cargo clippy --quiet -Zbuild-std=std --locked --target "$system" \
			--package toa-peer --manifest-path "$REPO/peer/Cargo.toml" -- -D warnings
	done
}

package() {
	in_tools cargo package --quiet --locked --allow-dirty --package toa-peer \
		--manifest-path "$REPO/peer/Cargo.toml"
}

# The newest cargo-semver-checks that Debian 13's rustc compiles, which Debian does not package.
readonly SEMVER_CHECKS=0.42.0
readonly SEMVER_HOME=$TOA_CACHE/cargo-semver

# Compares the crate with the one of the last tag.
interface() {
	local tag released=$REPO/build/released
	tag=$(last_tag) || die "git has no tag of a release to compare the crate's interface with: fetch the tags"
	rm -rf "$released"
	mkdir -p "$released"
	git_here archive "$tag" peer | tar -x -C "$released"
	# Without optimisation: the program takes longer to build than it ever runs.
	locked cargo-semver "$SCRIPTS/root.sh" run tools env CARGO_HOME="$SEMVER_HOME" CARGO_PROFILE_DEV_DEBUG=0 \
		cargo install --quiet --debug --locked --version "$SEMVER_CHECKS" cargo-semver-checks
	in_tools "$SEMVER_HOME/bin/cargo-semver-checks" semver-checks --package toa-peer \
		--manifest-path "$REPO/peer/Cargo.toml" --baseline-root "$released/peer"
}

last_tag() {
	git_here describe --tags --abbrev=0 2>/dev/null
}

# Runs interface unless there is nothing to compare with, or the program is not built yet.
interface_if_built() {
	if ! last_tag >/dev/null; then
		info "skipped: the crate's interface: git has no tag of a release to compare with"
	elif [[ ! -x $SEMVER_HOME/bin/cargo-semver-checks ]]; then
		info "skipped: the crate's interface: make interface-test builds what compares it"
	else
		interface
	fi
}

in_go() {
	"$SCRIPTS/root.sh" run go "$@"
}

# Checks the package in Go, and compiles it for systems without the module.
go() {
	local unformatted system
	unformatted=$(in_go gofmt -l "$REPO/peer" "$REPO/tests/guest/servers/go")
	[[ -z $unformatted ]] || die "run gofmt -w on: ${unformatted//$'\n'/ }"
	in_go go vet -C "$REPO/peer/go" .
	in_go go vet -C "$REPO/peer/examples" server.go
	for system in darwin windows; do
		in_go env "GOOS=$system" go build -C "$REPO/peer/go" .
	done
}

in_python() {
	"$SCRIPTS/root.sh" run python "$@"
}

# Checks the types of the package in Python, and that its archives have all of its files.
python() {
	local package=$REPO/peer/python built=$REPO/build/python
	in_python mypy --config-file "$package/pyproject.toml" --cache-dir "$REPO/build/mypy" "$package"/{src,tests}
	# setuptools writes into the sources.
	rm -rf "$built"
	mkdir -p "$built"
	cp -RL "$package" "$built/source"
	in_python python3 -m build --no-isolation --outdir "$built" "$built/source" >"$built/log" 2>&1 ||
		die "the package in Python has no archives: see $built/log"
	in_python python3 -m zipfile -e "$built"/toa_peer-*.whl "$built/wheel"
	diff -r "$package/src/toa_peer" "$built/wheel/toa_peer" >&2
	mkdir "$built/sdist"
	tar -xzf "$built"/toa_peer-*.tar.gz -C "$built/sdist" --strip-components=1
	diff -r "$package/src/toa_peer" "$built/sdist/src/toa_peer" >&2
	diff -r "$package/tests" "$built/sdist/tests" >&2
}

# The words, openings and sentences that CONTRIBUTING.md asks for, and the spelling.
prose() {
	local files
	cd "$REPO"
	mapfile -t files < <(sources | grep -vE '(^|/)(LICENSE|copyright|Cargo\.lock|\.gitignore)|^tests/(prose|fuzz/seeds)/')
	in_tools cargo run --quiet --locked --package toa-prose --manifest-path tests/Cargo.toml -- "${files[@]}"
	# `struct sk_buff` has `skb_iif`, inline assembly `inout`, modinfo `parm`, mdoc `Nd`, gpg `fpr`.
	in_tools codespell -L fpr,iif,inout,parm,nd "${files[@]}"
}

# Checks the module with either crate, and the stand-in crate. Skips this if the archive
# has no kernel to build it for: the tests count that as skipped.
module() {
	local status=0
	"$SCRIPTS/root.sh" make build || status=$?
	[[ $status != "$NO_KERNEL" ]] || return 0
	[[ $status == 0 ]] || exit "$status"
	"$SCRIPTS/vm-test.sh" clippy
	RUST=standin "$SCRIPTS/vm-test.sh" clippy
}

all() {
	start_stages
	stage "root of tools" "$SCRIPTS/root.sh" make tools
	stage "one version" "$SCRIPTS/version.sh" check
	stage "shellcheck" "$0" scripts
	stage "rustfmt" "$0" formats
	stage "clippy of the crates" "$0" crates
	stage "clippy of nginx's modules" "$SCRIPTS/nginx.sh" check
	stage "documentation" "$0" docs
	stage "oldest compiler" "$0" compiler
	stage "other systems" "$0" systems
	stage "package of the crate" "$0" package
	stage "interface of the crate" "$0" interface_if_built
	stage "package in Go" "$0" go
	stage "package in Python" "$0" python
	stage "prose" "$0" prose
	stage "no panic" "$SCRIPTS/root.sh" run tools "$REPO/tests/no-panic.sh"
	stage "check of objects" "$SCRIPTS/root.sh" run tools "$REPO/tests/check-object-test.sh"
	stage "clippy of the module" "$0" module
	stage "host tests" "$SCRIPTS/test.sh" cargo-test
	stage "tests in Go" "$SCRIPTS/test.sh" go-test
	stage "tests in Python" "$SCRIPTS/test.sh" python-test
	stage "fuzzers" "$REPO/tests/fuzz-test.sh"
	[[ -n ${TOA_RESULTS:-} ]] || stage_table >&2
}

main() {
	case ${1:-} in
	all | formats | scripts | crates | docs | go | python | prose | module) "$1" ;;
	compiler | systems | package | interface | interface_if_built) "$1" ;;
	-h | --help | help) usage ;;
	*) usage 1 >&2 ;;
	esac
}

main "$@"
