#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Finds a stock Debian kernel in the archive and downloads it, or builds a small one from
# Debian's source.
#
#   kernel.sh resolve    print the kernel that fits, as NAME=VALUE lines
#   kernel.sh packages   print the packages that building for it takes, with
#                        versions
#   kernel.sh fetch      make its image, modules and initial RAM disk; print their
#                        directory
#
# KERNEL=  trixie-backports (default), bullseye, bookworm, trixie, forky, sid or
#          experimental: the cloud flavour; with -rt appended the PREEMPT_RT one, with
#          -amd64 the full one. like-NAME, debug or debug-NAME: the small kernel of
#          tests/kernels/like-NAME.config and so on
# KVER=    a version to take instead of the newest one, such as 7.2.9
#
# A kernel fits if the archive has, in exactly its version, headers, modules and
# an image (signed or not). A kernel with Rust needs linux-source and the rustc
# that built it as well; a kernel without needs any rustc from 1.85 on.
# Exits 77 if none fits, 75 if the archive cannot be reached.

. "$(dirname "$0")/lib.sh"
shopt -s inherit_errexit

KERNEL=${KERNEL:-trixie-backports}
if is_small "$KERNEL"; then
	SUITE=$(source_of_small "$KERNEL" | awk '{ print $2 }') FLAVOUR=$KERNEL
else
	case $KERNEL in
	*-rt) SUITE=${KERNEL%-rt} FLAVOUR=rt-amd64 ;;
	*-amd64) SUITE=${KERNEL%-amd64} FLAVOUR=amd64 ;;
	*) SUITE=$KERNEL FLAVOUR=cloud-amd64 ;;
	esac
fi
readonly FLAVOURS=(cloud-amd64 amd64 rt-amd64)
# The first rustc that compiles toa.
readonly OLDEST_RUSTC=1.85
KERNELS=$TOA_CACHE/kernels
BUILT=$TOA_CACHE/kernels-built

# The suites of the kernel packages: a release and its security updates, or one suite.
kernel_suites() {
	case $SUITE in
	bullseye) echo bullseye bullseye-security ;;
	bookworm | trixie) suites_of_kernel ;;
	*) echo "$SUITE" ;;
	esac
}

