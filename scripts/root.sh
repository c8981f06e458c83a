#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Makes and enters the root directories in which all builds and tests run.
#
#   root.sh make NAME             make the root, unless it exists
#   root.sh path NAME             make it too, and print its path
#   root.sh key NAME              print its name under TOA_CACHE/roots
#   root.sh has NAME…             succeed if these roots exist
#   root.sh run NAME COMMAND…     run COMMAND in it, in the current directory
#
# NAME is one of
#   tools   Rust, QEMU, shellcheck, …: user-space programs and the VM
#   build   the packages that building the module takes, for the kernel that
#           KERNEL= and KVER= select (see kernel.sh); for a kernel without Rust
#           the short list of standin.txt, for a small kernel that of small.txt
#   dkms    build and DKMS
#   selftests   build and what the kernel's own tests are built with
#   rpm     dkms and rpm
#   demo    build, QEMU and the tools for the programs of `make demo`, for kernels
#           of trixie-backports
#   secureboot   firmware with Secure Boot, and tools that make keys for it
#   guest   the virtual machine's user land, from which an image is made
#   guest-more   guest and larger servers
#   guest-selftests   guest and the tools of the kernel's own tests
#   go      Go, for a server of the tests and the Go package
#   python  Python, for the Python package
#   litmus  herdtools7 and the kernel's memory model, of forky
#   nginx   the packages that building nginx's modules takes, in the suite of
#           NGINX= (trixie, sid)
#   deb     tools that make Debian packages, in the Debian release that the kernel
#           of KERNEL= comes from
#   deb-more   deb, and the compilers for packages with compiled code
#   bare    an empty Debian of the same release
#   server  a server with systemd, to install packages on
#
# Roots are kept under TOA_CACHE (/var/cache/toa). Their names have a hash of their
# packages' exact versions: a newer package in the archive makes a new root. A
# command sees the clone and the cache at their usual paths.

. "$(dirname "$0")/lib.sh"
shopt -s inherit_errexit

ROOTS=$TOA_CACHE/roots

# The package list of a root, without comments. The packages of kernel.sh replace
# the entries of the same name, and the placeholders for the kernel's packages.
packages_of() {
	local list exact
	list=$(sed -e 's/#.*//' -e '/^[[:space:]]*$/d' "$SCRIPTS/packages/$1.txt")
	if [[ $1 == guest-* ]]; then
		packages_of guest
	elif [[ $1 == dkms || $1 == selftests ]]; then
		packages_of build
	elif [[ $1 == demo ]]; then
		packages_of build | grep -vE '^(rust-clippy|rustfmt|xz-utils)(=|$)'
	elif [[ $1 == rpm ]]; then
		packages_of dkms
	elif [[ $1 == deb-more ]]; then
		packages_of deb
	elif [[ $1 == build ]]; then
		exact=$("$SCRIPTS/kernel.sh" packages)
		if is_small "${KERNEL:-}"; then
			list=$(sed -e '/^#/d' "$SCRIPTS/packages/small.txt")
		elif [[ $exact != *linux-source-* ]]; then
			list=$(sed -e '/^#/d' "$SCRIPTS/packages/standin.txt")
		fi
		grep -vxF -e linux-headers-RELEASE -e linux-source-X.Y \
			-f <(sed 's/[=/].*//' <<<"$exact") <<<"$list"
		list=$exact
	fi
	echo "$list"
}

# "PACKAGE VERSION" for each package of a root's list, with the version that the
# root would install. An entry may name its suite (package/suite) or its version
# (package=version).
versions_of() {
	local list
	list=$(packages_of "$1")
	# shellcheck disable=SC2046 # split into words
	archive_cache madison $(sed 's/[=/].*//' <<<"$list") |
		awk -F ' *[|] *' -v suites="$(suites_of "$1")" -v list="$list" '
			BEGIN { many = split(suites, suite, " "); for (i = 1; i <= many; i++) is_ours[suite[i]] }
			{ sub(/^ */, "", $1); split($3, a, " "); split(a[2], b, "/") }
			# A release and its security updates are one: the newer version counts.
			b[1] in is_ours { sub(/-security$/, "", b[1]) }
			!(($1, b[1]) in newest) { newest[$1, b[1]] = $2 }
			END {
				many = split(list, entries, "\n"); kinds = split(suites, suite, " ")
				for (i = 1; i <= many; i++) {
					split(entries[i], part, /[=\/]/); found = ""
					if (entries[i] ~ /=/) found = part[2]
					else if (entries[i] ~ /\//) found = newest[part[1], part[2]]
					else for (j = kinds; j; j--)
						if ((part[1], suite[j]) in newest) found = newest[part[1], suite[j]]
					print part[1], found
				}
			}'
}

# The suites of a root, the preferred one first.
suites_of() {
	case $1 in
	build | dkms | rpm | demo | selftests) suites_of_kernel ;;
	nginx) echo "${NGINX:-trixie}" ;;
	litmus) echo forky ;;
	deb | deb-more | bare | server) debian_of_kernel ;;
	*) echo trixie trixie-backports ;;
	esac
}

