#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Entries of TOA_CACHE that an interrupted run or a power cut left incomplete.
#
#   cache-test.sh [CASE…]
#
# The archive, mmdebstrap and the roots are stand-ins. Run it as root. Prints TAP.

. "$(dirname "$0")/../scripts/lib.sh"
. "$REPO/tests/cases.sh"

# A project whose archive has each package once, in version 1.
set_stage() {
	export TOA_CACHE=$TMP/cache TOA_KEYRING=$TMP/keyring PATH=$TMP/bin:$PATH CALLS=$TMP/calls
	export TOA_ARCHIVE_MINUTES=60
	mkdir -p project bin
	cp -r "$SCRIPTS" project/scripts
	echo key >keyring
	: >calls
	stand_in apt-config <<<":"
	stand_in apt-helper <<<":"
	stand_in apt-cache <<-'STUB'
		[[ $1 == madison ]] || exit 0
		shift
		printf ' %s | 1 | http://archive.invalid/debian trixie/main amd64 Packages\n' "$@"
	STUB
	stand_in apt-get <<-'STUB'
		case "$*" in
		indextargets*) echo "http://archive.invalid/debian/" ;;
		*update*) echo update >>"$CALLS" && echo packages >"$TOA_CACHE/apt/lists/archive_Packages" ;;
		*download*)
			shift 2
			for package; do
				file=${package/=/_}_amd64.deb
				[[ $(stat -c %s "$file" 2>/dev/null) == 5 ]] || echo good >"$file"
				echo "download $package" >>"$CALLS"
			done
			;;
		esac
	STUB
	stand_in dpkg-deb <<-'STUB'
		[[ $(<"$2") == good ]] || { echo "dpkg-deb: error: $2 is damaged" >&2; exit 2; }
		[[ $1 != -x ]] || { mkdir -p "$3/usr/lib/modules" && echo "$2" >>"$3/usr/lib/modules/from"; }
	STUB
	stand_in mmdebstrap <<-'STUB'
		cat >/dev/null
		echo mmdebstrap >>"$CALLS"
		for deb in "$TOA_CACHE"/apt/archives/*.deb; do
			[[ ! -e $deb ]] || dpkg-deb --fsys-tarfile "$deb" || exit
		done
		dir=${*: -2:1}
		mkdir -p "$dir"/{usr/bin,var/lib/dpkg,etc}
		echo env >"$dir/usr/bin/env"
		echo status >"$dir/var/lib/dpkg/status"
		[[ ! -e $TMP/fails ]] || { echo "E: broken" >&2; exit 1; }
	STUB
	export TMP
}

# stand_in NAME: standard input becomes the command NAME.
stand_in() {
	{ echo '#!/bin/bash' && cat; } >"bin/$1"
	chmod +x "bin/$1"
}

# calls COMMAND: how often it was called.
calls() {
	grep -c "^$1" "$CALLS" || true
}

root() {
	project/scripts/root.sh path bare
}

# With a stand-in for the root in which kernel.sh and vm-image.sh call themselves.
set_stage_with_tools() {
	set_stage
	cat >project/scripts/root.sh <<-'STUB'
		#!/bin/bash
		echo "root.sh $*" >>"$CALLS"
		case $1 in
		key) echo "$2-1" ;;
		path) mkdir -p "$TMP/guest-root" && echo "$TMP/guest-root" ;;
		run)
			if [[ $3 == */small-kernel.sh ]]; then
				mkdir -p "$4/tree" "$4/headers"
				echo all: >"$4/headers/Makefile"
				exit
			fi
			case $4 in
			image)
				rm -r "$5/tree"
				for file in vmlinuz initrd.cpio.gz modules.ext4; do
					echo "$file" >"$5/$file"
				done
				;;
			write-guest) echo image >"$6" ;;
			esac
			;;
		esac
	STUB
}

# Prints the kernel's directory.
kernel() {
	local kernel_dir found resolved=$TOA_CACHE/kernels/resolved/trixie-backports-newest
	mkdir -p "${resolved%/*}"
	printf '%s=%q\n' release 7.9 version 1 source s binary linux-binary-7.9 rustc r rustc_text t >"$resolved"
	touch -d '+1 minute' "$resolved"
	found=$(KERNEL=trixie-backports KVER='' project/scripts/kernel.sh fetch)
	eval "$found"
	echo "$kernel_dir"
}

# whole_kernel DIRECTORY
whole_kernel() {
	same "the kernel's files" "initrd.cpio.gz modules.ext4 vmlinuz" \
		"$(cd "$1" && find . ! -name '.*' -printf '%P\n' | sort | paste -sd' ')"
	same "the initial RAM disk" initrd.cpio.gz "$(<"$1/initrd.cpio.gz")"
}

