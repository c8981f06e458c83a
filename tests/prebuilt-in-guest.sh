#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Tests of prebuilt modules in a virtual machine with Secure Boot. Two tarballs of
# prebuilt.sh lie beside this script, one with a signed module. Prints KTAP.

# shellcheck disable=SC2317 # claims are called by their names

cd /toa || exit

# The guest's modules and configuration are read-only, or shared with other runs.
for directory in /usr/lib/modules /usr/local /etc; do
	mkdir -p "/run/layer$directory" "/run/work$directory"
	mount -t overlay -o "lowerdir=$directory,upperdir=/run/layer$directory,workdir=/run/work$directory" \
		layer "$directory" || exit
done
mount -t securityfs none /sys/kernel/security || exit

unsigned_is_refused_when_the_kernel_is_locked_down() {
	grep -q '\[integrity\]' /sys/kernel/security/lockdown || return 1
	output=$(unsigned/install.sh 2>&1) && return 1
	echo "# $output"
	[ "$output" = "install.sh: this server is locked down by Secure Boot, and toa.ko is not signed: make it with SIGN_KEY= and SIGN_CERT=" ]
}

insmod_says_that_the_key_was_rejected() {
	output=$(insmod unsigned/toa.ko 2>&1) && return 1
	echo "# $output"
	[ "$output" = "insmod: ERROR: could not insert module unsigned/toa.ko: Key was rejected by service" ]
}

signed_is_installed_and_loaded_by_its_name() {
	signed/install.sh >output 2>&1 || { sed 's/^/# /' output && return 1; }
	sed 's/^/# /' output
	modprobe toa && grep -q '^toa ' /proc/modules && dmesg | grep -q 'TOA: toa loaded, version' &&
		[ "$(/usr/local/bin/toa status --interval 0 | head -n 1)" = 'toa: loaded' ]
}

uninstalled_it_is_found_no_more() {
	signed/install.sh uninstall >output 2>&1 || { sed 's/^/# /' output && return 1; }
	sed 's/^/# /' output
	rmmod toa && ! modprobe toa 2>/dev/null && [ ! -e /etc/modules-load.d/toa.conf ] &&
		[ ! -e /usr/local/bin/toa ]
}

echo "KTAP version 1"
echo "1..4"
number=0
failed=0
for claim in unsigned_is_refused_when_the_kernel_is_locked_down \
	insmod_says_that_the_key_was_rejected \
	signed_is_installed_and_loaded_by_its_name \
	uninstalled_it_is_found_no_more; do
	number=$((number + 1))
	if "$claim"; then
		echo "ok $number $claim"
	else
		failed=1
		echo "not ok $number $claim"
	fi
done
exit "$failed"
