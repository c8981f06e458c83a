#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Publishes the packages of deb.sh as a signed repository for apt: a directory that any
# web server can serve.
#
#   repo.sh make [PACKAGES [DIRECTORY]]
#                       add the packages of each PACKAGES/SUITE (default: build/deb) to
#                       the repository in DIRECTORY (default: build/repo); print its
#                       suites and its key
#
# DIRECTORY gets
#   dists/SUITE/        the indexes, signed in InRelease and in Release.gpg
#   pool/SUITE/         the packages and their sources
#   toa-archive-keyring.asc   the public key
#
# Versions of earlier runs stay, and apt can install them. To withdraw a version, remove
# its files from pool/ and run this again. Release has no Valid-Until: a repository that
# gets nothing new does not expire. A suite without a change keeps its files.
#
# SIGN_KEY=          the OpenPGP key: its fingerprint, id or name in gpg's keyring, or a
#                    file with the secret key
# KBUILD_SIGN_PIN    the key's passphrase, in the environment
# SOURCE_DATE_EPOCH  Release's date in seconds (default: now)

. "$(dirname "$0")/lib.sh"
shopt -s inherit_errexit

readonly KEYRING=toa-archive-keyring.asc

# A web server must be able to read the files.
umask 022

# --- the key ---------------------------------------------------------------------

# gpg's options, and the key's fingerprint.
GPG=(--batch --no-tty --yes --quiet)
FINGERPRINT=

# find_key: sets FINGERPRINT. A key in a file enters a keyring that ends with this process.
find_key() {
	local keys
	[[ -n ${SIGN_KEY:-} ]] ||
		die "SIGN_KEY= is not set, and apt refuses a repository without a signature: set it to the fingerprint of an OpenPGP key in gpg's keyring, or to a file with the secret key"
	need_host gpg=gpg gpg-agent=gpg-agent apt-ftparchive=apt-utils
	[[ -z ${KBUILD_SIGN_PIN:-} ]] || GPG+=(--pinentry-mode loopback)
	if [[ -f $SIGN_KEY ]]; then
		export GNUPGHOME=$WORK/gnupg
		mkdir -m 700 "$GNUPGHOME"
		# Nothing in this keyring could ask for a passphrase.
		[[ -n ${KBUILD_SIGN_PIN:-} ]] || GPG+=(--pinentry-mode error)
		gpg "${GPG[@]}" --import "$SIGN_KEY" 2>"$WORK/log" ||
			die "SIGN_KEY=$SIGN_KEY is a file without an OpenPGP key: write it by gpg --export-secret-keys"
		SIGN_KEY=
	fi
	keys=$(gpg "${GPG[@]}" --with-colons --list-secret-keys ${SIGN_KEY:+"$SIGN_KEY"} 2>"$WORK/log" | fingerprints sec) || true
	[[ -n $keys ]] || die "gpg has no secret key SIGN_KEY=$SIGN_KEY: list its keys by gpg --list-secret-keys"
	[[ $keys != *$'\n'* ]] || die "SIGN_KEY=$SIGN_KEY names more than one key: set it to one of ${keys//$'\n'/ }"
	FINGERPRINT=$keys
}

# fingerprints sec|pub: prints the fingerprints of the primary keys in gpg's list.
fingerprints() {
	awk -F: -v kind="$1" '$1 == kind { primary = 1 } $1 == "fpr" && primary { print $10; primary = 0 }'
}

# sign FILE HOW SIGNED: signs FILE by gpg's option HOW.
sign() {
	gpg "${GPG[@]}" --passphrase-fd 3 --digest-algo SHA512 --local-user "$FINGERPRINT" \
		--armor --output "$3" "$2" "$1" 3<<<"${KBUILD_SIGN_PIN:-}" 2>"$WORK/log" && return
	info "$(<"$WORK/log")"
	die "gpg cannot sign with the key $FINGERPRINT: set KBUILD_SIGN_PIN to its passphrase, and see gpg's message above"
}

# is_signed FILE: checks a signature inside FILE.
is_signed() {
	gpg "${GPG[@]}" --export "$FINGERPRINT" >"$WORK/public" && gpgv --quiet --keyring "$WORK/public" "$1" 2>"$WORK/log"
}

# keep_key: writes the public key. Servers trust the repository's first key alone.
keep_key() {
	local old
	if [[ -e $KEYRING ]]; then
		old=$(gpg "${GPG[@]}" --with-colons --show-keys "$KEYRING" 2>"$WORK/log" | fingerprints pub) || true
		[[ $old == "$FINGERPRINT" ]] ||
			die "$PWD is signed with ${old:-no key}, and its servers refuse $FINGERPRINT: sign with the former, or remove $PWD/$KEYRING and give the new one to each server"
	fi
	gpg "${GPG[@]}" --armor --export "$FINGERPRINT" >"$KEYRING"
}

# --- the pool --------------------------------------------------------------------

# The files to publish in each suite, one a line.
declare -A FILES

