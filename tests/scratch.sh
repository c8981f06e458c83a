# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Sourced by tests of packages, after scripts/lib.sh and cases.sh: throwaway copies
# of a root directory, to install things into. What is mounted goes away with the
# process: start the test in a mount namespace of its own.

# in_own_mounts COMMAND…: replaces this process by COMMAND in such a namespace.
in_own_mounts() {
	exec env TOA_OWN_MOUNTS=1 unshare --mount --propagation private "$@"
}

# scratch DIRECTORY ROOT: DIRECTORY shows ROOT's files; what is changed there
# is kept beside it, in DIRECTORY.changes.
scratch() {
	local dir=$1 root=$2
	mkdir -p "$dir" "$dir.changes/upper" "$dir.changes/work"
	mount -t overlay overlay \
		-o "lowerdir=$root,upperdir=$dir.changes/upper,workdir=$dir.changes/work" "$dir"
	enterable "$dir"
}

# What programs in a root look for, and apt's way to the archive. Packages in
# the cache are taken from there, others are kept in TMP.
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

# inside DIRECTORY COMMAND…: what COMMAND leaves running ends with it.
inside() {
	local dir=$1
	shift
	env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C TERM=dumb \
		DEBIAN_FRONTEND=noninteractive unshare --pid --fork --kill-child chroot "$dir" "$@" </dev/null
}

# files DIRECTORY: that are there, but for what programs write down about themselves.
files() {
	(cd "$1" && find . -xdev \( -path ./root -o -path ./tmp -o -path ./var/cache/apt \
		-o -path ./var/lib/apt -o -path ./var/log -o -path './var/lib/dpkg/*-old' \
		-o -path ./var/cache/ldconfig -o -path ./proc -o -path ./run -o -path ./dev \) -prune -o -print | sort)
}

# appeared BEFORE AFTER: and with a minus what went.
appeared() {
	diff "$1" "$2" | sed -n 's/^> \.//p; s/^< \./-/p'
}

# cases_on_servers "$@": the end of such a test, whose cases may mount.
cases_on_servers() {
	[[ ${1:-} != --case || -n ${TOA_OWN_MOUNTS:-} ]] || in_own_mounts "$0" "$@"
	cases_main "$@"
}
