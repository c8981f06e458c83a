#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Makes Debian packages, in a clean root of the Debian release that the kernel of
# KERNEL= comes from (see kernel.sh): trixie, forky or sid. Debian 12 installs the
# toa-dkms of trixie, and its rustc is too old for the others.
#
#   deb.sh make [SOURCE…]   source packages and the packages built from them,
#                       checked by lintian: all four, or only these:
#       toa                 toa-dkms
#       toa-peer            libtoa-peer0.1, libtoa-peer-dev
#       toa-tools           toa-tools
#       libnginx-mod-toa    libnginx-mod-http-toa, libnginx-mod-stream-toa, for
#                           that Debian's nginx
#   deb.sh directory    prints the directory of the packages, such as
#                       build/deb/trixie
#
# A package is made again only if its sources have changed. The last lines name
# the packages.

. "$(dirname "$0")/lib.sh"
shopt -s inherit_errexit

[[ ${KERNEL:-} != bookworm* ]] || export KERNEL=trixie
OUT=$REPO/build/deb/$(debian_of_kernel)
readonly SOURCES=(toa toa-peer toa-tools libnginx-mod-toa)

# The version of cargo-vendor-filterer, which Debian does not package.
readonly FILTERER=0.5.18

# tree SOURCE DIRECTORY: copies the files that SOURCE is built from, without the
# third-party crates.
tree() {
	local dir=$2
	case $1 in
	toa) sources | grep -v -e '^peer/' -e '^nginx/' -e '^cli/' | copy_sources "$dir" ;;
	toa-peer) sources | grep '^peer/' | copy_sources "$dir" --strip-components=1 ;;
	toa-tools) sources | grep '^cli/' | copy_sources "$dir" --strip-components=1 ;;
	libnginx-mod-toa)
		sources | grep -e '^peer/' -e '^nginx/' | copy_sources "$dir"
		rm -r "$dir/peer/debian"
		mv "$dir/nginx/debian" "$dir/"
		;;
	*) die "there is no source package '$1': see --help" ;;
	esac
}

# Prints the manifest that depends on all third-party crates of a source package.
# The filterer does not read a workspace that is no package.
manifest() {
	case $1 in
	toa-peer | toa-tools) echo Cargo.toml ;;
	libnginx-mod-toa) echo nginx/http/Cargo.toml ;;
	esac
}

# Copies the crates at the versions of Cargo.lock into vendor/. Crates for other
# systems and for tests are empty there: without them cargo would not follow
# Cargo.lock.
# A separate CARGO_HOME is used, because cargo locks it while any build runs.
vendor() {
	local dir=$1 manifest=$2 tools=$TOA_CACHE/cargo-tools
	locked cargo-tools "$SCRIPTS/root.sh" run tools env CARGO_HOME="$tools" \
		cargo install --quiet --locked --version "$FILTERER" cargo-vendor-filterer >&2
	"$SCRIPTS/root.sh" run tools env CARGO_HOME="$tools" PATH="$tools/bin:/usr/bin:/bin" \
		cargo vendor-filterer --manifest-path "$dir/$manifest" --versioned-dirs \
		--platform '*-unknown-linux-gnu' --keep-dep-kinds no-dev \
		--exclude-crate-path '*#tests' --exclude-crate-path '*#benches' "$dir/vendor" >&2
	mkdir "$dir/.cargo"
	cat >"$dir/.cargo/config.toml" <<-CONFIG
		[source.crates-io]
		replace-with = "vendored-sources"

		[source.vendored-sources]
		directory = "vendor"
	CONFIG
}

# Checks that debian/copyright has the licence of each vendored crate. MIT has
# Debian's name there, Expat, and exceptions have Debian's form.
licences() {
	local dir=$1 crate name licence
	for crate in "$dir"/vendor/*; do
		[[ -n $(find "$crate" -name '*.rs' -size +0 -print -quit) ]] || continue
		name=${crate##*/}
		name=${name%-[0-9]*}
		licence=$(sed -n 's/^license = "\(.*\)"$/\1/p' "$crate/Cargo.toml" |
			sed -E 's:/: or :g; s/ OR / or /g; s/\((.*)\) AND /\1, and /; s/(^| )MIT( |,|$)/\1Expat\2/; s/ WITH LLVM-exception/ with LLVM exception/')
		awk -v RS= -v files="Files: vendor/$name-*" -v licence="License: $licence" '
			index($0, files "\n") == 1 && index($0 "\n", "\n" licence "\n") { found = 1 }
			END { exit !found }' "$dir/debian/copyright" ||
			die "debian/copyright does not give vendor/$name-* the licence $licence"
	done
}

make_packages() {
	local source
	mkdir -p "$OUT"
	for source; do
		make_package "$source"
	done
	find "$OUT" -maxdepth 1 \( -name '*.deb' ! -name '*-dbgsym_*' -o -name '*.dsc' \) | sort
}

make_package() {
	local source=$1 tree=$OUT/$1.tree root key manifest
	rm -rf "$tree"
	tree "$source" "$tree"
	chmod -R go-w "$tree"
	root=$([[ $source == toa ]] && echo deb || echo deb-more)
	key=$({
		cat "$SCRIPTS/deb.sh"
		"$SCRIPTS/root.sh" key "$root"
		tar -c -C "$tree" --sort=name --mtime=@0 --owner=0 --group=0 .
	} | sha256sum)
	if [[ -e $OUT/$source.key && $(<"$OUT/$source.key") == "$key" ]]; then
		rm -rf "$tree"
		return
	fi
	forget "$source"
	manifest=$(manifest "$source")
	if [[ -n $manifest ]]; then
		vendor "$tree" "$manifest"
		licences "$tree"
	fi
	"$SCRIPTS/root.sh" run "$root" "$SCRIPTS/deb.sh" in-root "$tree" >&2
	rm -rf "$tree"
	echo "$key" >"$OUT/$source.key"
}

# Removes the packages that were made from a source package before.
forget() {
	local changes
	rm -f "$OUT/$1.key"
	for changes in "$OUT/$1"_*.changes; do
		[[ -e $changes ]] || continue
		(cd "$OUT" && sed -n '/^Files:/,/^[^ F]/s/^ .* //p' "$changes" | xargs rm -f)
		rm "$changes"
	done
}

# Builds and checks the packages. Runs in the root, without a network. lintian's
# informational tags do not fail: the packages follow Debian 13's policy on sid
# too, and Rust has no fortified functions.
build_and_look() {
	local source
	cd "$1"
	source=$(dpkg-parsechangelog -S Source)
	unshare --net sh -c 'ip link set lo up && dpkg-buildpackage -us -uc'
	lintian --fail-on error,warning --display-info "../${source}"_*.changes
	echo "lintian: no errors, no warnings in $source"
}

main() {
	case ${1:-} in
	make)
		shift
		[[ $# -gt 0 ]] || set -- "${SOURCES[@]}"
		make_packages "$@"
		;;
	directory) echo "$OUT" ;;
	in-root) build_and_look "$2" ;;
	-h | --help | help) usage ;;
	*) usage 1 >&2 ;;
	esac
}

main "$@"
