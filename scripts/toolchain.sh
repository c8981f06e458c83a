# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Sourced by metadata.sh and standin.sh, after lib.sh: finds the kernel's headers
# and the compilers, and reports in one message which are missing and which
# command installs them.
#
# Finding sets KDIR, KCONFIG, RUSTC and BINDGEN.

# --- the arguments -----------------------------------------------------------

KVER=
KDIR=
PRINT=directory

# Sets KVER, KDIR and PRINT, which is directory or vars.
# shellcheck disable=SC2034 # the scripts read PRINT
parse_arguments() {
	while (($#)); do
		case $1 in
		--kver) KVER=${2:?--kver takes a release} && shift ;;
		--kdir) KDIR=${2:?--kdir takes a directory} && shift ;;
		--print-make-vars) PRINT=vars ;;
		-h | --help) usage ;;
		*) usage 1 >&2 ;;
		esac
		shift
	done
}

# --- the headers -------------------------------------------------------------

find_headers() {
	local release
	if [[ -z $KDIR ]]; then
		KVER=${KVER:-$(uname -r)}
		KDIR=/lib/modules/$KVER/build
		[[ -e $KDIR || ! -e /usr/src/linux-headers-$KVER ]] || KDIR=/usr/src/linux-headers-$KVER
	fi
	release=$(headers_release)
	[[ -n $release && -e $KDIR/Makefile ]] ||
		die "the headers of ${KVER:-the kernel} are missing ($KDIR): $(install_command "linux-headers-${KVER:-RELEASE}")"
	KVER=${KVER:-$release}
	[[ $release == "$KVER" ]] ||
		die "$KDIR has the headers of $release, not of $KVER: $(install_command "linux-headers-$KVER")"
	KDIR=$(realpath "$KDIR")
	KCONFIG=$KDIR/.config
	[[ $KDIR != *[[:space:]:]* ]] || die "the kernel's build system cannot work in a path with blanks or colons: $KDIR"
	[[ -r $KCONFIG ]] || die "$KDIR has no .config: $(install_command "linux-headers-$KVER")"
}

headers_release() {
	sed -n 's/^#define UTS_RELEASE "\(.*\)"$/\1/p' "$KDIR/include/generated/utsrelease.h" 2>/dev/null || true
}

# --- what is missing ---------------------------------------------------------

# What the message names as the other `kernel` crate.
OTHER_CHOICE=
LACKING=()
LACKING_PACKAGES=()

# lacks REASON PACKAGE…: adds to the message of stop_if_lacking.
lacks() {
	LACKING+=("$1")
	shift
	LACKING_PACKAGES+=("$@")
}

