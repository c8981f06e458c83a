#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Tests of the source tarball: its bytes, its files, and its version.
#
#   dist-test.sh [CASE…]
#
# Run it as root in a git clone. Prints TAP.

. "$(dirname "$0")/../scripts/lib.sh"
. "$REPO/tests/cases.sh"

clone() {
	git clone -q --no-hardlinks "$REPO" "$1"
}

# dist CLONE: prints the tarball's path.
dist() {
	"$1/scripts/dist.sh" make
}

case_two_clones_make_the_same_bytes() {
	local one two
	clone one
	one=$(TZ=Asia/Tokyo dist "$TMP/one")
	(
		umask 0077
		clone "a second"
		git -C "a second" config tar.umask 0000
		git -C "a second" config core.autocrlf true
		touch "a second/toa.rs"
	)
	two=$(umask 0077 && dist "$TMP/a second")
	same "sha256" "$(sha256sum <"$one")" "$(sha256sum <"$two")"
}

case_it_has_what_is_committed_and_nothing_else() {
	local tarball name
	clone one
	touch one/not-committed
	tarball=$(dist "$TMP/one")
	name=$(one/scripts/dist.sh name)
	same "name" "$name.tar.xz" "${tarball##*/}"
	same "files" "$(git -C one ls-tree -r --name-only HEAD | sed "s|^|$name/|")" \
		"$(tar -tf "$tarball" | grep -v '/$')"
	same "times and owners" "root/root $(TZ=UTC git -C one log -1 --date=format-local:'%F %T' --format=%cd)" \
		"$(TZ=UTC tar -tvf "$tarball" --full-time | awk '{ print $2, $4, $5 }' | sort -u)"
	same "modes" "-rw-r--r-- -rwxr-xr-x drwxr-xr-x" "$(tar -tvf "$tarball" | awk '{ print $1 }' | sort -u | paste -sd' ')"
}

# A checkout of another user, such as one that root builds in.
case_a_clone_of_another_user_has_the_same_files() {
	clone one
	mkdir one/build
	touch one/build/ignored one/toa.ko
	chown -R 65534:65534 one
	! git -C one status >/dev/null 2>&1 || skip "git here trusts the clones of all users"
	same "sources" "$(git -C "$REPO" ls-tree -r --name-only HEAD | sort)" \
		"$(bash -c '. one/scripts/lib.sh && sources' | sort)"
	has "tarball" ".tar.xz" "$(dist "$TMP/one")"
}

case_the_version_is_that_of_the_module() {
	same "version" "toa-$(sed -n 's/^        "\([0-9.]*\)"$/\1/p' "$REPO/toa.rs")" "$("$SCRIPTS/dist.sh" name)"
}

case_another_version_in_a_package_is_named() {
	clone one
	mkdir -p one/debian
	echo "toa (9.8.7-1) unstable; urgency=medium" >one/debian/changelog
	fails 1 "version.sh: debian/changelog has version 9.8.7, and toa.rs has $(one/scripts/version.sh print): make them equal" \
		one/scripts/version.sh check
}

case_no_clone_no_tarball() {
	mkdir -p files
	git -C "$REPO" archive HEAD | tar -x -C files
	fails 1 "dist.sh: $TMP/files is no git clone, and the tarball is made from a commit" files/scripts/dist.sh make
}

need_host git=git xz=xz-utils
cases_main "$@"
