#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Tests of the rpm package that scripts/rpm.sh made: its files, and its scriptlets
# in a root directory with DKMS and a kernel's headers.
#
#   rpm-test.sh [CASE…]
#
# Run it as root. The root directory is a layer on top of the Debian root in which
# the package was built, so rpm's database has no other packages. The requirements
# are read, not resolved. Prints TAP.

. "$(dirname "$0")/../scripts/lib.sh"
OUT=$REPO/build/rpm
. "$REPO/tests/cases.sh"

version() {
	"$SCRIPTS/version.sh" print
}

package() {
	find "$OUT" -name 'toa-dkms-*.noarch.rpm'
}

# newer_package: makes the package of version 9.9.9, sources included.
newer_package() {
	local tree=$TMP/toa-9.9.9
	tar -xf "$OUT/toa-$(version).tar.xz" -C "$TMP"
	mv "$TMP/toa-$(version)" "$tree"
	sed -i "s/\b$(version | sed 's/[.]/\\./g')\b/9.9.9/" "$tree"/{,peer/,nginx/,cli/}debian/changelog \
		"$tree"/{peer,peer/c,nginx,cli}/Cargo.toml "$tree"/peer/python/pyproject.toml \
		"$tree"/{dkms.conf,toa.rs,packaging/toa-dkms.spec}
	mkdir "$TMP/newer"
	tar -cJf "$TMP/newer/toa-9.9.9.tar.xz" -C "$TMP" toa-9.9.9
	"$SCRIPTS/rpm.sh" packages "$TMP/newer/toa-9.9.9.tar.xz" "$TMP/newer" >packages.log 2>&1 || die "$(<packages.log)"
	find "$TMP/newer" -name '*.noarch.rpm'
}

# become_system: mounts the root directory ROOT with the headers of one kernel, and
# Rust's core library if the cache has it. Changes end with the case.
become_system() {
	ROOT=$TMP/root
	mkdir -p "$ROOT" "$TMP/upper" "$TMP/work"
	mount -t overlay -o "lowerdir=/,upperdir=$TMP/upper,workdir=$TMP/work" overlay "$ROOT"
	mount -t proc proc "$ROOT/proc"
	mount --rbind /dev "$ROOT/dev"
	RELEASE=$(sed -n 's/^release=//p' "$OUT/kernel")
	find "$ROOT/lib/modules" -mindepth 1 -maxdepth 1 ! -name "$RELEASE" -exec rm -r {} +
	# DKMS runs depmod only if these files of the kernel's own package exist.
	touch "$ROOT/lib/modules/$RELEASE"/modules.{dep,order,builtin,builtin.modinfo}
	[[ ! -d $TOA_CACHE/core ]] || cp -aT "$TOA_CACHE/core" "$ROOT/var/cache/toa-dkms"
	# The cache of the tests, which no package may touch.
	echo mine >"$ROOT/var/cache/toa/mine"
	rpm --root "$ROOT" --initdb
	listing >before
}

# listing: lists all files but those of rpm, of depmod, logs, and DKMS's own key.
listing() {
	(cd "$TMP/upper" && find . -mindepth 1 \( -path ./var/lib/rpm -o -path ./usr/lib/sysimage -o -path ./var/log -o -path ./tmp -o -path ./var/cache/toa-dkms -o -path ./run/toa \) -prune -o ! -type d -print |
		sed -e '\|^\./usr/lib/modules/[^/]*/modules\.|d' -e '\|^\./var/lib/dkms/mok\.|d' | sort)
}

# install_package [PACKAGE]: installs it, also over another version.
install_package() {
	rpm --root "$ROOT" --nodeps -U --oldpackage "${1:-$(package)}" >output 2>&1 ||
		die "rpm -U: $(<output)"
}

erase_package() {
	rpm --root "$ROOT" -e toa-dkms >output 2>&1 || die "rpm -e: $(<output)"
}

in_root() {
	chroot "$ROOT" "$@"
}

# --- the package ---------------------------------------------------------------

case_has_these_files() {
	local src
	src=/usr/src/toa-$(version)
	same "files" "$(
		{
			printf '%s\n' /etc/modprobe.d/toa.conf /etc/sysctl.d/toa.conf /usr/lib/modules-load.d/toa.conf \
				/usr/lib/modprobe.d/toa-policy.conf /usr/lib/udev/rules.d/60-toa.rules \
				/usr/lib/systemd/system/toa-{check,required}.service /usr/share/toa{,/toa-required.conf} /usr/libexec/toa /usr/libexec/toa/toa-{check,dkms,swap} \
				/usr/share/doc/toa-dkms /usr/share/doc/toa-dkms/{README.md,toa-trust.nft} \
				/usr/share/doc/toa-dkms/doc /usr/share/doc/toa-dkms/doc/{cost.svg,{install,internals,nat64,operating,performance,proxies}.md} \
				/usr/share/licenses/toa-dkms /usr/share/licenses/toa-dkms/LICENSE \
				"$src" "$src"/{Kbuild,Makefile,dkms.conf,offsets.c,offsets.h} \
				"$src"/scripts "$src"/scripts/{check-object,lib,module,standin,toolchain}.sh
			find "$REPO" -maxdepth 1 -name '*.rs' ! -name toa_offsets.rs -printf "$src/%f\n"
			find "$REPO/linux" -printf "$src/linux/%P\n" | sed 's|/$||'
			find "$REPO/rust" -printf "$src/rust/%P\n" | sed 's|/$||'
		} | sort
	)" "$(rpm -qlp "$(package)" | sed "s|/toa-dkms-$(version)|/toa-dkms|" | sort)"
	same "owners" "root root" "$(rpm -qp --qf '[%{FILEUSERNAME} %{FILEGROUPNAME}\n]' "$(package)" | sort -u)"
	same "executables" "/usr/libexec/toa/toa-check /usr/libexec/toa/toa-dkms /usr/libexec/toa/toa-swap $src/rust/core.sh $src/scripts/check-object.sh $src/scripts/module.sh $src/scripts/standin.sh" \
		"$(rpm -qp --qf '[%{FILEMODES:perms} %{FILENAMES}\n]' "$(package)" | awk '/^-rwxr-xr-x/ { print $2 }' | sort | paste -sd' ')"
	same "configuration" "/etc/modprobe.d/toa.conf /etc/sysctl.d/toa.conf" "$(rpm -qcp "$(package)" | paste -sd' ')"
}

