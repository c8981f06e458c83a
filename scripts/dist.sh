#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Packs the last commit into a source tarball: the same bytes from any clone.
#
#   dist.sh make [DIRECTORY]    toa-VERSION.tar.xz there (default: build);
#                               prints its path
#   dist.sh name                prints the directory that it unpacks into:
#                               toa-VERSION
#
# Files have the commit's time (SOURCE_DATE_EPOCH elsewhere), belong to root and
# are in git's order. xz is Debian 13's, with one thread.

. "$(dirname "$0")/lib.sh"
shopt -s inherit_errexit

name() {
	echo "toa-$("$SCRIPTS/version.sh" print)"
}

# Runs git without the settings that a user or the file system may change.
plain_git() {
	git_here -c core.attributesFile=/dev/null -c core.autocrlf=false -c tar.umask=0022 "$@"
}

make_tarball() {
	local dir=$1 name
	need_host git=git
	[[ $(plain_git rev-parse --show-toplevel 2>/dev/null) == "$REPO" ]] ||
		die "$REPO is no git clone, and the tarball is made from a commit"
	[[ -z $(plain_git status --porcelain --untracked-files=no) ]] ||
		info "${0##*/}: changes that are not committed are not packed: if they belong there, git commit them first"
	name=$(name)
	mkdir -p "$dir"
	dir=$(realpath "$dir")
	plain_git archive --format=tar --prefix="$name/" HEAD >"$dir/$name.tar"
	rm -f "$dir/$name.tar.xz"
	"$SCRIPTS/root.sh" run tools xz --threads=1 -9 - <"$dir/$name.tar" >"$dir/$name.tar.xz.new"
	rm "$dir/$name.tar"
	mv "$dir/$name.tar.xz.new" "$dir/$name.tar.xz"
	echo "$dir/$name.tar.xz"
}

main() {
	case ${1:-} in
	make) make_tarball "${2:-$REPO/build}" ;;
	name) name ;;
	-h | --help | help) usage ;;
	*) usage 1 >&2 ;;
	esac
}

main "$@"