stop_if_lacking() {
	local reasons
	[[ ${#LACKING[@]} == 0 ]] && return
	reasons=$(printf '; %s' "${LACKING[@]}")
	die "${reasons#; }: $(install_command "${LACKING_PACKAGES[@]}")$OTHER_CHOICE"
}

install_command() {
	if command -v apt >/dev/null; then
		echo "apt install $(printf '%s\n' "$@" | awk '!seen[$0]++' | paste -sd ' ')"
	else
		echo "install what Debian calls $(printf '%s\n' "$@" | awk '!seen[$0]++' | paste -sd ' ')"
	fi
}

# --- packages ----------------------------------------------------------------

# installed_version PACKAGE [FIELD]: prints nothing if the package's files are missing.
# FIELD can be source:Version, the version of the source that the package was built
# from. While DKMS builds, packages may be unpacked and not yet configured.
installed_version() {
	local status version
	read -r status version < <(dpkg-query -W -f "\${db:Status-Status} \${${2:-Version}}\n" "$1" 2>/dev/null) || return 0
	case $status in
	installed | unpacked | half-configured | triggers-awaited | triggers-pending) echo "$version" ;;
	esac
}

# Versions that apt offers, newest first.
offered_versions() {
	apt-cache madison "$1" 2>/dev/null | awk -F ' *[|] *' '{ print $2 }' | uniq
}

candidate_version() {
	apt-cache policy "$1" 2>/dev/null | awk '$1 == "Candidate:" { print $2 }'
}

# package_of NAME UPSTREAM: prints NAME=VERSION if apt offers a package of that
# upstream version, else NAME.
package_of() {
	local version
	version=$(offered_versions "$1" | grep -m 1 -E "^${2//./\\.}[-+~]") || { echo "$1" && return; }
	echo "$1=$version"
}

# --- the compilers -----------------------------------------------------------

config_value() {
	sed -n "s/^CONFIG_$1=//p" "$KCONFIG" | tr -d '"'
}

# Prints the version as .config has it, without the characters make cannot hold.
version_text() {
	(cd / && "$1" --version) 2>/dev/null | head -n 1 | tr -d '#"'
}

called() {
	local text
	text=$(version_text "$1") || text=
	echo "${text:-not working}"
}

# first_of_version TEXT COMMAND…: prints the first command with that version. The
# distribution's come before those in the caller's PATH, which may be rustup's.
first_of_version() {
	local expected=$1 command
	shift
	for command; do
		command=$(command -v "$command") || continue
		[[ $(version_text "$command") == "$expected" ]] || continue
		echo "$command"
		return
	done
	return 1
}

check_rustc() {
	local expected minor
	expected=$(config_value RUSTC_VERSION_TEXT)
	minor=$(grep -oE '[0-9]+\.[0-9]+' <<<"$expected" | head -n 1)
	RUSTC=$(first_of_version "$expected" ${RUSTC:+"$RUSTC"} /usr/bin/rustc "/usr/bin/rustc-$minor" \
		"/usr/lib/rust-$minor/bin/rustc" rustc) && return
	RUSTC=
	lack_rustc "$expected" "$minor"
}

lack_rustc() {
	local expected=$1 minor=$2 here reason packages version
	here=$(command -v rustc || true)
	reason="the kernel was built by $expected, "
	if [[ -z $here ]]; then
		reason+="which is missing"
	else
		reason+="and $here is $(called "$here")"
	fi
	[[ -z $(installed_version rustc-web) ]] ||
		reason+=" (the package rustc-web provides rustc, but not the kernel's)"
	version=$(awk '{ print $2 }' <<<"$expected")
	read -ra packages < <(rust_packages "$version" "$minor")
	[[ ${packages[0]} == *=* ]] || ! command -v apt-cache >/dev/null ||
		reason+=" (apt offers no rustc $version: run apt update, or add the suite that the kernel comes from)"
	lacks "$reason" "${packages[@]}"
}

# The packages to install for rustc. apt does not downgrade the packages that rustc
# and its installed companions depend on, unless they are named as well.
rust_packages() {
	local upstream=$1 minor=$2 rustc version package packages=(rust-src)
	rustc=$(package_of rustc "$upstream")
	version=${rustc#rustc=}
	if [[ $version == rustc ]]; then
		echo rustc rust-src
		return
	fi
	[[ $(candidate_version rustc) == "$version" ]] || packages+=(libstd-rust-dev "libstd-rust-$minor")
	for package in rustfmt rust-clippy cargo; do
		case $(installed_version "$package") in
		'' | "$version") ;;
		*) packages+=("$package") ;;
		esac
	done
	echo "$rustc ${packages[*]/%/=$version}"
}

# Checks for the library's source of the same compiler: `core` is built from it.
check_rust_src() {
	local source
	[[ -n $RUSTC ]] || return 0
	source=$("$RUSTC" --print sysroot)/lib/rustlib/src/rust/library/core/src/lib.rs
	[[ -e $source ]] ||
		lacks "the source of Rust's core library is missing ($source)" \
			"$(package_of rust-src "$("$RUSTC" --version | awk '{ print $2 }')")"
}

# Finds bindgen. Any version reads the module's header; the metadata needs the one
# that built the kernel.
check_bindgen() {
	local expected number
	expected=$(config_value BINDGEN_VERSION_TEXT)
	number=${expected#bindgen }
	BINDGEN=$(first_of_version "$expected" ${BINDGEN:+"$BINDGEN"} /usr/bin/bindgen "/usr/bin/bindgen-${number%.*}" bindgen) ||
		BINDGEN=$(command -v bindgen) || { lacks "bindgen is missing" "$(package_of bindgen "$number")" && return; }
	check_libclang
}

check_exact_bindgen() {
	local expected here
	expected=$(config_value BINDGEN_VERSION_TEXT)
	[[ -n $BINDGEN && -n $expected ]] || return 0
	here=$(called "$BINDGEN")
	[[ $here == "$expected" ]] ||
		lacks "the kernel was built with $expected, and $BINDGEN is $here" \
			"$(package_of bindgen "${expected#bindgen }")"
}

check_libclang() {
	local header status=0
	header=$(mktemp --suffix=.h)
	echo 'struct toa { int field; };' >"$header"
	"$BINDGEN" "$header" >/dev/null 2>&1 || status=$?
	rm -f "$header"
	[[ $status == 0 ]] || lacks "$BINDGEN does not find libclang" libclang-dev
}

# Finds the C compiler by the name that the kernel was built with, or by that name and
# its major version: another one has other options and plugins. Debian's headers name
# it in .kernelvariables too.
check_cc() {
	local name number major reason
	[[ $(config_value CC_IS_CLANG) != y ]] || { check_clang && return; }
	[[ $(config_value CC_IS_GCC) == y ]] || return 0
	name=$(config_value CC_VERSION_TEXT | awk '{ print $1 }')
	number=$(config_value GCC_VERSION)
	major=$((${number:-0} / 10000))
	for CC in "$name" "${name%-"$major"}-$major"; do
		command -v "$CC" >/dev/null || continue
		((major == 0 || $(major_of "$CC") == major)) && return
		reason=${reason:-"and $(command -v "$CC") is $(called "$CC")"}
	done
	CC=$name
	lacks "the kernel was built by $(config_value CC_VERSION_TEXT), ${reason:-which is missing}" "gcc-$major"
}

# Sets LLVM, by which the kernel's makefiles choose clang and its binary tools: a suffix of their
# names, or 1 for names without one.
check_clang() {
	local major
	major=$(($(config_value CLANG_VERSION) / 10000))
	CC=clang LLVM=1
	[[ $(major_of clang) == "$major" ]] || CC=clang-$major LLVM=-$major
	command -v "$CC" >/dev/null ||
		lacks "the kernel was built by $(config_value CC_VERSION_TEXT), and $CC is missing" "clang-$major"
	command -v "ld.lld${LLVM#1}" >/dev/null || lacks "ld.lld${LLVM#1} is missing" "lld-$major"
	command -v "llvm-objcopy${LLVM#1}" >/dev/null || lacks "llvm-objcopy${LLVM#1} is missing" "llvm-$major"
}

major_of() {
	local version
	version=$("$1" -dumpversion 2>/dev/null) || version=
	version=${version%%.*}
	echo "${version:-0}"
}

# has_header NAME: whether the C compiler finds it.
has_header() {
	command -v "$CC" >/dev/null || return 0
	echo "#include <$1>" | "$CC" -E -o /dev/null - 2>/dev/null
}

# Checks for the tools that building a kernel's rust directory takes beside the
# compilers.
check_build_tools() {
	local pair
	for pair in make=make bc=bc bison=bison flex=flex xz=xz-utils pahole=pahole; do
		command -v "${pair%=*}" >/dev/null || lacks "${pair%=*} is missing" "${pair#*=}"
	done
	for pair in stdlib.h=libc6-dev openssl/opensslv.h=libssl-dev; do
		has_header "${pair%=*}" || lacks "<${pair%=*}> is missing" "${pair#*=}"
	done
}

# tool_beside NAME: prints the companion of RUSTC, such as clippy-driver.
tool_beside() {
	local dir name=$1
	dir=$(dirname "$RUSTC")
	command -v "$dir/$name${RUSTC##*/rustc}" || command -v "$dir/$name" || command -v "$name" || true
}

# make_vars NAME=VALUE…: prints the variables that have a value, and the kernel's C
# compiler, on one line for make.
make_vars() {
	local pair vars=()
	for pair; do
		[[ -z ${pair#*=} ]] || vars+=("$pair")
	done
	if [[ -n ${LLVM:-} ]]; then
		vars+=("LLVM=$LLVM")
	elif [[ ! -e $KDIR/.kernelvariables && -n ${CC:-} ]]; then
		vars+=("CC=$CC")
	fi
	echo "${vars[*]}"
}
