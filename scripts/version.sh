#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The project's version, which toa.rs has and `modinfo toa` prints.
#
#   version.sh print    print it
#   version.sh check    fail if a package's files have another one

. "$(dirname "$0")/lib.sh"

# The literal that the macro `version` stands for.
version() {
	sed -n '/^macro_rules! version/,/^}/s/^ *"\(.*\)"$/\1/p' "$REPO/toa.rs"
}

# "FILE VERSION" for each file of a package that exists and has a version.
versions() {
	local directory
	for directory in "" peer/ nginx/ cli/; do
		version_in "${directory}debian/changelog" '1s/^.*(\([^-)]*\).*/\1/p'
	done
	for directory in peer/ peer/c/ nginx/ cli/; do
		version_in "${directory}Cargo.toml" 's/^version = "\(.*\)"$/\1/p'
	done
	version_in peer/python/pyproject.toml 's/^version = "\(.*\)"$/\1/p'
	version_in dkms.conf 's/^PACKAGE_VERSION="\([0-9].*\)"$/\1/p'
	version_in packaging/toa-dkms.spec 's/^Version: *//p'
}

# version_in FILE SCRIPT: the output of sed's SCRIPT, with the file's name.
version_in() {
	local found
	[[ ! -e $REPO/$1 ]] || found=$(sed -n "$2" "$REPO/$1")
	[[ -z ${found:-} ]] || echo "$1 $found"
}

check() {
	local file found version
	version=$(version)
	[[ $version =~ ^[0-9]+\.[0-9]+\.[0-9]+$ ]] || die "toa.rs has no version like 1.2.3: '$version'"
	while read -r file found; do
		[[ $found == "$version" ]] || die "$file has version $found, and toa.rs has $version: make them equal"
	done < <(versions)
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
