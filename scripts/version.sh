#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The project's version, which toa.rs has and `modinfo toa` tells.
#
#   version.sh print    print it
#   version.sh check    fail if a package's own files tell another one

. "$(dirname "$0")/lib.sh"

# The literal that the macro `version` stands for.
version() {
	sed -n '/^macro_rules! version/,/^}/s/^ *"\(.*\)"$/\1/p' "$REPO/toa.rs"
}

# "FILE VERSION" for each file of a package that is there and has one in it.
told() {
	local directory
	for directory in "" peer/ nginx/; do
		tell "${directory}debian/changelog" '1s/^.*(\([^-)]*\).*/\1/p'
	done
	tell dkms.conf 's/^PACKAGE_VERSION="\([0-9].*\)"$/\1/p'
	tell packaging/toa-dkms.spec 's/^Version: *//p'
}

tell() {
	local found
	[[ ! -e $REPO/$1 ]] || found=$(sed -n "$2" "$REPO/$1")
	[[ -z ${found:-} ]] || echo "$1 $found"
}

check() {
	local file found wanted
	wanted=$(version)
	[[ $wanted =~ ^[0-9]+\.[0-9]+\.[0-9]+$ ]] || die "toa.rs has no version like 1.2.3: '$wanted'"
	while read -r file found; do
		[[ $found == "$wanted" ]] || die "$file says version $found, and toa.rs $wanted: make them one"
	done < <(told)
}

main() {
	case ${1:-} in
	print) version ;;
	check) check ;;
	-h | --help | help) usage ;;
	*) usage 1 >&2 ;;
	esac
}

main "$@"
