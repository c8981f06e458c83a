#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Tests of the units that check toa, by a systemd that runs in namespaces on a copy of
# the guest's root, with its nginx. No module is loaded: the root's /proc/sys/net is
# empty, and a file there stands for the module.
#
#   required-test.sh [CASE…]
#
# Run it as root. Prints TAP.

. "$(dirname "$0")/../scripts/lib.sh"
. "$REPO/tests/cases.sh"
. "$REPO/tests/scratch.sh"

# under_systemd: runs the shell script on standard input as a service, and prints its
# output. The script's first lines make functions that load and unload toa.
under_systemd() {
	local root=$TMP/server units
	units=$root/etc/systemd/system
	scratch "$root" "$("$SCRIPTS/root.sh" path guest)"
	mount -t tmpfs tmpfs "$root/run"
	mount -t sysfs sysfs "$root/sys"
	make -s -C "$REPO" install-startup DESTDIR="$root"
	mkdir -p "$units/nginx.service.d"
	cp "$root/usr/share/toa/toa-required.conf" "$units/nginx.service.d/"
	printf '[Unit]\nDefaultDependencies=no\n[Service]\nType=oneshot\nExecStart=/script\nStandardOutput=file:/output\nStandardError=file:/output\n' \
		>"$units/script.service"
	# shellcheck disable=SC2016 # the script expands it
	{
		printf '%s\n' '#!/bin/sh' 'mount -t tmpfs tmpfs /proc/sys/net' 'trap "systemctl --no-block exit" EXIT' \
			'load() { mkdir -p /proc/sys/net/toa && touch /proc/sys/net/toa/trusted; }' \
			'unload() { rm -r /proc/sys/net/toa; }'
		cat
	} >"$root/script"
	chmod +x "$root/script"
	touch "$root/output"
	# shellcheck disable=SC2016 # the inner shell expands it
	timeout -s KILL 120 unshare --mount --pid --cgroup --net --uts --ipc --fork --kill-child --propagation private sh -c '
		mount -t proc proc "$0/proc" && mount -t tmpfs tmpfs "$0/sys/fs/cgroup" && mount -t cgroup2 cgroup2 "$0/sys/fs/cgroup" || exit 77
		exec chroot "$0" /usr/bin/env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin \
			/lib/systemd/systemd --system --unit=script.service --log-target=null --show-status=no' "$root" >&2 ||
		[[ $? != 77 ]] || skip "cgroup2 cannot be mounted here"
	cat "$root/output"
}

# --- claims ------------------------------------------------------------------

case_nginx_with_the_drop_in_starts_only_if_toa_is_loaded() {
	same "states" "1 inactive failed, 0 active, 1 active, 1 inactive failed" "$(under_systemd <<-'SCRIPT' | tail -n 1
		start() {
			systemctl start nginx 2>/dev/null
			result="$? $(systemctl is-active nginx)"
		}
		start
		results="$result $(systemctl is-active toa-required)"
		load
		start
		results="$results, $result"
		# A running service stays when toa is unloaded, and does not start again without it.
		unload
		start
		results="$results, $result"
		systemctl stop nginx
		start
		echo "$results, $result $(systemctl is-active toa-required)"
	SCRIPT
	)"
}

case_nginx_with_the_drop_in_stays_down_if_toa_is_blacklisted() {
	same "states" "check active, nginx inactive, toa-required failed" "$(under_systemd <<-'SCRIPT' | tail -n 1
		echo "blacklist toa" >/etc/modprobe.d/mine.conf
		systemctl start nginx 2>/dev/null
		echo "check $(/usr/libexec/toa/toa-check loaded && echo active), nginx $(systemctl is-active nginx), toa-required $(systemctl is-active toa-required)"
	SCRIPT
	)"
}

case_a_failed_check_recovers_when_toa_is_loaded() {
	same "states" "failed, failed, active" "$(under_systemd <<-'SCRIPT' | tail -n 1
		# The unit skips containers, and this systemd takes itself for one.
		mkdir -p /run/systemd/system/toa-check.service.d
		printf '[Unit]\nConditionVirtualization=\n' >/run/systemd/system/toa-check.service.d/here.conf
		systemctl daemon-reload
		check() { systemctl is-active toa-check; }
		systemctl start toa-check 2>/dev/null
		states=$(check)
		/usr/libexec/toa/toa-check recovered
		while [ "$(check)" = activating ]; do sleep 0.1; done
		states="$states, $(check)"
		load
		/usr/libexec/toa/toa-check recovered
		while [ "$(check)" != active ] && [ "$((tries = tries + 1))" -lt 50 ]; do sleep 0.1; done
		echo "$states, $(check)"
	SCRIPT
	)"
}

cases_on_servers "$@"
