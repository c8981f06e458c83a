#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Prints the kernel build directory in which a Rust module can be built.
#
#   metadata.sh [--kver RELEASE] [--kdir DIRECTORY] [--print-make-vars]
#
#   --kver             the kernel's release; default: that of --kdir, else of
#                      the running kernel
#   --kdir             its headers; default: /lib/modules/RELEASE/build
#   --print-make-vars  print RUSTC=… BINDGEN=… CLIPPY_DRIVER=… RUSTFMT=… on one
#                      line instead: the tools that belong to the kernel
#
# Use it as
#
#   make -C "$(metadata.sh)" M=$PWD $(metadata.sh --print-make-vars)
#
# The directory of headers with Rust metadata (Ubuntu, Arch, Fedora) is printed as
# it is. Debian's headers have none: it is regenerated into an overlay of the
# headers, from the linux-source package of exactly their version, with their
# .config and compilers. It is made once for each version of kernel and compiler,
# and used only if all of this holds:
#
#   - the regenerated crates and their C helpers export the symbols that
#     Module.symvers lists for them, not one more or less, and over 700
#   - the configuration and the layout of the kernel's structures are the same
#   - a module built in the overlay has the headers' vermagic
#   - the files of the headers packages are untouched (dpkg --verify)
#
# The overlay links to the headers for all but rust/ and scripts/target.json.
# Nothing is written into a directory of a package. The overlay takes 190 MB, and
# 800 MB while it is made, in
#
#   TOA_METADATA_CACHE   default: /var/cache/toa/metadata for root, else
#                        ~/.cache/toa/metadata; without it, overlays that root
#                        made are used too
#
# TOA_METADATA_JOBS compilers run at a time (default: one for each processor).
# Exits 1 with one message if something is missing.

. "$(dirname "$0")/lib.sh"
. "$SCRIPTS/toolchain.sh"

# The recipe's number is part of the overlay's name. Raise it if the overlay's
# content or its checks change.
readonly RECIPE=1
readonly NEEDED_MB=800
# Linux 7.2 exports 1,081 (rustc 1.97, which inlines more) to 2,779 (1.85) symbols
# of crates and helpers. With fewer than this, the comparison itself is broken.
readonly FEWEST_SYMBOLS=700

# The end of each message on what only this crate takes.
# shellcheck disable=SC2034 # for toolchain.sh
OTHER_CHOICE=", or make RUST=standin, which takes rustc 1.85 or later and its source only"

# --- the kernel ---------------------------------------------------------------

