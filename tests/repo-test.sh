#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Publishes packages with repo.sh, and installs and upgrades from the repository in
# throwaway copies of a minimal Debian, which reach it by HTTP on their loopback device.
#
#   repo-test.sh [CASE…]
#
# KERNEL= selects the Debian release (see kernel.sh). The packages are those of
# scripts/deb.sh. The server runs the commands of doc/install.md. Run it as root. Prints
# TAP.

. "$(dirname "$0")/../scripts/lib.sh"
. "$REPO/tests/cases.sh"
. "$REPO/tests/scratch.sh"

OUT=$("$SCRIPTS/deb.sh" directory)
SUITE=${OUT##*/}
readonly ADDRESS=http://127.0.0.1:8000

# --- the publisher -----------------------------------------------------------------

# publisher [PACKAGE…]: makes a keyring with one key, and a directory with toa-dkms, its source and
# these packages to publish.
publisher() {
	local package
	export GNUPGHOME=$TMP/gnupg
	mkdir -m 700 "$GNUPGHOME"
	trap 'gpgconf --kill all' EXIT
	new_key packages@example.com
	PACKAGES=$TMP/packages
	mkdir -p "$PACKAGES/$SUITE"
	cp -p "$OUT"/toa_*.{dsc,tar.*} "$PACKAGES/$SUITE/"
	for package in toa-dkms "$@"; do
		cp -p "$OUT/$package"_*.deb "$PACKAGES/$SUITE/"
	done
	WEB=$TMP/web
}

# new_key NAME [PASSPHRASE]
new_key() {
	gpg --batch --quiet --pinentry-mode loopback --passphrase "${2:-}" --quick-generate-key "$1" ed25519 sign never
}

fingerprint() {
	gpg --batch --with-colons --list-keys "$1" | awk -F: '$1 == "fpr" { print $10; exit }'
}

# publish [KEY]: publishes PACKAGES in WEB.
publish() {
	SIGN_KEY=${1:-packages@example.com} "$SCRIPTS/repo.sh" make "$PACKAGES" "$WEB"
}

# newer PACKAGE…: makes version 9.9.9 of the packages.
newer() {
	local package tree file
	for package; do
		tree=$TMP/newer-$package
		file=$(of_suite "$PACKAGES/$SUITE" "$package")
		dpkg-deb -R "$file" "$tree"
		sed -i 's/^Version: .*/Version: 9.9.9/' "$tree/DEBIAN/control"
		dpkg-deb --root-owner-group -z0 -b "$tree" "${file%%_*}_9.9.9_${file##*_}" >/dev/null
	done
}

# of_suite DIRECTORY PACKAGE: prints the path of the package's oldest file there.
of_suite() {
	find "$1" -name "$2_*.deb" | sort -V | head -n 1
}

# change FILE: inverts a byte in its middle.
change() {
	local at=$(($(stat -c %s "$1") / 2)) byte
	byte=$(od -An -tu1 -j "$at" -N 1 "$1")
	# shellcheck disable=SC2059 # an escape
	printf "\\x$(printf %x $((byte ^ 255)))" | dd of="$1" bs=1 seek="$at" conv=notrunc status=none
}

# versions SUITE PACKAGE: lists the versions in the signed index.
versions() {
	awk -v package="$2" '$1 == "Package:" { found = $2 == package } found && $1 == "Version:" { print $2 }' \
		"$WEB/dists/$1/main/binary-amd64/Packages" | sort -V | paste -sd' '
}

# --- the server --------------------------------------------------------------------

# server: mounts a minimal Debian that apt can only extend from the repository.
server() {
	[[ ${KERNEL:-} != bookworm* ]] || skip "these packages are not for Debian 12, whose rustc is too old"
	SERVER=$TMP/server
	scratch "$SERVER" "$("$SCRIPTS/root.sh" path bare)"
	echo 'APT::Get::List-Cleanup "0";' >"$SERVER/etc/apt/apt.conf.d/99keep-lists"
}

# away FILE…, back FILE…: hide apt's sources of Debian, which a loopback device does not reach.
away() {
	mv "$SERVER/etc/apt/sources.list" "$SERVER/root/sources.list"
}

back() {
	mv "$SERVER/root/sources.list" "$SERVER/etc/apt/sources.list"
}

# with_repository COMMAND…: runs COMMAND in the server, which has WEB at ADDRESS.
with_repository() {
	# shellcheck disable=SC2016 # the inner shell expands it
	unshare --net --pid --fork --kill-child bash -c '
		ip link set lo up
		python3 -m http.server --bind 127.0.0.1 --directory "$1" 8000 >/dev/null 2>&1 &
		until { exec 3<>/dev/tcp/127.0.0.1/8000; } 2>/dev/null; do sleep 0.1; done
		. "$0"
		inside "${@:2}"' "$REPO/tests/scratch.sh" "$WEB" "$SERVER" "$@"
}

# apt STATUS ARGUMENT…: runs apt-get with the repository, and checks its exit status.
apt() {
	local expected=$1 status=0
	shift
	with_repository apt-get -q -y --no-install-recommends "$@" >apt.log 2>&1 || status=$?
	[[ $status == "$expected" ]] || { cat apt.log && die "apt-get $*: exit $status"; }
}

# complaints: prints apt's warnings and errors.
complaints() {
	grep -E '^(W|E|Err):' apt.log || true
}

version() {
	# shellcheck disable=SC2016 # dpkg-query expands it
	inside "$SERVER" dpkg-query -W -f '${Version}' "$1"
}

# commands NUMBER: prints that indented block of the section "From a repository", for root.
commands() {
	awk -v which="$1" '/^#/ { section = $0 } section != "### From a repository" { next }
		/^    / { if (!inside) number++; inside = 1; if (number == which) print substr($0, 5); next }
		{ inside = 0 }' "$REPO/doc/install.md" |
		sed "s|URL|$ADDRESS|; s/^sudo //; s/^Suites: trixie$/Suites: $SUITE/"
}

# subscribe: gives the server the key and the source, without curl.
subscribe() {
	cp "$WEB/toa-archive-keyring.asc" "$SERVER/root/toa.asc"
	commands 1 | sed 's|^curl .*|cp /root/toa.asc /etc/apt/keyrings/toa.asc|; /^apt update$/d' >"$SERVER/root/subscribe"
	inside "$SERVER" sh -e /root/subscribe >/dev/null
	away
}

# --- servers -----------------------------------------------------------------------

case_server_installs_and_upgrades_by_the_documentation() {
	local old
	publisher libtoa-peer0.1
	publish
	old=$(dpkg-deb -f "$(of_suite "$PACKAGES" libtoa-peer0.1)" Version)
	server
	inside "$SERVER" apt-get -q -y --no-install-recommends install curl >apt.log 2>&1 || die "$(<apt.log)"
	away
	commands 1 >"$SERVER/root/commands"
	with_repository sh -e /root/commands >apt.log 2>&1 || die "$(<apt.log)"
	same "complaints" "" "$(complaints)"
	apt 0 install libtoa-peer0.1
	same "version" "$old" "$(version libtoa-peer0.1)"

	# All that the documentation names: the dependencies are Debian's.
	back
	same "packages of block 2" "toa-dkms toa-tools" "$(commands 2 | sed -n 's/^apt install .* linux-headers-amd64 //p')"
	inside "$SERVER" apt-get -s --no-install-recommends install toa-dkms >apt.log 2>&1 || die "$(<apt.log)"
	has "toa-dkms" "Inst toa-dkms ($old toa:$SUITE [all])" "$(<apt.log)"
	away

	newer toa-dkms libtoa-peer0.1
	publish
	apt 0 update
	apt 0 upgrade
	same "complaints" "" "$(complaints)"
	same "version" "9.9.9" "$(version libtoa-peer0.1)"
	# The documentation's way back.
	apt 0 install --allow-downgrades "libtoa-peer0.1=$old"
	same "version" "$old" "$(version libtoa-peer0.1)"
}

case_server_fetches_the_sources() {
	local file
	publisher
	publish
	server
	subscribe
	sed -i 's/^Types: deb$/Types: deb deb-src/' "$SERVER/etc/apt/sources.list.d/toa.sources"
	apt 0 update
	apt 0 source --download-only toa-dkms
	for file in "$PACKAGES/$SUITE"/toa_*.{dsc,tar.*}; do
		cmp "$file" "$SERVER/${file##*/}"
	done
}

case_server_refuses_a_package_with_other_bytes() {
	local package
	publisher libtoa-peer0.1
	publish
	server
	subscribe
	package=$(of_suite "$WEB/pool" libtoa-peer0.1)
	change "$package"
	apt 0 update
	apt 100 install libtoa-peer0.1
	has "apt" "E: Failed to fetch $ADDRESS/${package#"$WEB/"}  Hash Sum mismatch" "$(complaints)"
	same "installed" "" "$(version libtoa-peer0.1 2>/dev/null || true)"
	# The same server installs the bytes that were signed.
	change "$package"
	apt 0 install libtoa-peer0.1
}

case_server_refuses_the_signature_of_another_key() {
	local current
	publisher libtoa-peer0.1
	publish
	server
	subscribe
	# A server that had the repository keeps its packages and the earlier indexes.
	apt 0 update
	apt 0 install libtoa-peer0.1
	current=$(version libtoa-peer0.1)
	new_key attacker@example.com
	newer libtoa-peer0.1
	rm -rf "$WEB"
	publish attacker@example.com
	apt 0 update
	has "apt" "W: An error occurred during the signature verification. The repository is not updated and the previous index files will be used. " "$(complaints)"
	apt 0 upgrade
	same "version" "$current" "$(version libtoa-peer0.1)"
	# A server that gets it for the first time has no indexes.
	rm -rf "$SERVER/var/lib/apt/lists"
	mkdir -p "$SERVER/var/lib/apt/lists/partial"
	apt 100 update
	has "apt" "E: The repository '$ADDRESS $SUITE InRelease' is not signed." "$(complaints)"
}

case_server_refuses_a_changed_index() {
	publisher
	publish
	server
	subscribe
	sed -i 's/^Origin: toa$/Origin: foe/' "$WEB/dists/$SUITE/InRelease"
	apt 100 update
	has "apt" "E: The repository '$ADDRESS $SUITE InRelease' is not signed." "$(complaints)"
}

# --- the publisher's errors --------------------------------------------------------

readonly NO_KEY="repo.sh: SIGN_KEY= is not set, and apt refuses a repository without a signature: set it to the fingerprint of an OpenPGP key in gpg's keyring, or to a file with the secret key"

case_make_repo_without_a_key_makes_nothing() {
	local status=0
	unset SIGN_KEY
	fails 1 "$NO_KEY" "$SCRIPTS/repo.sh" make "$OUT/.." "$TMP/web"
	[[ ! -e $TMP/web ]] || die "a repository was made"
	make --no-print-directory -C "$REPO" repo >make.log 2>&1 || status=$?
	same "make" "2 $NO_KEY" "$status $(head -n 1 make.log)"
}

case_key_comes_from_the_keyring_or_from_a_file() {
	local key
	publisher
	key=$(fingerprint packages@example.com)
	same "output" "$WEB has $SUITE, signed with $key" "$(publish "$key" 2>/dev/null)"
	same "public key" "$key" "$(gpg --batch --with-colons --show-keys "$WEB/toa-archive-keyring.asc" | awk -F: '$1 == "fpr" { print $10 }')"
	gpg --batch --export-secret-keys packages@example.com >secret
	new_key locked@example.com sesame
	gpg --batch --pinentry-mode loopback --passphrase sesame --armor --export-secret-keys locked@example.com >locked
	# The files have all that is needed.
	export GNUPGHOME=$TMP/empty
	mkdir -m 700 "$GNUPGHOME"
	newer toa-dkms
	same "output" "$WEB has $SUITE, signed with $key" "$(publish "$TMP/secret" 2>/dev/null)"
	has "locked" "repo.sh: gpg cannot sign with the key " "$(publish_elsewhere "$TMP/locked")"
	has "wrong passphrase" "repo.sh: gpg cannot sign with the key " "$(KBUILD_SIGN_PIN=wrong publish_elsewhere "$TMP/locked")"
	has "passphrase" "$TMP/elsewhere has $SUITE, signed with " "$(KBUILD_SIGN_PIN=sesame publish_elsewhere "$TMP/locked")"
	fails 1 "repo.sh: gpg has no secret key SIGN_KEY=nemo@example.com: list its keys by gpg --list-secret-keys" \
		publish nemo@example.com
	echo text >text
	fails 1 "repo.sh: SIGN_KEY=$TMP/text is a file without an OpenPGP key: write it by gpg --export-secret-keys" \
		publish "$TMP/text"
	gpgconf --kill all
	same "keys that stayed" "" "$(gpg --batch --list-secret-keys 2>/dev/null)"
}

# publish_elsewhere KEY: prints the messages of a publication in another directory.
publish_elsewhere() {
	WEB=$TMP/elsewhere publish "$1" 2>&1 || true
}

case_published_files_and_the_key_stay() {
	local old package before
	publisher
	publish
	old=$(versions "$SUITE" toa-dkms)
	before=$(state)
	sleep 1.1
	publish
	same "without news" "$before" "$(state)"
	newer toa-dkms
	publish
	same "versions" "$old 9.9.9" "$(versions "$SUITE" toa-dkms)"

	before=$(state)
	package=$(of_suite "$PACKAGES" toa-dkms)
	change "$package"
	fails 1 "repo.sh: $WEB/pool/$SUITE/${package##*/} is published, and make deb has made other bytes of the same version: raise the version, or remove this file if no server has it" \
		publish
	change "$package"
	new_key another@example.com
	fails 1 "repo.sh: $WEB is signed with $(fingerprint packages@example.com), and its servers refuse $(fingerprint another@example.com): sign with the former, or remove $WEB/toa-archive-keyring.asc and give the new one to each server" \
		publish another@example.com
	same "after errors" "$before" "$(state)"

	# A withdrawn version.
	rm "$WEB/pool/$SUITE"/toa-dkms_9.9.9_*.deb "$PACKAGES/$SUITE"/toa-dkms_9.9.9_*.deb
	publish
	same "versions" "$old" "$(versions "$SUITE" toa-dkms)"
}

# state: prints a checksum of each file of the repository.
state() {
	(cd "$WEB" && find . -type f -exec sha256sum {} + | sort)
}

case_packages_that_are_not_complete_are_not_published() {
	publisher
	: >"$PACKAGES/$SUITE/toa_0.1.0_amd64.changes"
	fails 1 "repo.sh: make deb has not completed toa in $PACKAGES/$SUITE: run make deb again" publish
	: >"$PACKAGES/$SUITE/toa.key"
	publish
	find "$PACKAGES" -name "*.deb" -delete
	fails 1 "repo.sh: $PACKAGES has no packages: run make deb, and make deb KERNEL=sid for those of sid" publish
}

case_indexes_are_reproducible_and_readable() {
	local first
	publisher
	export SOURCE_DATE_EPOCH=1700000000
	(umask 077 && publish)
	same "files that others cannot read" "" "$(find "$WEB" ! -perm -o=r -o -type d ! -perm -o=x)"
	first=$WEB
	WEB=$TMP/again
	publish
	rm "$first"/dists/*/{InRelease,Release.gpg} "$WEB"/dists/*/{InRelease,Release.gpg}
	diff -r "$first" "$WEB"
	same "date" "Date: Tue, 14 Nov 2023 22:13:20 +0000" "$(grep '^Date: ' "$WEB/dists/$SUITE/Release")"
}

need_host gpg=gpg gpg-agent=gpg-agent gpgconf=gpgconf apt-ftparchive=apt-utils ip=iproute2 python3=python3 make=make
cases_on_servers "$@"