# The apt preferences that pin each package of the list at its version.
preferences() {
	awk '{ printf "Package: %s\nPin: version %s\nPin-Priority: 1001\n\n", $1, $2 }' "$1"
	# Other packages from the source of QEMU follow it, but the list does not have them.
	awk '$1 ~ /^qemu-system/ { printf "Package: src:qemu\nPin: version %s\nPin-Priority: 1001\n\n", $2; exit }' "$1"
}

# The hooks that reuse the packages of earlier roots, and keep those of this one.
# Java's alternatives need the directory of the manuals, though it stays empty.
archive_hooks() {
	local cache=$TOA_CACHE/apt
	cat <<-HOOKS
		--setup-hook=mkdir -p "\$1/var/lib/apt/lists" "\$1/var/cache/apt/archives" "\$1/usr/share/man/man1"
		--setup-hook=find $cache/lists -maxdepth 1 -type f ! -name lock -exec cp -p -t "\$1/var/lib/apt/lists" {} +
		--setup-hook=find $cache/archives -maxdepth 1 -name '*.deb' -exec ln -t "\$1/var/cache/apt/archives" {} + 2>/dev/null || find $cache/archives -maxdepth 1 -name '*.deb' -exec cp -t "\$1/var/cache/apt/archives" {} +
		--customize-hook=find "\$1/var/cache/apt/archives" -maxdepth 1 -name '*.deb' -exec mv -n -t $cache/archives {} +
	HOOKS
}

# bootstrap DIRECTORY VERSIONS NAME: makes the root NAME with the packages of the
# file VERSIONS. Files that no build reads are left out.
bootstrap() {
	local dir=$1 versions=$2 name=$3 hooks suites
	mapfile -t hooks < <(archive_hooks)
	read -ra suites < <(suites_of "$name")
	preferences "$versions" >"$versions.pref"
	archive_acquire >"$versions.conf"
	archive_sources "${suites[@]}" | mmdebstrap --mode=root --variant=minbase --format=directory \
		--include="$(awk '{ print $1 }' "$versions" | paste -sd,)" \
		--aptopt="$versions.conf" \
		--aptopt='APT::Sandbox::User "root"' --aptopt='Acquire::Languages "none"' \
		--dpkgopt=force-unsafe-io \
		--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
		--dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/info/*' \
		--dpkgopt='path-exclude=/usr/src/rustc-*/src/tools/*' --dpkgopt='path-exclude=/usr/src/rustc-*/src/doc/*' \
		--dpkgopt='path-exclude=/usr/lib/llvm-*/lib/libclang*.a' \
		--skip=download/empty,essential/unlink,check/empty \
		"${hooks[@]}" \
		--setup-hook="cp $versions.pref \"\$1/etc/apt/preferences.d/toa\"" \
		"${suites[0]}" "$dir" - 2>&1 | tee "$versions.log" >&2
}

network_failed() {
	grep -qE 'Failed to fetch|Unable to fetch|Temporary failure|Could not (resolve|connect)|Connection (failed|timed out)' "$1"
}

# make_root NAME KEY DIRECTORY: bootstraps, again if the archive failed.
make_root() {
	local name=$1 key=$2 dir=$3 log=$ROOTS/$2.versions.log try start=$EPOCHREALTIME
	for try in 1 2 3; do
		discard "$dir"
		bootstrap "$dir" "$ROOTS/$key.versions" "$name" && break
		damaged_packages || network_failed "$log" || die "mmdebstrap failed: its log is $log"
		[[ $try != 3 ]] || archive_unavailable "downloading packages failed three times"
	done
	info "root $key: $(seconds_since "$start") s, $(du -sm "$dir" | cut -f1) MB"
}

# Removes damaged packages from the cache. Succeeds if there were any.
damaged_packages() {
	local cache=$TOA_CACHE/apt/archives before
	before=$(ls "$cache")
	drop_damaged "$cache" '*.deb'
	[[ $(ls "$cache") != "$before" ]]
}