# files_of DIRECTORY: prints the packages and sources that deb.sh made there.
files_of() {
	local changes source dsc
	for changes in "$1"/*.changes; do
		[[ -e $changes ]] || continue
		source=${changes##*/}
		source=${source%%_*}
		[[ -e $1/$source.key ]] || die "make deb has not completed $source in $1: run make deb again"
	done
	find "$1" -maxdepth 1 \( -name '*.deb' ! -name '*-dbgsym_*' -o -name '*.dsc' \) | sort
	for dsc in "$1"/*.dsc; do
		[[ -e $dsc ]] || continue
		sed -n '/^Checksums-Sha256:/,/^[^ C]/s|^ [0-9a-f]* [0-9]* |'"$1"'/|p' "$dsc"
	done
}

# check_pool SUITE: a published file keeps its bytes. A server that has its version would never
# get others, and caches have the old ones.
check_pool() {
	local suite=$1 file published
	while read -r file; do
		published=pool/$suite/${file##*/}
		[[ ! -e $published ]] || cmp -s "$file" "$published" ||
			die "$PWD/$published is published, and make deb has made other bytes of the same version: raise the version, or remove this file if no server has it"
	done <<<"${FILES[$suite]}"
}

# fill_pool SUITE: copies the files that the pool lacks.
fill_pool() {
	local suite=$1 file published
	mkdir -p "pool/$suite"
	while read -r file; do
		published=pool/$suite/${file##*/}
		[[ ! -e $published ]] || continue
		install -m 644 -p "$file" "$published.new"
		mv "$published.new" "$published"
		info "added $published"
	done <<<"${FILES[$suite]}"
}

# --- the indexes -----------------------------------------------------------------

ftparchive() {
	apt-ftparchive -qq --no-md5 --no-sha1 "$@"
}

# index SUITE: writes and signs the indexes of the suite's pool, and puts them in place.
index() {
	local suite=$1 new=dists/.$1.new part
	local packages=main/binary-amd64/Packages sources=main/source/Sources
	rm -rf "$new"
	mkdir -p "$new/${packages%/*}" "$new/${sources%/*}"
	# Packages for all architectures are in the index of the only one.
	ftparchive packages "pool/$suite" >"$new/$packages"
	ftparchive sources "pool/$suite" >"$new/$sources"
	if cmp -s "$new/$packages" "dists/$suite/$packages" && cmp -s "$new/$sources" "dists/$suite/$sources" &&
		is_signed "dists/$suite/InRelease"; then
		rm -rf "$new"
		return
	fi
	for part in "$packages" "$sources"; do
		gzip -9nk "$new/$part"
		by_hash "dists/$suite" "$new" "$part" "$part.gz"
	done
	ftparchive \
		-o APT::FTPArchive::Release::Origin=toa -o APT::FTPArchive::Release::Label=toa \
		-o "APT::FTPArchive::Release::Suite=$suite" -o "APT::FTPArchive::Release::Codename=$suite" \
		-o APT::FTPArchive::Release::Architectures=amd64 -o APT::FTPArchive::Release::Components=main \
		-o APT::FTPArchive::Release::Acquire-By-Hash=yes \
		release "$new" >"$WORK/Release"
	[[ -z ${SOURCE_DATE_EPOCH:-} ]] ||
		sed -i "s/^Date: .*/Date: $(LC_ALL=C date -u -R -d "@$SOURCE_DATE_EPOCH")/" "$WORK/Release"
	install -m 644 "$WORK/Release" "$new/Release"
	sign "$new/Release" --clear-sign "$new/InRelease"
	sign "$new/Release" --detach-sign "$new/Release.gpg"
	rm -rf "dists/.$suite.old"
	[[ ! -e dists/$suite ]] || mv "dists/$suite" "dists/.$suite.old"
	mv "$new" "dists/$suite"
	rm -rf "dists/.$suite.old"
}

# by_hash OLD NEW INDEX…: adds the indexes by the names of their checksums, and keeps earlier
# ones. A server that reads InRelease while the repository is copied finds its indexes.
by_hash() {
	local old=$1 new=$2 part dir
	shift 2
	for part; do
		dir=${part%/*}/by-hash/SHA256
		mkdir -p "$new/$dir"
		[[ ! -d $old/$dir ]] || cp -pn "$old/$dir"/* "$new/$dir/"
		cp "$new/$part" "$new/$dir/$(sha256sum "$new/$part" | cut -d ' ' -f 1)"
	done
}

# --- all of it -------------------------------------------------------------------

publish() {
	local packages=$1 directory=$2 suite suites=()
	packages=$(realpath "$packages" 2>/dev/null) || packages=$1
	WORK=$(mktemp -d)
	trap clean_up EXIT
	find_key
	for suite in "$packages"/*/; do
		[[ -z $(find "$suite" -maxdepth 1 -name '*.deb' -print -quit 2>/dev/null) ]] || suites+=("$(basename "$suite")")
	done
	[[ ${#suites[@]} -gt 0 ]] || die "$packages has no packages: run make deb, and make deb KERNEL=sid for those of sid"
	mkdir -p "$directory"
	cd "$directory"
	for suite in "${suites[@]}"; do
		FILES[$suite]=$(files_of "$packages/$suite")
		check_pool "$suite"
	done
	keep_key
	for suite in "${suites[@]}"; do
		fill_pool "$suite"
		index "$suite"
	done
	echo "$PWD has ${suites[*]}, signed with $FINGERPRINT"
}

clean_up() {
	[[ ! -d $WORK/gnupg ]] || gpgconf --homedir "$WORK/gnupg" --kill all || true
	rm -rf "$WORK"
}

main() {
	case ${1:-} in
	make) publish "${2:-$REPO/build/deb}" "${3:-$REPO/build/repo}" ;;
	-h | --help | help) usage ;;
	*) usage 1 >&2 ;;
	esac
}

main "$@"