# lists_of ANSWER: the suites in sources.list, and how often the lists were fetched by two
# updates, if apt-helper answers so for bullseye.
lists_of() {
	stand_in apt-helper <<-STUB
		[[ \$2 != */bullseye/InRelease ]] || { echo "$1" >&2; exit 100; }
	STUB
	project/scripts/root.sh path bare >/dev/null
	project/scripts/root.sh path bare >/dev/null
	echo "$(sed -n 's/^deb .* \(bullseye[^ ]*\) main$/\1/p' cache/apt/sources.list | paste -sd' ') $(calls update)"
}

case_suite_that_the_archive_has_lost_is_left_out() {
	set_stage
	same "lists" "1" "$(lists_of "  404  Not Found [IP: 192.0.2.1 80]" | awk '{ print $NF }')"
	same "bullseye" "# deb [signed-by=$TMP/keyring] http://archive.invalid/debian/ bullseye main" \
		"$(grep ' bullseye main' cache/apt/sources.list)"
}

case_suite_of_an_archive_that_does_not_answer_stays() {
	set_stage
	same "lists" "bullseye 1" "$(lists_of "Temporary failure resolving 'archive.invalid'")"
}

case_whole_root_is_made_once() {
	set_stage
	same "its place" "$(root)" "$(root)"
	same "mmdebstrap" 1 "$(calls mmdebstrap)"
	same "update" 1 "$(calls update)"
}

case_root_that_was_removed_in_part_is_made_again() {
	local dir
	set_stage
	dir=$(root)
	find "$dir" -mindepth 1 -delete
	same "its place" "$dir" "$(root)"
	same "a file" status "$(<"$dir/var/lib/dpkg/status")"
	rm "$dir/usr/bin/env"
	same "its place" "$dir" "$(root)"
	same "a file" env "$(<"$dir/usr/bin/env")"
	same "mmdebstrap" 3 "$(calls mmdebstrap)"
}

case_root_whose_making_failed_is_made_again() {
	local dir
	set_stage
	touch fails
	! root || die "it was made"
	rm fails
	dir=$(root)
	same "a file" status "$(<"$dir/var/lib/dpkg/status")"
	same "roots" "${dir##*/}" "$(find cache/roots -mindepth 1 -maxdepth 1 -type d -printf '%f\n')"
}

case_root_is_not_moved_into_what_is_in_its_place() {
	local dir
	set_stage
	dir=$(root)
	rm -r "$dir"
	echo "a file" >"$dir"
	same "its place" "$dir" "$(root)"
	same "a file" status "$(<"$dir/var/lib/dpkg/status")"
}

case_damaged_package_in_the_cache_is_downloaded_again() {
	set_stage
	mkdir -p cache/apt/archives
	echo good >cache/apt/archives/good_1_amd64.deb
	printf "xxxx\\n" >cache/apt/archives/damaged_1_amd64.deb
	root
	same "packages" good_1_amd64.deb "$(cd cache/apt/archives && echo *.deb)"
}

