#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Makes Debian packages, in a clean root of Debian 13.
#
#   deb.sh make         the source package and toa-dkms, looked at by lintian
#   deb.sh metadata     toa-metadata-RELEASE for the kernel that KERNEL= and KVER=
#                       select (see kernel.sh): with it a server builds toa
#                       without that kernel's source
#   deb.sh test         both, installed, upgraded and purged where KERNEL= is at home
#
# They are put into build/deb. The last lines name them.

. "$(dirname "$0")/lib.sh"
shopt -s inherit_errexit

OUT=$REPO/build/deb

# The sources as git sees them, or all files where there is no git.
sources() {
	cd "$REPO"
	git ls-files -co --exclude-standard 2>/dev/null ||
		find . -path ./build -prune -o -path ./.git -prune -o -type f -printf '%P\n'
}

make_packages() {
	local tree
	tree=$OUT/toa-$("$SCRIPTS/version.sh" print)
	rm -rf "$tree" "$OUT"/toa_* "$OUT"/toa-dkms_*
	mkdir -p "$tree"
	sources | tar -c -C "$REPO" --ignore-failed-read -T - 2>/dev/null | tar -x -C "$tree" --no-same-owner
	"$SCRIPTS/root.sh" run deb "$SCRIPTS/deb.sh" in-root "$tree" >&2
	rm -rf "$tree"
	find "$OUT" -name 'toa-dkms_*.deb' -o -name 'toa_*.dsc' | sort
}

# Runs in the root.
build_and_look() {
	cd "$1"
	chmod -R go-w .
	dpkg-buildpackage -us -uc
	lintian --fail-on error,warning,info --display-info ../toa_*.changes
	echo "lintian: nothing to complain of"
}

# The overlay as metadata.sh made it: links into the headers, and what they lack.
make_metadata() {
	local found release version overlay tree package recipe
	found=$("$SCRIPTS/kernel.sh" resolve)
	eval "$found"
	overlay=$("$SCRIPTS/root.sh" run build "$SCRIPTS/metadata.sh" --kver "$release")
	package=toa-metadata-$release
	recipe=${overlay##*_r}
	tree=$OUT/$package
	rm -rf "$tree" "$OUT/${package}_"*
	mkdir -p "$tree/DEBIAN" "$tree/usr/lib/toa/metadata"
	cp -a "$overlay" "$tree/usr/lib/toa/metadata/"
	cat >"$tree/DEBIAN/control" <<-CONTROL
		Package: $package
		Version: $version+toa$recipe
		Architecture: amd64
		Section: kernel
		Priority: optional
		Maintainer: $(sed -n 's/^Maintainer: //p' "$REPO/debian/control")
		Installed-Size: $(du -sk "$tree/usr" | cut -f1)
		Depends: linux-headers-$release (= $version)
		Enhances: toa-dkms
		Provides: toa-metadata
		Description: Rust metadata of the kernel $release, for toa-dkms
		 What Debian's headers lack for building a module in Rust, regenerated from
		 linux-source $version, and compared with the symbols that the kernel exports.
		 With it toa-dkms needs no source of the kernel, and builds in seconds.
	CONTROL
	chmod -R go-w "$tree"
	"$SCRIPTS/root.sh" run deb dpkg-deb --root-owner-group -z1 --build "$tree" "$OUT" >&2
	rm -rf "$tree"
	find "$OUT" -name "${package}_*.deb"
}

test_packages() {
	start_stages
	stage "packages" "$0" make >/dev/null
	stage "metadata package" "$0" metadata >/dev/null
	stage "tests of the packages" "$REPO/tests/deb-test.sh"
}

main() {
	case ${1:-} in
	test) test_packages ;;
	make) make_packages ;;
	metadata) make_metadata ;;
	in-root) build_and_look "$2" ;;
	-h | --help | help) usage ;;
	*) usage 1 >&2 ;;
	esac
}

main "$@"