# versions PACKAGE [SUITE…]: the versions in the suites, by default the kernel's, newest
# first.
versions() {
	local package=$1 suite
	shift
	# shellcheck disable=SC2046 # words are intended
	[[ $# != 0 ]] || set -- $(kernel_suites)
	for suite; do
		archive_versions "$package" "$suite"
	done | sort -rV
}

# Headers packages of the flavour in the kernel's suites, "VERSION PACKAGE", newest
# first. Without KVER none newer than the flavour's metapackage points at.
candidates() {
	local limit
	limit=$(versions "linux-headers-$FLAVOUR" | sed -n 1p)
	archive_cache pkgnames linux-headers- | grep -E -- "-[0-9].*-$FLAVOUR\$" |
		grep -vE -- "-(cloud|rt)-$FLAVOUR\$" |
		xargs apt-cache -c "$TOA_CACHE/apt/apt.conf" madison |
		awk -F ' *[|] *' -v suites=" $(kernel_suites) " '
			{ sub(/^ */, "", $1); split($3, a, " "); split(a[2], b, "/") }
			index(suites, " " b[1] " ") { print $2, $1 }' | newest_first |
		while read -r version package; do
			if [[ -n ${KVER:-} ]]; then
				[[ $version == "$KVER"[-~+]* ]] || continue
			else
				dpkg --compare-versions "$version" le "$limit" || continue
			fi
			echo "$version $package"
		done
}

# Sorts "VERSION PACKAGE" lines. ~ sorts before the end, as in dpkg.
newest_first() {
	sort -rV -k1,1
}

# has PACKAGE VERSION: whether the kernel's suites have it.
has() {
	versions "$1" | grep -xF -- "$2" >/dev/null
}

# The kernel's configuration, from its headers package.
config_of() {
	local package=$1 version=$2 file
	file=$KERNELS/configs/${package}_$version
	if [[ ! -s $file ]]; then
		mkdir -p "$KERNELS/configs"
		archive_download "$KERNELS/debs" "$package=$version" || exit
		dpkg-deb --fsys-tarfile "$(deb_of "$package" "$version")" |
			tar -xO "./usr/src/$package/.config" >"$file.new" || exit
		mv "$file.new" "$file"
	fi
	cat "$file"
}

deb_of() {
	find "$KERNELS/debs" -name "$1_${2//:/%3a}_*.deb" -print -quit
}

# The package version, in the suites of the compilers, of the rustc that built the
# kernel.
rustc_for() {
	local version=$1 suite
	for suite in $(suites_of_kernel); do
		archive_versions rustc "$suite"
	done | grep -m 1 -E "^${version//./\\.}[+-]" || true
}

# The packages of the suite's newest rustc and its library sources: "RUSTC RUST-SRC
# VERSION". Debian 12 has the newer ones as rustc-web.
any_rustc() {
	local rustc source version suites
	# The lists of bullseye-security name a rustc-web that the archive has lost. A rustc of
	# backports is newer than the one that Debian builds their kernels by.
	read -ra suites < <(suites_of_kernel | sed -E 's/ (bullseye|trixie-backports).*//')
	while read -r rustc source; do
		version=$(versions "$rustc" "${suites[@]}" | sed -n 1p)
		if [[ -n $version ]] && dpkg --compare-versions "$version" ge "$OLDEST_RUSTC"; then
			echo "$rustc $source $version"
			return
		fi
	done <<-NAMES
		rustc rust-src
		rustc-web rust-web-src
	NAMES
}

# fits VERSION PACKAGE: sets the variables that `resolve` prints, or REASON.
fits() {
	local config
	VERSION=$1
	RELEASE=${2#linux-headers-}
	has_image || { REASON="no image" && return 1; }
	config=$(config_of "$2" "$VERSION") || exit
	RUSTC_TEXT=$(sed -n 's/^CONFIG_RUSTC_VERSION_TEXT="\(.*\)"/\1/p' <<<"$config")
	if grep -qx CONFIG_RUST=y <<<"$config"; then
		fits_with_rust
	else
		fits_without_rust
	fi
}

# Sets BINARY, the package of the image: one that needs linux-modules-RELEASE beside it, or
# one that holds the modules as well.
has_image() {
	local kind=image
	! has "linux-modules-$RELEASE" "$VERSION" || kind=binary
	for BINARY in "linux-$kind-$RELEASE" "linux-$kind-unsigned-$RELEASE" "linux-$kind-$RELEASE-unsigned"; do
		! has "$BINARY" "$VERSION" || return 0
	done
	return 1
}

fits_with_rust() {
	SOURCE=linux-source-$(grep -oE '^[0-9]+\.[0-9]+' <<<"$VERSION")
	has "$SOURCE" "$VERSION" || { REASON="no $SOURCE of that version" && return 1; }
	RUSTC=$(rustc_for "$(awk '{ print $2 }' <<<"$RUSTC_TEXT")")
	[[ -n $RUSTC ]] || { REASON="built by $RUSTC_TEXT, which the archive does not have" && return 1; }
}

# RUSTC_TEXT stays empty: no rustc built the kernel.
fits_without_rust() {
	SOURCE=''
	RUSTC_TEXT=''
	RUSTC=$(any_rustc)
	RUSTC=${RUSTC##* }
	[[ -n $RUSTC ]] || { REASON="no rustc from $OLDEST_RUSTC on" && return 1; }
}

resolve() {
	local version package
	suites_of_kernel >/dev/null
	archive_update
	while read -r version package; do
		if fits "$version" "$package"; then
			printf '%s=%q\n' release "$RELEASE" version "$VERSION" source "$SOURCE" \
				binary "$BINARY" rustc "$RUSTC" rustc_text "$RUSTC_TEXT"
			return
		fi
		info "${0##*/}: passing over $package $version: $REASON"
	done < <(candidates)
	info "${0##*/}: no $FLAVOUR kernel ${KVER:+$KVER }of $SUITE fits: skipped"
	exit "$NO_KERNEL"
}

# The small kernel from the newest source in the suite. Its directory's name has the version,
# and a hash of the configuration and the recipe.
resolve_small() {
	local source suite recipe
	read -r source suite < <(source_of_small "$KERNEL")
	version=$(versions "$source" | sed -n 1p)
	rustc=$(any_rustc)
	if [[ -z $version || -z $rustc ]]; then
		info "${0##*/}: no ${version:+rustc from $OLDEST_RUSTC on for }$source of $suite fits: skipped"
		exit "$NO_KERNEL"
	fi
	release=${version%%-*}-$KERNEL
	recipe=$({ of_small "$KERNEL" Compiler && options_of_small "$KERNEL" && cat "$SCRIPTS"/{small-kernel.sh,guest/initrd-init}; } |
		sha256sum | cut -c1-8)
	printf '%s=%q\n' release "$release" version "$version" source "$source" binary '' \
		rustc "${rustc##* }" rustc_text '' small "$BUILT/${release}_${version}_$recipe"
}

# Prints the kernel that was found last, until package lists are fetched again.
resolved() {
	local file=$KERNELS/resolved/$KERNEL-${KVER:-newest}
	archive_update
	! is_small "$KERNEL" || { resolve_small && return; }
	if [[ ! -s $file || $file -ot $TOA_CACHE/apt/fresh || $file -ot $0 ]]; then
		mkdir -p "$KERNELS/resolved"
		resolve >"$file.$$"
		mv "$file.$$" "$file"
	fi
	cat "$file"
}

# PACKAGE=VERSION of the packages that a build root needs beside the fixed list.
# Headers are those of each flavour with the same version: flavours share a root.
packages() {
	local flavour tool
	if [[ -n ${small:-} ]]; then
		echo "$source=$version"
		any_rustc | awk '{ print $1 "=" $3; print $2 "=" $3 }'
		! options_of_small "$KERNEL" | grep -x CONFIG_RUST=y >/dev/null || echo bindgen
		tool=$(of_small "$KERNEL" Compiler)
		[[ -z $tool ]] || printf '%s\n' "$tool" "lld${tool#clang}" "llvm${tool#clang}"
		return
	fi
	for flavour in "${FLAVOURS[@]}"; do
		tool=linux-headers-${release%-"$FLAVOUR"}-$flavour
		! has "$tool" "$version" || echo "$tool=$version"
	done
	if [[ -z $source ]]; then
		any_rustc | awk '{ print $1 "=" $3; print $2 "=" $3 }'
		return
	fi
	echo "$source=$version"
	for tool in rustc rust-src rustfmt rust-clippy; do
		echo "$tool=$rustc"
	done
	[[ $SUITE != trixie-backports ]] || echo "linux-base/$SUITE"
}

# --- the kernel's files for the virtual machine ----------------------------

# The modules that mounting the root file system takes, in the order of insertion.
initrd_modules() {
	local root=$1 module
	for module in virtio_pci virtio_blk ext4; do
		modprobe -d "$root" -S "$release" --show-depends "$module" | sed -n 's/^insmod //p'
	done | awk '{ print $1 }' | awk '!seen[$0]++'
}

initrd() {
	local root=$1 out=$2 dir=$1/initrd module modules name
	modules=$(initrd_modules "$root")
	mkdir -p "$dir"/{bin,modules,proc,sys,dev,root}
	cp /bin/busybox "$dir/bin/busybox"
	ln -s busybox "$dir/bin/sh"
	while read -r module; do
		[[ -n $module ]] || continue
		name=$(basename "$module")
		case $name in
		*.xz) name=${name%.xz} && xz -dc "$module" >"$dir/modules/$name" ;;
		*.zst) name=${name%.zst} && zstd -qdc "$module" >"$dir/modules/$name" ;;
		*) cp "$module" "$dir/modules/$name" ;;
		esac
		echo "$name" >>"$dir/modules/order"
	done <<<"$modules"
	install -m 755 "$SCRIPTS/guest/initrd-init" "$dir/init"
	(cd "$dir" && find . | cpio --quiet -o -H newc -R 0:0 | gzip -1) >"$out"
}

# Makes the files of a kernel's directory from packages unpacked there. Runs in the
# tools root.
image() {
	local dir=$1 tree=$1/tree
	# As vmlinuz, or as vmlinuz.unsigned in linux-binary-unsigned; before 7.x in /boot.
	find "$tree/usr/lib/modules/$release" "$tree/boot" -maxdepth 1 -name 'vmlinuz*' \
		-exec mv {} "$dir/vmlinuz" \; 2>/dev/null || true
	[[ -s $dir/vmlinuz ]] || die "the packages of $release hold no vmlinuz"
	ln -sfn usr/lib "$tree/lib"
	depmod -b "$tree" "$release"
	initrd "$tree" "$dir/initrd.cpio.gz"
	mke2fs -q -t ext4 -O ^has_journal -m 0 -d "$tree/usr/lib/modules" "$dir/modules.ext4" \
		"$(($(du -sm "$tree/usr/lib/modules" | cut -f1) * 5 / 4 + 16))M"
	rm -rf "$tree"
}

# Removes modules that no test needs: a whole RT flavour has 160 MB.
prune() {
	local modules=$1/kernel
	[[ -d $modules ]] || return 0
	find "$modules/drivers" -mindepth 1 -maxdepth 1 \
		! -name net ! -name virtio ! -name block ! -name char ! -name crypto ! -name md ! -name vhost \
		-exec rm -rf {} +
	find "$modules/drivers/net" -mindepth 1 -maxdepth 1 -type d ! -name bonding ! -name netdevsim \
		! -name ovpn ! -name wireguard ! -name vxlan ! -name team -exec rm -rf {} +
	rm -rf "${modules:?}/sound"
}

# Moves the modules of Debian 12's packages, which have them in /lib.
merge_usr() {
	[[ -d $1/lib/modules ]] || return 0
	mkdir -p "$1/usr/lib"
	mv "$1/lib/modules" "$1/usr/lib/modules"
	rm -rf "${1:?}/lib"
}

fetch_into() {
	local dir=$1 package packages=("$binary")
	mkdir -p "$dir/tree"
	for package in "linux-modules-$release" "linux-base-$release"; do
		! has "$package" "$version" || packages+=("$package")
	done
	archive_download "$KERNELS/debs" "${packages[@]/%/=$version}"
	for package in "${packages[@]}"; do
		dpkg-deb -x "$(deb_of "$package" "$version")" "$dir/tree"
	done
	merge_usr "$dir/tree"
	prune "$dir/tree/usr/lib/modules/$release"
	"$SCRIPTS/root.sh" run "$TOOLS" "$SCRIPTS/kernel.sh" image "$dir" "$release"
}

# Builds the kernel, then makes its files from what it would install.
small_into() {
	local dir=$1
	mkdir -p "$dir"
	nice "$SCRIPTS/root.sh" run build "$SCRIPTS/small-kernel.sh" "$dir" "$KERNEL" "$release" "$source" >&2
	"$SCRIPTS/root.sh" run "$TOOLS" "$SCRIPTS/kernel.sh" image "$dir" "$release"
}

fetch() {
	local dir
	if [[ -n ${small:-} ]]; then
		locked "kernel-$release" entry "$small" small_into
		touch "$small"
		forget_unused "$BUILT" '*_*'
		printf '%s=%q\n' kernel_dir "$small"
		resolved
		return
	fi
	# The name has a hash of the recipe: another recipe, another directory.
	dir=$KERNELS/${release}_${version}_$(cat "$0" "$SCRIPTS"/guest/initrd-init | sha256sum | cut -c1-8)
	locked "kernel-$release" entry "$dir" fetch_into
	touch "$dir"
	forget_unused "$KERNELS" '*_*'
	printf '%s=%q\n' kernel_dir "$dir"
	resolved
}

main() {
	# shellcheck disable=SC2034 # `resolved` prints them
	local found release version source binary rustc rustc_text small
	case ${1:-} in
	resolve) resolved ;;
	packages | fetch)
		found=$(resolved)
		eval "$found"
		"$1"
		;;
	image)
		release=$3
		image "$2"
		;;
	-h | --help | help) usage ;;
	*) usage 1 >&2 ;;
	esac
}

main "$@"