# Sets KEY, the name of a root under ROOTS.
identify() {
	local name=$1 versions
	[[ -s $SCRIPTS/packages/$name.txt ]] || die "no root is called '$name': see --help"
	need_root
	need_host mmdebstrap=mmdebstrap
	archive_update
	versions=$(versions_of "$name")
	! grep -q ' $' <<<"$versions" ||
		die "the archive has no package $(grep ' $' <<<"$versions" | paste -sd' ')"
	KEY=$name-$(sha256sum <<<"$versions$(sed -n '/^bootstrap()/,/^}/p' "$0")" | cut -c1-12)
	mkdir -p "$ROOTS"
	echo "$versions" >"$ROOTS/$KEY.versions"
}

ensure() {
	identify "$1"
	locked "$KEY" entry "$ROOTS/$KEY" make_root "$1" "$KEY"
	touch "$ROOTS/$KEY" "$ROOTS/$KEY".versions*
	forget_unused "$ROOTS" "$1-*"
}

# enter DIRECTORY COMMAND…: runs COMMAND in the root. A private mount namespace ends
# with the last process, and all mounts with it.
enter() {
	local root=$1 cwd=$PWD bind
	shift
	# A separate mount, whose propagation can be set from inside.
	mount --bind "$root" "$root"
	mount -t proc proc "$root/proc"
	mount --rbind /dev "$root/dev"
	mount -t tmpfs tmpfs "$root/tmp"
	for bind in "$REPO" "$TOA_CACHE"; do
		mkdir -p "$root$bind"
		mount --bind "$bind" "$root$bind"
	done
	for bind in /etc/resolv.conf /etc/ssl/certs/ca-certificates.crt; do
		[[ -s $bind && -d $root${bind%/*} ]] || continue
		touch "$root$bind"
		mount --bind "$bind" "$root$bind"
	done
	# Without exec: the first process of the namespace inherits orphans, and GNU make in that
	# place may wait for them forever.
	# shellcheck disable=SC2016 # the shell in the root expands it
	chroot "$root" /usr/bin/env -i "${ENVIRONMENT[@]}" \
		/bin/sh -c 'cd "$0" && exec "$@"' "$cwd" "$@"
}

# Sets ENVIRONMENT, the variables that a command in a root gets.
environment() {
	local name
	ENVIRONMENT=(PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
		HOME=/root "LC_ALL=C" "TERM=${TERM:-dumb}" "TOA_CACHE=$TOA_CACHE"
		"CARGO_HOME=$TOA_CACHE/cargo"
		# Go's programs need none of the root's C libraries, and no other version of Go.
		"GOCACHE=$TOA_CACHE/go" GOTOOLCHAIN=local CGO_ENABLED=0
		PYTHONDONTWRITEBYTECODE=1
		"TOA_METADATA_CACHE=$TOA_CACHE/metadata")
	for name in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY CI KERNEL KVER RUST \
		CARGO_TARGET_DIR TOA_METADATA_JOBS CARGO_NET_OFFLINE RUST_BACKTRACE PROPTEST_CASES; do
		[[ -z ${!name:-} ]] || ENVIRONMENT+=("$name=${!name}")
	done
}

run() {
	local root=$ROOTS/$1
	shift
	mkdir -p "$TOA_CACHE/cargo"
	case $PWD/ in
	"$REPO"/* | "$TOA_CACHE"/*) ;;
	*) cd "$REPO" ;;
	esac
	environment
	export -f enter
	exec unshare --mount --pid --fork --kill-child --propagation private \
		bash -c "$(declare -p ENVIRONMENT REPO TOA_CACHE); set -euo pipefail; enter \"\$@\"" enter "$root" "$@"
}

main() {
	local action=${1:-} name=${2:-}
	case $action in
	key)
		identify "$name"
		echo "$KEY"
		;;
	has)
		shift
		for name; do
			identify "$name"
			complete "$ROOTS/$KEY" || return 1
		done
		;;
	make | path)
		[[ $# == 2 ]] || usage 1 >&2
		ensure "$name"
		[[ $action == make ]] || echo "$ROOTS/$KEY"
		;;
	run)
		[[ $# -ge 3 ]] || usage 1 >&2
		shift 2
		ensure "$name"
		run "$KEY" "$@"
		;;
	-h | --help | help) usage ;;
	*) usage 1 >&2 ;;
	esac
}

main "$@"
