#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Makes the rpm package toa-dkms for Fedora, in a root of Debian, and checks it. The
# package has not been run on Fedora.
#
#   rpm.sh make     from the last commit's tarball (dist.sh), in build/rpm; rpmlint
#                   reports nothing, and tests/rpm-test.sh installs and erases it

. "$(dirname "$0")/lib.sh"
shopt -s inherit_errexit

OUT=$REPO/build/rpm

# packages TARBALL DIRECTORY: builds the packages. Runs in the root rpm, where Debian's
# packages satisfy what building needs. They have no macros of systemd.
packages() {
	local tarball=$1 dir=$2
	rpmbuild --quiet --nodeps -ta "$tarball" --define "_topdir $dir/top" \
		--define '_unitdir /usr/lib/systemd/system' --define '_modulesloaddir /usr/lib/modules-load.d' \
		--define '_modprobedir /usr/lib/modprobe.d' --define '_udevrulesdir /usr/lib/udev/rules.d' \
		--define 'systemd_post() :' --define 'systemd_preun() :' --define 'systemd_postun() :'
	mv "$dir"/top/RPMS/noarch/*.rpm "$dir"/top/SRPMS/*.rpm "$dir"
	rm -rf "$dir/top"
}

# Runs in the root rpm.
build_and_look() {
	local output
	packages "$1" "$OUT"
	output=$(rpmlint --config "$REPO/packaging/rpmlint.toml" "$OUT"/*.rpm) || { info "$output" && die "rpmlint complains, see above"; }
	info "$output"
	grep -q ' 0 errors, 0 warnings' <<<"$output" || die "rpmlint complains, see above"
}

make_packages() {
	local tarball
	rm -rf "$OUT"
	mkdir -p "$OUT"
	tarball=$("$SCRIPTS/dist.sh" make "$OUT")
	stage "root of rpm" "$SCRIPTS/root.sh" make rpm
	stage "rpm" "$SCRIPTS/root.sh" run rpm "$SCRIPTS/rpm.sh" in-root "$tarball"
	stage "tests of rpm" "$REPO/tests/rpm-test.sh"
	find "$OUT" -name '*.rpm' | sort
}

main() {
	case ${1:-} in
	make) make_packages ;;
	in-root) build_and_look "$2" ;;
	packages) packages "$2" "$3" ;;
	-h | --help | help) usage ;;
	*) usage 1 >&2 ;;
	esac
}

main "$@"