case_package_lists_that_are_gone_are_fetched_again() {
	set_stage
	root
	rm cache/apt/lists/*_*
	root
	same "update" 2 "$(calls update)"
	: >cache/apt/lists/archive_Packages
	root
	same "update" 3 "$(calls update)"
}

case_whole_kernel_is_made_once() {
	local dir
	set_stage_with_tools
	dir=$(kernel)
	whole_kernel "$dir"
	same "its place" "$dir" "$(kernel)"
	same "made" 1 "$(calls 'root.sh run')"
}

case_kernel_of_an_interrupted_run_is_made_again() {
	local dir
	set_stage_with_tools
	dir=$(kernel)
	rm "$dir/modules.ext4"
	mkdir -p "$dir.new/tree"
	same "its place" "$dir" "$(kernel)"
	whole_kernel "$dir"
	rm -r "$dir"
	mkdir -p "$dir/left/over"
	same "its place" "$dir" "$(kernel)"
	whole_kernel "$dir"
}

case_truncated_file_of_a_kernel_is_made_again() {
	local dir
	set_stage_with_tools
	dir=$(kernel)
	: >"$dir/initrd.cpio.gz"
	same "its place" "$dir" "$(kernel)"
	whole_kernel "$dir"
}

case_small_kernel_is_built_once_and_damaged_headers_again() {
	local dir
	set_stage_with_tools
	mkdir -p project/tests/kernels
	echo "# Source: linux-source-1.0 of trixie" >project/tests/kernels/like-example.config
	echo CONFIG_NET=y >project/tests/kernels/base.config
	stand_in apt-cache <<-'STUB'
		[[ $1 != madison ]] || printf ' %s | 1.85 | http://archive.invalid/debian trixie/main amd64 Packages\n' "$2"
	STUB
	dir=$(small_kernel)
	same "directory" "$(small_kernel)" "$dir"
	same "builds" 1 "$(calls "root.sh run build")"
	: >"$dir/headers/Makefile"
	same "directory" "$(small_kernel)" "$dir"
	same "builds" 2 "$(calls "root.sh run build")"
	same "headers" all: "$(<"$dir/headers/Makefile")"
	echo CONFIG_INET=y >>project/tests/kernels/like-example.config
	[[ $(small_kernel) != "$dir" ]] || die "the configuration changed, and the kernel is the old one"
}

# Prints the directory of a small kernel.
small_kernel() {
	local kernel_dir found
	found=$(KERNEL=like-example KVER='' project/scripts/kernel.sh fetch)
	eval "$found"
	echo "$kernel_dir"
}

case_damaged_package_of_a_kernel_is_downloaded_again() {
	set_stage_with_tools
	mkdir -p cache/kernels/debs
	printf "xxxx\\n" >cache/kernels/debs/linux-binary-7.9_1_amd64.deb
	whole_kernel "$(kernel)"
}

case_truncated_image_is_made_again() {
	local image
	set_stage_with_tools
	image=$(project/scripts/vm-image.sh guest)
	same "image" image "$(<"$image")"
	same "its place" "$image" "$(project/scripts/vm-image.sh guest)"
	same "made" 1 "$(calls 'root.sh run')"
	printf im >"$image"
	same "its place" "$image" "$(project/scripts/vm-image.sh guest)"
	same "image" image "$(<"$image")"
}

# Headers and tools of a kernel, and metadata that was made for them.
set_stage_with_metadata() {
	local kdir=$TMP/headers
	set_stage
	export TOA_METADATA_CACHE=$TMP/metadata
	stand_in rustc <<<'echo "rustc 1.0"'
	stand_in bindgen <<<'echo "bindgen 1.0"'
	stand_in some-gcc <<<:
	stand_in dpkg-query <<-'STUB'
		[[ ${!#} == linux-headers-7.9 ]] && echo "installed 7.9-1"
	STUB
	mkdir -p "$kdir/include/generated"
	echo '#define UTS_RELEASE "7.9"' >"$kdir/include/generated/utsrelease.h"
	printf 'CONFIG_%s\n' RUST=y 'RUSTC_VERSION_TEXT="rustc 1.0"' 'BINDGEN_VERSION_TEXT="bindgen 1.0"' \
		CC_IS_GCC=y 'CC_VERSION_TEXT="some-gcc 1.0"' >"$kdir/.config"
	touch "$kdir/Makefile"
	OVERLAY=$TMP/metadata/7.9_7.9-1_rustc-1.0_r1
	mkdir -p "$OVERLAY/rust"
	for file in Makefile rust/lib{core,kernel}.rmeta; do
		echo "$file" >"$OVERLAY/$file"
	done
	printf '%s\n' "headers $kdir 7.9-1" "recipe 1" "rustc 1.0" "some-gcc 1.0" >"$OVERLAY/toa-metadata"
}

metadata() {
	project/scripts/metadata.sh --kver 7.9 --kdir "$TMP/headers" 2>&1 || true
}

case_damaged_metadata_is_not_used() {
	set_stage_with_metadata
	same "overlay" "$OVERLAY" "$(metadata)"
	: >"$OVERLAY/rust/libkernel.rmeta"
	has "message" "linux-source-7.9 is missing" "$(metadata)"
	rm "$OVERLAY/rust/libkernel.rmeta"
	has "message" "linux-source-7.9 is missing" "$(metadata)"
}

case_truncated_metadata_is_not_used() {
	set_stage_with_metadata
	mark "$OVERLAY"
	same "overlay" "$OVERLAY" "$(metadata)"
	echo short >"$OVERLAY/rust/libcore.rmeta"
	has "message" "linux-source-7.9 is missing" "$(metadata)"
}

case_entries_that_nothing_used_for_two_weeks_are_removed() {
	local dir
	set_stage_with_tools
	mkdir -p cache/kernels/7.8_1_recipe cache/kernels/7.7_1_recipe
	touch -d '-15 days' cache/kernels/7.8_1_recipe
	dir=$(kernel)
	same "kernels" "7.7_1_recipe ${dir##*/}" \
		"$(cd cache/kernels && find . -maxdepth 1 -name '7.*' -printf '%f\n' | sort | paste -sd' ')"
}

cases_main "$@"
