# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Functions of test scripts that hide, replace and change a root's files. Source it
# after scripts/lib.sh and cases.sh. HEADERS is the directory of the kernel's headers,
# and TMP/bin is the first directory of the PATH of what a case runs. Changes are
# private mounts, which end with the case.

# Mounts of a case must not propagate outside: all mounts here must be private.
need_private_mounts() {
	mount --make-rprivate / 2>/dev/null && return
	! grep -q ' shared:' /proc/self/mountinfo || die "mounts here are shared with the host"
}

config() {
	sed -n "s/^CONFIG_$1=\"\(.*\)\"/\1/p" "$HEADERS/.config"
}

# stand_in NAME: installs standard input as the command NAME in the case's PATH.
stand_in() {
	{ echo '#!/bin/bash' && cat; } >"$TMP/bin/$1"
	chmod +x "$TMP/bin/$1"
}

# apt_offers PACKAGE VERSION…: makes apt-cache offer these versions, newest first.
apt_offers() {
	printf '%s %s\n' "$@" >"$TMP/offers"
	stand_in apt-cache <<-STUB
		case \$1 in
		madison) awk -v p="\$2" '\$1 == p { print \$1 " | " \$2 " | archive" }' $TMP/offers ;;
		policy) awk -v p="\$2" '\$1 == p { print "  Candidate: " \$2; exit }' $TMP/offers ;;
		esac
	STUB
}

# dpkg_says PACKAGE ANSWER: simulates dpkg-query's ANSWER, a status and a version,
# for that one package.
dpkg_says() {
	stand_in dpkg-query <<-STUB
		[[ \${!#} == '$1' ]] && echo '$2' && exit
		exec /usr/bin/dpkg-query "\$@"
	STUB
}

# changeable DIRECTORY: puts a layer on top of it, which takes the case's changes.
changeable() {
	local layer=$TMP/layers/$1
	[[ ! -d $layer ]] || return 0
	mkdir -p "$layer/upper" "$layer/work"
	mount -t overlay -o "lowerdir=$1,upperdir=$layer/upper,workdir=$layer/work" overlay "$1"
}

# hide PATH…: removes the files, as if they were not installed.
hide() {
	local path
	for path; do
		[[ -e $path ]] || continue
		changeable "$(dirname "$path")"
		rm -r "$path"
	done
}

# replace PATH: replaces a command by standard input.
replace() {
	{ echo '#!/bin/bash' && cat; } >"$TMP/replacement"
	chmod +x "$TMP/replacement"
	mount --bind "$TMP/replacement" "$(realpath "$1")"
}

# copy_headers: makes a copy of the headers that a case can change.
copy_headers() {
	KDIR=$TMP/kdir
	cp -rs "$HEADERS" "$KDIR"
	cp --remove-destination "$HEADERS/.config" "$HEADERS/Makefile" "$HEADERS/Module.symvers" "$KDIR/"
}

# copy_tree: copies the module's sources to TREE, by default TMP/tree.
copy_tree() {
	TREE=${TREE:-$TMP/tree}
	mkdir "$TREE"
	(cd "$REPO" && cp -r Makefile Kbuild ./*.rs offsets.c offsets.h linux rust scripts "$TREE")
	rm -f "$TREE/toa_offsets.rs"
	files_of_tree >"$TMP/files"
}

# run_make ARGUMENT…: runs make in the copy. Sets STATUS.
# shellcheck disable=SC2034 # scripts read STATUS
run_make() {
	STATUS=0
	PATH=$TMP/bin:$PATH make --no-print-directory -C "$TREE" "$@" >"$TMP/stdout" 2>"$TMP/stderr" </dev/null || STATUS=$?
}

# Checks that a build has left nothing in the copy but its log.
nothing_left() {
	local left
	left=$(files_of_tree | diff "$TMP/files" - || true)
	[[ -z $left ]] || die "left: $left"
}

files_of_tree() {
	find "$TREE" ! -path "$TREE/build" ! -path "$TREE/build/make.log" ! -path "$TREE/build/probe-*" -printf '%P\n' | sort
}

# crate_of MODULE: the crate that modinfo would print.
crate_of() {
	objcopy -O binary -j .modinfo "$1" /dev/stdout | tr '\0' '\n' | sed -n 's/^crate=//p'
}