check_rust_in_kernel() {
	local config others=()
	[[ $(config_value RUST) == y ]] && return
	for config in /lib/modules/*/build/.config; do
		! grep -qs '^CONFIG_RUST=y' "$config" || others+=("$(basename "$(dirname "$(dirname "$config")")")")
	done
	die "the kernel $KVER was built without Rust (CONFIG_RUST is off): toa's own crate builds for it, make RUST=standin." \
		"Debian's kernels have it in trixie-backports (7.2 and later), forky and sid, trixie's own 6.12 has not." \
		"Headers that have it, installed here: ${others[*]:-none}:" \
		"apt install -t trixie-backports linux-image-amd64 linux-headers-amd64"
}

has_metadata() {
	[[ -e $KDIR/rust/libkernel.rmeta && -n $(compgen -G "$KDIR/rust/libmacros.*") ]] || return 1
	[[ -e $KDIR/scripts/target.json || $(config_value X86_64) != y ]]
}

# --- the overlay's place -----------------------------------------------------

# Sets the version of the source package that the headers come from.
find_headers_version() {
	HEADERS_VERSION=$(installed_version "linux-headers-$KVER" source:Version)
	[[ -n $HEADERS_VERSION ]] && return
	! grep -qs '^ID=ubuntu' /etc/os-release ||
		die "the headers of $KVER have no Rust metadata: $(install_command "linux-lib-rust-$KVER")$OTHER_CHOICE"
	die "$KDIR has no Rust metadata (rust/libkernel.rmeta), and it is not Debian's package" \
		"linux-headers-$KVER, for which it can be made: $(install_command "linux-headers-$KVER")$OTHER_CHOICE"
}

overlay_name() {
	echo "${KVER}_${HEADERS_VERSION}_rustc-$(config_value RUSTC_VERSION_TEXT | awk '{ print $2 }')_r$RECIPE"
}

own_cache() {
	if [[ -n ${TOA_METADATA_CACHE:-} ]]; then
		realpath -m "$TOA_METADATA_CACHE"
	elif [[ $(id -u) == 0 ]]; then
		echo "$TOA_CACHE/metadata"
	else
		echo "${XDG_CACHE_HOME:-${HOME:-$(home)}/.cache}/toa/metadata"
	fi
}

# The user's directory without HOME.
home() {
	getent passwd "$(id -u)" | cut -d : -f 6
}

# The first overlay that is complete and made for these headers.
made_overlay() {
	local dir dirs=("$CACHE/$NAME")
	[[ -n ${TOA_METADATA_CACHE:-} ]] || dirs+=("$TOA_CACHE/metadata/$NAME")
	for dir in "${dirs[@]}"; do
		complete_overlay "$dir" && echo "$dir" && return
	done
	return 1
}

# The stamp is written last. Overlays that earlier versions made have no mark.
complete_overlay() {
	local file
	[[ -e $1/toa-metadata && $(<"$1/toa-metadata") == "$(stamp)" ]] || return 1
	for file in Makefile rust/lib{core,kernel}.rmeta; do
		[[ -s $1/$file ]] || return 1
	done
	[[ ! -e $1/$MARK ]] || complete "$1"
}

stamp() {
	printf '%s\n' "headers $KDIR $HEADERS_VERSION" "recipe $RECIPE" \
		"$(config_value RUSTC_VERSION_TEXT)" "$(config_value CC_VERSION_TEXT)"
}

# --- checks before the long work ---------------------------------------------

check_source() {
	local series package version
	series=$(grep -oE '^[0-9]+\.[0-9]+' <<<"$KVER")
	package=linux-source-$series
	TARBALL=/usr/src/$package.tar.xz
	version=$(installed_version "$package" source:Version)
	[[ $version == "$HEADERS_VERSION" && -s $TARBALL ]] && return
	if [[ -z $version ]]; then
		version="$package is missing"
	elif [[ $version == "$HEADERS_VERSION" ]]; then
		die "$TARBALL is missing, though $package is installed: $(install_command --reinstall "$package")$OTHER_CHOICE"
	else
		version="$package is $version and the headers of $KVER are $HEADERS_VERSION"
	fi
	offered_versions "$package" | grep -qxF -- "$HEADERS_VERSION" ||
		version+=" (apt does not offer that version now: run apt update; if it is gone, take the newest kernel, headers and source)"
	lacks "$version" "$package=$HEADERS_VERSION"
}

check_cache() {
	[[ $CACHE != *[[:space:]:]* ]] ||
		die "the kernel's build system cannot work in a path with blanks or colons: TOA_METADATA_CACHE=/some/directory make$OTHER_CHOICE"
	if ! mkdir -p "$CACHE" 2>/dev/null || [[ ! -w $CACHE ]]; then
		die "cannot write to $CACHE: TOA_METADATA_CACHE=/some/directory make$OTHER_CHOICE"
	fi
}

check_space() {
	local free
	free=$(df -Pm "$CACHE" | awk 'NR == 2 { print $4 }')
	((free >= NEEDED_MB)) ||
		die "$CACHE has $free MB free, making the metadata takes $NEEDED_MB MB: make room there, or TOA_METADATA_CACHE=/some/directory make$OTHER_CHOICE"
}

# --- making it ---------------------------------------------------------------

# Unpacks the files that configuring and the rust directory read. Three quarters are
# left out: sources of drivers and file systems, documentation, device trees.
unpack() {
	local top
	top=$(basename "$TARBALL" .tar.xz)
	mkdir "$WORK/src"
	tar -xJf "$TARBALL" -C "$WORK/src" --strip-components=1 --no-same-owner --anchored \
		--exclude="$top/drivers/*.c" --exclude="$top/drivers/gpu/drm/amd/*.h" \
		--exclude="$top/fs/*.c" --exclude="$top/net/*.c" --exclude="$top/sound/*.[ch]" \
		--exclude="$top/tools/perf" --exclude="$top/tools/testing" \
		--exclude="$top/arch/*/boot/dts" --exclude="$top/Documentation/*/*" ||
		die "$TARBALL could not be unpacked: $(install_command --reinstall "$top"); nothing was kept"
	# Optimizing the libraries of the procedural macros takes longer than running them.
	sed -i 's/ --crate-type rlib -O / --crate-type rlib /' "$WORK/src/rust/Makefile"
}

# Runs the kernel's make without the variables of the caller's. The headers' objtool
# is used, and tools for BTF are not needed: their targets count as made (-o).
# Paths in the metadata are relative: a module does not depend on this directory.
kernel_make() {
	env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME="$WORK" TMPDIR="$WORK/tmp" LC_ALL=C \
		make -C "$WORK/out" -f "$WORK/src/Makefile" --no-print-directory \
		-j "${TOA_METADATA_JOBS:-$(nproc)}" -o tools/objtool -o tools/bpf/resolve_btfids \
		KERNELRELEASE="$KVER" CC="$CC" HOSTCC="$CC" RUSTC="$RUSTC" HOSTRUSTC="$RUSTC" BINDGEN="$BINDGEN" \
		KRUSTFLAGS="--remap-path-prefix=$WORK/src/= --remap-path-prefix=$WORK/out/=" \
		"$@" >"$WORK/log" 2>&1
}

regenerate() {
	mkdir -p "$WORK/out/tools/objtool" "$WORK/tmp"
	cp "$KCONFIG" "$WORK/out/.config"
	[[ ! -e $KDIR/tools/objtool/objtool ]] || cp "$KDIR/tools/objtool/objtool" "$WORK/out/tools/objtool/"
	kernel_make olddefconfig || make_failed olddefconfig
	same_configuration
	kernel_make prepare || make_failed prepare
}

make_failed() {
	tail -n 25 "$WORK/log" >&2
	die "the kernel's own \`make $1\` failed, its last lines are above; nothing was kept"
}

# Links to all of the headers' files, except for rust/ and target.json, which are
# new. The Makefile is a copy of the headers', with the overlay as its output
# directory.
assemble() {
	local path
	mkdir -p "$WORK/overlay/scripts"
	for path in "$KDIR"/* "$KDIR"/.[!.]*; do
		case ${path##*/} in
		Makefile | scripts | rust) ;;
		*) ln -s "$(realpath "$path")" "$WORK/overlay/" ;;
		esac
	done
	for path in "$KDIR"/scripts/*; do
		ln -s "$(realpath "$path")" "$WORK/overlay/scripts/"
	done
	[[ ! -e $WORK/out/scripts/target.json ]] || cp "$WORK/out/scripts/target.json" "$WORK/overlay/scripts/"
	grep -q '^KBUILD_OUTPUT *=' "$KDIR/Makefile" ||
		die "the Makefile of $KDIR differs from those of Debian's headers: report it with the version $HEADERS_VERSION"
	# shellcheck disable=SC2016 # for make
	sed 's|^KBUILD_OUTPUT *=.*|KBUILD_OUTPUT := $(patsubst %/,%,$(dir $(abspath $(lastword $(MAKEFILE_LIST)))))|' \
		"$KDIR/Makefile" >"$WORK/overlay/Makefile"
	take_crates
}

# Keeps the files of rust/ that a module reads: no objects, and no rlib, which only
# the procedural macros are linked from.
take_crates() {
	mv "$WORK/out/rust" "$WORK/overlay/rust"
	find "$WORK/overlay/rust" \( -name '*.o' -o -name '.*.cmd' -o -name '*.rlib' \) -delete
}

# --- verifying it ------------------------------------------------------------

# Compares the settings, without the tools' versions, which do not affect the crates.
# A module is built with the headers' .config and rustc_cfg.
same_configuration() {
	local differing
	differing=$(diff <(settings "$KCONFIG") <(settings "$WORK/out/.config") | sed -n 's/^[<>] /  /p' || true)
	[[ -z $differing ]] && return
	info "$differing"
	die "the settings above differ between the kernel and what $CC, $RUSTC and the tools here make of its .config:" \
		"$(install_command "$(grep -oE 'gcc(-[0-9]+)?$' <<<"$CC")" pahole binutils)"
}

settings() {
	grep '^CONFIG_' "$1" | grep -vE '^CONFIG_((CC|BINDGEN)_VERSION_TEXT|(GCC|AS|LD|PAHOLE|RUSTC_LLVM)_VERSION)=' | sort
}

same_layout() {
	local header
	for header in asm-offsets.h rq-offsets.h bounds.h; do
		[[ -e $KDIR/include/generated/$header ]] || continue
		cmp -s "$KDIR/include/generated/$header" "$WORK/out/include/generated/$header" ||
			die "$TARBALL and the headers of $KVER differ in $header: $(install_command --reinstall \
				"linux-headers-$KVER" "$(basename "$TARBALL" .tar.xz)")"
	done
}

regenerated_symbols() {
	sed -n 's/^EXPORT_SYMBOL_RUST_GPL(\(.*\));$/\1/p' "$WORK"/out/rust/exports_*_generated.h |
		grep -E '^(_R|rust_helper_)' | sort -u
}

shipped_symbols() {
	awk -F '\t' '$2 ~ /^(_R|rust_helper_)/ && $3 == "vmlinux" { print $2 }' "$KDIR/Module.symvers" | sort -u
}

same_symbols() {
	local crates all differing
	crates=$(regenerated_symbols | grep -c '^_R' || true)
	all=$(regenerated_symbols | wc -l)
	differing=$(comm -3 <(regenerated_symbols) <(shipped_symbols) | wc -l)
	info "metadata: $all symbols ($crates of the Rust crates, the rest of their helpers)," \
		"$differing differ from the kernel's Module.symvers"
	[[ $differing == 0 ]] && ((all > FEWEST_SYMBOLS)) && return
	comm -3 --output-delimiter='only in Module.symvers: ' <(regenerated_symbols) <(shipped_symbols) | head -n 6 >&2
	die "the regenerated crates are not the kernel's ($all symbols, $differing differ): nothing was kept"
}

# Writes a module that uses code and macros of the kernel crate.
trial_module() {
	mkdir "$WORK/trial"
	echo 'obj-m := toa_trial.o' >"$WORK/trial/Kbuild"
	cat >"$WORK/trial/toa_trial.rs" <<-'RUST'
		// SPDX-License-Identifier: GPL-2.0
		//! Never loaded: shows that a module can be built.
		use kernel::prelude::*;

		module! {
		    type: Trial,
		    name: "toa_trial",
		    authors: ["toa"],
		    description: "trial",
		    license: "GPL",
		}

		struct Trial;

		impl kernel::Module for Trial {
		    fn init(_module: &'static ThisModule) -> Result<Self> {
		        let mut numbers = KVec::new();
		        numbers.push(7, GFP_KERNEL)?;
		        pr_info!("{}\n", numbers.len());
		        Ok(Trial)
		    }
		}
	RUST
}

builds_a_module() {
	local vermagic
	trial_module
	env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME="$WORK" TMPDIR="$WORK/tmp" LC_ALL=C \
		make -C "$WORK/overlay" M="$WORK/trial" RUSTC="$RUSTC" BINDGEN="$BINDGEN" >"$WORK/log" 2>&1 ||
		make_failed "M=$WORK/trial"
	vermagic=$(objcopy -O binary -j .modinfo "$WORK/trial/toa_trial.ko" /dev/stdout |
		tr '\0' '\n' | sed -n 's/^vermagic=//p')
	[[ ${vermagic%% *} == "$KVER" ]] ||
		die "a module built with it has the vermagic '$vermagic', not that of $KVER: nothing was kept"
	info "metadata: a module built with it has the vermagic $vermagic"
}

# The headers package, and the ones of the same version that it depends on, such as
# -common.
headers_packages() {
	dpkg-query -W -f '${Package}, ${Depends}' "linux-headers-$KVER" |
		tr ',' '\n' | grep -oE '^ *linux-(headers|kbuild)-[^ ]+' | tr -d ' '
}

# Checks the headers' files. Container images leave out documentation on purpose.
headers_untouched() {
	local packages changed
	mapfile -t packages < <(headers_packages)
	changed=$(dpkg --verify "${packages[@]}" | grep -v ' /usr/share/' || true)
	[[ -z $changed ]] && info "metadata: dpkg --verify ${packages[*]}: clean" && return
	info "$changed"
	die "the files above of the headers packages were changed: $(install_command --reinstall "${packages[@]}")"
}

# --- all of it ---------------------------------------------------------------

make_overlay() {
	local start=$EPOCHREALTIME beat
	# The process that left these was killed: it held the lock.
	rm -rf "$CACHE"/.new-*
	check_space
	info "metadata: Debian ships none for $KVER: making it from $TARBALL with $RUSTC, one to three minutes"
	umask 022
	WORK=$CACHE/.new-$NAME
	trap 'rm -rf "$WORK"' EXIT
	trap 'exit 1' HUP INT TERM
	mkdir "$WORK"
	: >"$WORK/log"
	exec {beat}> >(exec 9>&-; heartbeat metadata "$WORK/log")
	unpack
	regenerate
	same_layout
	same_symbols
	assemble
	builds_a_module
	headers_untouched
	stamp >"$WORK/overlay/toa-metadata"
	mark "$WORK/overlay"
	rm -rf "${CACHE:?}/$NAME"
	mv -T "$WORK/overlay" "$CACHE/$NAME"
	exec {beat}>&-
	rm -rf "$WORK"
	info "metadata: made $CACHE/$NAME, $(du -sm "$CACHE/$NAME" | cut -f 1) MB, in $(seconds_since "$start") s"
}

# Makes the overlay, one at a time: a second make waits, and uses the first's.
make_overlay_once() {
	exec 9>"$CACHE/.lock"
	flock -n 9 || { info "metadata: waiting for another make that uses $CACHE" && flock 9; }
	made_overlay >/dev/null || make_overlay
	exec 9>&-
}

builddir() {
	if has_metadata; then
		stop_if_lacking
		echo "$KDIR"
		return
	fi
	find_headers_version
	CACHE=$(own_cache)
	NAME=$(overlay_name)
	if ! made_overlay >/dev/null; then
		check_exact_bindgen
		check_rust_src
		check_build_tools
		check_source
		stop_if_lacking
		check_cache
		make_overlay_once
	fi
	stop_if_lacking
	made_overlay
}

main() {
	parse_arguments "$@"
	find_headers
	check_rust_in_kernel
	check_rustc
	check_bindgen
	check_cc
	if [[ $PRINT == vars ]]; then
		stop_if_lacking
		make_vars RUSTC="$RUSTC" BINDGEN="$BINDGEN" \
			CLIPPY_DRIVER="$(tool_beside clippy-driver)" RUSTFMT="$(tool_beside rustfmt)"
	else
		builddir
	fi
}

main "$@"
