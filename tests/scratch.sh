# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Throwaway copies of a root directory, into which package tests install. Source
# it after scripts/lib.sh and cases.sh, in a new mount namespace: then the mounts
# end with the process.

# in_own_mounts COMMAND…: replaces this process by COMMAND in a new mount namespace.
in_own_mounts() {
	exec env TOA_OWN_MOUNTS=1 unshare --mount --propagation private "$@"
}

# scratch DIRECTORY ROOT: mounts ROOT's files at DIRECTORY. Changes are written to
# DIRECTORY.changes.
scratch() {
	local dir=$1 root=$2
	mkdir -p "$dir" "$dir.changes/upper" "$dir.changes/work"
	mount -t overlay overlay \
		-o "lowerdir=$root,upperdir=$dir.changes/upper,workdir=$dir.changes/work" "$dir"
	enterable "$dir"
}

# enterable DIRECTORY: mounts the file systems that programs need, and configures
# apt. Packages come from the cache; other downloads are kept in TMP.
enterable() {
	local dir=$1
	mount -t proc proc "$dir/proc"
	mount --rbind /dev "$dir/dev"
	mount -t tmpfs tmpfs "$dir/tmp"
	mkdir -p "$dir/var/lib/apt/lists/partial" "$dir/var/cache/apt/archives/partial"
	find "$TOA_CACHE/apt/lists" -maxdepth 1 -type f ! -name lock \
		-exec cp -p -t "$dir/var/lib/apt/lists" {} +
	mkdir -p "$TMP/archives/upper" "$TMP/archives/work"
	mount -t overlay overlay "$dir/var/cache/apt/archives" \
		-o "lowerdir=$TOA_CACHE/apt/archives,upperdir=$TMP/archives/upper,workdir=$TMP/archives/work"
	{
		archive_acquire
		echo 'APT::Sandbox::User "root"; Acquire::Languages "none"; APT::Keep-Downloaded-Packages "true";'
	} >"$dir/etc/apt/apt.conf.d/99scratch"
	[[ ! -s /etc/resolv.conf ]] || cat /etc/resolv.conf >"$dir/etc/resolv.conf"
}

# inside DIRECTORY COMMAND…: runs COMMAND in the root. Processes that COMMAND
# leaves behind end with it.
inside() {
	local dir=$1
	shift
	env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C TERM=dumb \
		DEBIAN_FRONTEND=noninteractive unshare --pid --fork --kill-child chroot "$dir" "$@" </dev/null
}

# files DIRECTORY: lists its files, without caches, logs and the like.
files() {
	(cd "$1" && find . -xdev \( -path ./root -o -path ./tmp -o -path ./var/cache/apt \
		-o -path ./var/lib/apt -o -path ./var/log -o -path './var/lib/dpkg/*-old' \
		-o -path ./var/cache/ldconfig -o -path ./proc -o -path ./run -o -path ./dev \) -prune -o -print | sort)
}

# appeared BEFORE AFTER: prints the new files, and the removed ones with a minus.
appeared() {
	diff "$1" "$2" | sed -n 's/^> \.//p; s/^< \./-/p'
}

# cases_on_servers "$@": runs a test script whose cases may mount; its last line.
cases_on_servers() {
	[[ ${1:-} != --case || -n ${TOA_OWN_MOUNTS:-} ]] || in_own_mounts "$0" "$@"
	cases_main "$@"
}