case_requires_what_builds_the_module() {
	local needed
	needed=$(rpm -qp --requires "$(package)")
	for one in 'dkms >= 3.0.10' make 'rust >= 1.85' 'rust-src >= 1.85'; do
		grep -qxF -- "$one" <<<"$needed" || die "does not require $one: $needed"
	done
	same "recommends" kernel-devel "$(rpm -qp --recommends "$(package)")"
	same "version" "$(version) noarch GPL-2.0-only" "$(rpm -qp --qf '%{VERSION} %{ARCH} %{LICENSE}' "$(package)")"
}

# --- its scriptlets ------------------------------------------------------------

case_installed_it_is_built_and_erased_it_is_gone() {
	become_system
	install_package
	has "dkms status" "toa/$(version), $RELEASE, x86_64: installed" "$(in_root dkms status)"
	same "vermagic" "$RELEASE" "$(in_root modinfo -k "$RELEASE" -F vermagic toa | cut -d ' ' -f 1)"
	same "rpm -V" "" "$(rpm --root "$ROOT" --nodeps -V toa-dkms)"
	erase_package
	same "dkms status" "" "$(in_root dkms status)"
	[[ ! -e $ROOT/var/cache/toa-dkms ]] || die "/var/cache/toa-dkms still exists"
	same "the tests' cache" mine "$(<"$ROOT/var/cache/toa/mine")"
	same "files" "$(<before)" "$(listing)"
	! grep -s toa "$ROOT/lib/modules/$RELEASE/modules.dep" || die "depmod was not run"
}

case_upgraded_and_downgraded_it_is_built_anew() {
	local newer
	newer=$(newer_package)
	become_system
	install_package
	replaced_by 9.9.9 "$newer"
	replaced_by "$(version)" "$(package)"
	erase_package
	same "files" "$(<before)" "$(listing)"
}

# replaced_by VERSION PACKAGE: checks that PACKAGE leaves VERSION and no other.
replaced_by() {
	install_package "$2"
	same "messages" "" "$(grep '^toa:' output)"
	same "dkms status" "toa/$1, $RELEASE, x86_64: installed" "$(in_root dkms status)"
	same "module" "$1" "$(in_root modinfo -k "$RELEASE" -F version toa)"
	same "sources" "toa-$1" "$(cd "$ROOT/usr/src" && echo toa-*)"
	[[ ! -e $ROOT/var/lib/toa ]] || die "kept: $(find "$ROOT/var/lib/toa")"
}

# without_library: removes the source of Rust's core library.
without_library() {
	rm -r "$ROOT"/usr/src/rustc-*/library/core
}

case_an_upgrade_that_cannot_be_built_keeps_the_module() {
	local newer
	newer=$(newer_package)
	become_system
	install_package
	without_library
	install_package "$newer"
	has "rpm -U" "toa: the kernel $RELEASE keeps toa $(version): rustc 1.85 or later with the source of its library is missing" "$(<output)"
	same "module" "$(version)" "$(in_root modinfo -k "$RELEASE" -F version toa)"
	erase_package
	same "dkms status" "" "$(in_root dkms status)"
}

case_another_release_of_the_same_version_is_built() {
	local since
	become_system
	install_package
	since=$(stat -c %z "$ROOT/lib/modules/$RELEASE/updates/dkms/toa.ko")
	echo "// another" >>"$ROOT/usr/src/toa-$(version)/toa.rs"
	rpm --root "$ROOT" --nodeps -U --replacepkgs "$(package)" >output 2>&1 || die "rpm -U: $(<output)"
	[[ $(stat -c %z "$ROOT/lib/modules/$RELEASE/updates/dkms/toa.ko") != "$since" ]] || die "the module was not rebuilt"
	has "dkms status" "toa/$(version), $RELEASE, x86_64: installed" "$(in_root dkms status)"
	erase_package
	same "files" "$(<before)" "$(listing)"
}

case_a_build_that_fails_is_told_and_the_package_stays() {
	become_system
	without_library
	install_package
	has "rpm -i" "toa: the kernel $RELEASE has no toa.ko: rustc 1.85 or later with the source of its library is missing" "$(<output)"
	same "rpm -q" "toa-dkms-$(version)-1.noarch" "$(rpm --root "$ROOT" -q toa-dkms)"
	erase_package
}

set_stage() {
	[[ -n $(package) ]] || die "build/rpm has no package: make rpm"
	"$SCRIPTS/kernel.sh" resolve >"$OUT/kernel"
}

cases_in_root rpm set_stage "$@"
