#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Installs, upgrades, removes and purges the packages of the C library, of the command
# and of nginx's modules, in throwaway copies of a minimal Debian.
#
#   user-space-deb-test.sh [CASE…]
#
# KERNEL= selects the Debian release (see kernel.sh). The packages are those of
# scripts/deb.sh. Run it as root. Prints TAP.

. "$(dirname "$0")/../scripts/lib.sh"
. "$REPO/tests/cases.sh"
. "$REPO/tests/scratch.sh"

OUT=$("$SCRIPTS/deb.sh" directory)

# --- the stage ---------------------------------------------------------------

# server PACKAGE…: mounts a bare Debian, with these packages of ours in /root.
server() {
	local package
	[[ ${KERNEL:-} != bookworm* ]] || skip "these packages are not for Debian 12, whose rustc is too old"
	SERVER=$TMP/server
	scratch "$SERVER" "$("$SCRIPTS/root.sh" path bare)"
	PACKAGES=()
	for package; do
		cp "$(deb "$package")" "$SERVER/root/$package.deb"
		PACKAGES+=("/root/$package.deb")
	done
}

# deb PACKAGE: prints the path of the package's only file.
deb() {
	local found
	found=$(find "$OUT" -maxdepth 1 -name "$1_*.deb")
	[[ -f $found ]] || die "$OUT must have exactly one package $1, and has ${found:-none}: scripts/deb.sh make"
	echo "$found"
}

# apt ARGUMENT…: runs apt-get in the server, with its output in apt.log.
apt() {
	inside "$SERVER" apt-get -q -y --no-install-recommends "$@" >apt.log 2>&1 || fail "apt-get $*"
}

fail() {
	cat apt.log
	die "$*"
}

# unpacked PACKAGE: lists its files and links.
unpacked() {
	dpkg-deb --fsys-tarfile "$(deb "$1")" | tar -t | sed -n '/[^/]$/s/^\.//p' | sort
}

# field PACKAGE FIELD: prints the field of the package's control file.
field() {
	dpkg-deb -f "$(deb "$1")" "$2"
}

# version PACKAGE: prints the installed version.
version() {
	# shellcheck disable=SC2016 # dpkg-query expands it
	inside "$SERVER" dpkg-query -W -f '${Version}' "$1"
}

# newer PACKAGE…: makes version 9.9.9 of the packages, in /root/newer.
newer() {
	local package
	for package; do
		remake "$package" newer "s/$(field "$package" Version | sed 's/[.]/\\&/g')/9.9.9/"
	done
}

# remake PACKAGE DIRECTORY SCRIPT: copies the package to /root/DIRECTORY. sed's
# SCRIPT changes its control file.
remake() {
	local tree=$TMP/$2-$1
	dpkg-deb -R "$(deb "$1")" "$tree"
	sed -i "$3" "$tree/DEBIAN/control"
	mkdir -p "$SERVER/root/$2"
	dpkg-deb --root-owner-group -z0 -b "$tree" "$SERVER/root/$2/$1.deb" >/dev/null
}

# with_loopback COMMAND…: runs COMMAND in the root, in a new network namespace.
with_loopback() {
	# shellcheck disable=SC2016 # the inner shell expands it
	unshare --net bash -c 'ip link set lo up && . "$0" && inside "$@"' "$REPO/tests/scratch.sh" "$SERVER" "$@"
}

# page_has_no_warnings PAGE: checks a manual page in the server.
page_has_no_warnings() {
	same "warnings of ${1##*/}" "" \
		"$(inside "$SERVER" env MANWIDTH=80 man --warnings=all -l "$1" 2>&1 >/dev/null)"
	same "mandoc's warnings of ${1##*/}" "" \
		"$(inside "$SERVER" mandoc -T lint -W warning "$1" 2>&1)"
}

# A shell function: prints the answer of a server on port $1 to the line $2, as
# soon as the server listens.
# shellcheck disable=SC2016 # the shell in the root expands it
readonly ASK='
ask() {
	local try
	for ((try = 0; try < 600; try++)); do
		{ exec 3<>"/dev/tcp/127.0.0.1/$1"; } 2>/dev/null && break
		sleep 0.1
	done
	printf "%s" "$2" >&3
	cat <&3
}
'

# --- the C library -----------------------------------------------------------

case_the_library_has_these_files() {
	local lib=/usr/lib/x86_64-linux-gnu
	same "libtoa-peer0.1" "$(
		cat <<-LIST
			$lib/libtoa_peer.so.0.1
			$lib/libtoa_peer.so.0.1.0
			/usr/share/doc/libtoa-peer0.1/changelog.gz
			/usr/share/doc/libtoa-peer0.1/copyright
		LIST
	)" "$(unpacked libtoa-peer0.1)"
	same "libtoa-peer-dev" "$(
		cat <<-LIST
			/usr/include/toa_peer.h
			$lib/libtoa_peer.a
			$lib/libtoa_peer.so
			$lib/pkgconfig/toa_peer.pc
			/usr/share/doc/libtoa-peer-dev/changelog.gz
			/usr/share/doc/libtoa-peer-dev/copyright
			/usr/share/doc/libtoa-peer-dev/examples/server.c
			/usr/share/man/man3/toa_peer_balancer.3.gz
			/usr/share/man/man3/toa_peer_client_by_toa.3.gz
			/usr/share/man/man3/toa_peer_get.3.gz
		LIST
	)" "$(unpacked libtoa-peer-dev)"
}

case_a_server_in_c_is_compiled_and_asks_the_library() {
	server libtoa-peer0.1 libtoa-peer-dev
	apt install gcc libc6-dev pkgconf
	files "$SERVER" >before
	apt install "${PACKAGES[@]}"
	cp "$REPO/peer/examples/server.c" "$SERVER/root/"
	# shellcheck disable=SC2016 # as here
	inside "$SERVER" sh -c 'cd /root && cc -Wall -Werror -o server server.c $(pkg-config --cflags --libs toa_peer)' ||
		die "cc"
	same "needed" "libtoa_peer.so.0.1 libc.so.6" "$(
		inside "$SERVER" objdump -p /root/server | awk '$1 == "NEEDED" { print $2 }' | paste -sd' '
	)"
	with_loopback bash -c "$ASK"'
		/root/server 127.0.0.1 8080 >/dev/null &
		ask 8080 ""' | sed 's/ port [1-9][0-9]*/ port N/' >output
	same "the server's answer" "client 127.0.0.1 port N by getpeername" "$(<output)"

	newer libtoa-peer0.1 libtoa-peer-dev
	apt install /root/newer/libtoa-peer0.1.deb /root/newer/libtoa-peer-dev.deb
	same "versions" "9.9.9 9.9.9" "$(version libtoa-peer0.1) $(version libtoa-peer-dev)"

	apt remove libtoa-peer-dev libtoa-peer0.1
	files "$SERVER" >removed
	same "left by remove" "" "$(appeared before removed)"
}

# The static library defines the functions only, so a program may have a second one in Rust.
case_the_static_library_defines_the_functions_only() {
	server libtoa-peer0.1 libtoa-peer-dev
	apt install binutils
	apt install "${PACKAGES[@]}"
	same "symbols" "toa_peer_balancer toa_peer_client_by_toa toa_peer_get" "$(
		inside "$SERVER" nm --extern-only --defined-only --format=just-symbols \
			/usr/lib/x86_64-linux-gnu/libtoa_peer.a | grep -v -e ':$' -e '^$' | sort | paste -sd' '
	)"
}

case_the_library_has_pages_without_warnings() {
	local page
	server libtoa-peer0.1 libtoa-peer-dev
	# A minimal Debian leaves out documentation.
	rm -f "$SERVER"/etc/dpkg/dpkg.cfg.d/*
	apt install man-db mandoc
	apt install "${PACKAGES[@]}"
	for page in toa_peer_get toa_peer_client_by_toa toa_peer_balancer; do
		page_has_no_warnings "/usr/share/man/man3/$page.3.gz"
		has "man 3 $page" "int $page(int fd, struct " \
			"$(inside "$SERVER" env MANWIDTH=80 man 3 "$page" | col -b | tr -s ' \n' ' ')"
	done
}

# A program that was compiled with the library depends on the library's package.
case_programs_depend_on_the_package_of_the_library() {
	same "symbols" "$(
		cat <<-SYMBOLS
			libtoa_peer.so.0.1 libtoa-peer0.1 #MINVER#
			* Build-Depends-Package: libtoa-peer-dev
			 libtoa_peer.so.0.1@libtoa_peer.so.0.1 0.1.0
			 toa_peer_balancer@libtoa_peer.so.0.1 0.1.0
			 toa_peer_client_by_toa@libtoa_peer.so.0.1 0.1.0
			 toa_peer_get@libtoa_peer.so.0.1 0.1.0
		SYMBOLS
	)" "$(dpkg-deb -I "$(deb libtoa-peer0.1)" symbols)"
	same "libtoa-peer-dev's dependency" "libtoa-peer0.1 (= $(field libtoa-peer0.1 Version))" "$(field libtoa-peer-dev Depends)"
}

# --- the command ---------------------------------------------------------------

case_the_command_has_pages_without_warnings_and_completions_that_shells_load() {
	local page
	server toa-tools
	# A minimal Debian leaves out documentation.
	rm -f "$SERVER"/etc/dpkg/dpkg.cfg.d/*
	apt install man-db mandoc bash zsh fish
	files "$SERVER" >before
	apt install "${PACKAGES[@]}"
	same "version" "toa $(field toa-tools Version)" "$(inside "$SERVER" toa --version)"
	same "pages" "toa toa-check toa-doctor toa-generate toa-list toa-policy toa-policy-diff toa-policy-set toa-policy-show toa-policy-test toa-reload toa-status toa-top toa-verify toa-why" \
		"$(unpacked toa-tools | sed -n 's|^/usr/share/man/man1/\(.*\)\.1\.gz$|\1|p' | sort | paste -sd' ')"
	for page in "$SERVER"/usr/share/man/man1/toa*.1.gz; do
		page_has_no_warnings "/${page#"$SERVER"/}"
	done
	same "bash" "complete -o bashdefault -o default -o nosort -F _toa toa" \
		"$(inside "$SERVER" bash -c '. /usr/share/bash-completion/completions/toa && complete -p toa')"
	# shellcheck disable=SC2016 # zsh expands it
	same "zsh" "_toa" "$(inside "$SERVER" zsh -fc 'autoload -Uz compinit && compinit -u -D && print $_comps[toa]')"
	same "fish" "status" "$(inside "$SERVER" fish -c 'complete -C "toa stat"' | cut -f 1)"
	same "without the module" 3 "$(inside "$SERVER" toa status >/dev/null && echo 0 || echo $?)"

	newer toa-tools
	apt install /root/newer/toa-tools.deb
	same "version" "9.9.9" "$(version toa-tools)"
	apt purge toa-tools
	files "$SERVER" >purged
	# man-db's index of all pages is its cache.
	same "left by purge" "" "$(appeared before purged | grep -v '^/var/cache/man/')"
}

case_prometheus_reads_the_metrics_and_the_example_rules() {
	local host
	server toa-tools
	apt install prometheus "${PACKAGES[@]}"
	mkdir "$SERVER/root/cli" "$SERVER/root/empty"
	cp -r "$REPO/cli/examples" "$REPO/cli/tests" "$SERVER/root/cli/"
	# A server with the module, and one without.
	for host in cli/tests/hosts/server empty; do
		inside "$SERVER" toa --sysroot "/root/$host" status --prometheus >"$SERVER/root/metrics"
		same "metrics of $host" "" "$(inside "$SERVER" sh -c 'promtool check metrics </root/metrics' 2>&1)"
	done
	echo 'toa_loaded 1' >"$SERVER/root/metrics"
	same "metrics without a help text" "toa_loaded no help text" \
		"$(inside "$SERVER" sh -c 'promtool check metrics </root/metrics' 2>&1)"
	has "rules" "SUCCESS: 3 rules found" "$(inside "$SERVER" promtool check rules /root/cli/examples/toa-alerts.yml 2>&1)"
	inside "$SERVER" promtool test rules /root/cli/tests/toa-alerts-test.yml >promtool.log 2>&1 || die "$(<promtool.log)"
	sed -i 's/> 0.8/> 0.9/' "$SERVER/root/cli/examples/toa-alerts.yml"
	! inside "$SERVER" promtool test rules /root/cli/tests/toa-alerts-test.yml >promtool.log 2>&1 ||
		die "no test of the rules fails if one has another limit"
}

# --- nginx's modules -----------------------------------------------------------

readonly NGINX_MODULES=(libnginx-mod-http-toa libnginx-mod-stream-toa)

# nginx_server: mounts a server with its Debian's nginx, and sets ABI to nginx's ABI.
nginx_server() {
	server "${NGINX_MODULES[@]}"
	apt install nginx libnginx-mod-stream
	# nginx makes directories when it checks its configuration.
	with_loopback nginx -t 2>nginx.log || die "$(<nginx.log)"
	files "$SERVER" >before
	# shellcheck disable=SC2016 # dpkg-query expands it
	ABI=$(inside "$SERVER" dpkg-query -W -f '${Provides}' nginx | grep -o 'nginx-abi-[^, ]*')
}

# configure_nginx: configures nginx to use both modules.
configure_nginx() {
	echo "toa_real_ip on; log_format toa '\$toa_remote_addr \$toa_remote_port \$toa_balancer_addr';" \
		>"$SERVER/etc/nginx/conf.d/toa.conf"
	cat >"$SERVER/etc/nginx/sites-available/default" <<-'SITE'
		server {
			listen 127.0.0.1:8080;
			access_log /root/http.log toa;
			location / { return 200 "client $remote_addr, by toa $toa_remote_addr"; }
		}
	SITE
	cat >>"$SERVER/etc/nginx/nginx.conf" <<-'STREAM'
		stream {
			log_format toa '$toa_remote_addr $toa_remote_port $toa_balancer_addr';
			server {
				listen 127.0.0.1:5432;
				access_log /root/stream.log toa;
				return "by toa $toa_remote_addr";
			}
		}
	STREAM
}

# nginx_accepts: checks that nginx accepts the configuration with the modules.
nginx_accepts() {
	local output
	output=$(with_loopback nginx -t 2>&1) || die "$output"
	same "nginx -t" "$(
		cat <<-OUTPUT
			nginx: the configuration file /etc/nginx/nginx.conf syntax is ok
			nginx: configuration file /etc/nginx/nginx.conf test is successful
		OUTPUT
	)" "$output"
}

case_modules_have_these_files() {
	local kind
	for kind in http stream; do
		same "libnginx-mod-$kind-toa" "$(
			cat <<-LIST
				/usr/lib/nginx/modules/ngx_${kind}_toa_module.so
				/usr/share/doc/libnginx-mod-$kind-toa/changelog.gz
				/usr/share/doc/libnginx-mod-$kind-toa/copyright
				/usr/share/nginx/modules-available/mod-$kind-toa.conf
			LIST
		)" "$(unpacked "libnginx-mod-$kind-toa")"
	done
}

case_nginx_runs_with_both_modules() {
	nginx_server
	apt install "${PACKAGES[@]}"
	configure_nginx
	nginx_accepts
	same "order" "$(
		cat <<-LOADED
			load_module modules/ngx_http_toa_module.so;
			load_module modules/ngx_stream_module.so;
			load_module modules/ngx_stream_toa_module.so;
		LOADED
	)" "$(with_loopback nginx -T 2>/dev/null | grep '^load_module')"
	# shellcheck disable=SC2016 # and here
	with_loopback bash -c "$ASK"'
		nginx
		ask 8080 "$1" | tail -n 1
		echo
		ask 5432 ""
		nginx -s quit
		while kill -0 "$(</run/nginx.pid)"; do sleep 0.1; done 2>/dev/null
	' bash $'GET / HTTP/1.0\r\n\r\n' >output
	same "answers" "$(printf '%s\n' 'client 127.0.0.1, by toa -' 'by toa -')" "$(<output)"
	same "logs" "$(printf '%s\n' '- - -' '- - -')" "$(cat "$SERVER"/root/{http,stream}.log)"
	same "error log" "1" "$(grep -c 'toa: this kernel has no toa.ko' "$SERVER/var/log/nginx/error.log")"
}

case_nginx_accepts_the_configuration_in_the_readme() {
	local page=$REPO/nginx/README.md
	nginx_server
	apt install "${PACKAGES[@]}"
	sed -n '/^## To paste/,/^    # in stream/s/^    //p' "$page" >"$SERVER/etc/nginx/conf.d/toa.conf"
	{
		echo 'stream {'
		sed -n '/^    # in stream/,/^## /s/^    //p' "$page"
		echo '}'
	} >>"$SERVER/etc/nginx/nginx.conf"
	nginx_accepts
	same "servers in stream that send the client" "1" "$(with_loopback nginx -T 2>/dev/null | grep -c '^ *proxy_protocol on;$')"
	echo 'server { listen 8081; location / { toa_real_ip on; } }' >"$SERVER/etc/nginx/conf.d/late.conf"
	# The sentence that the page names.
	has "nginx -t" '"toa_real_ip" directive belongs into the block "server" or "http": in "location"' \
		"$(with_loopback nginx -t 2>&1 || true)"
}

# Without nginx's stream module, nginx would not start: our module uses its symbols.
case_the_stream_package_brings_nginx_own_stream_module() {
	server libnginx-mod-stream-toa
	apt install nginx
	apt install "${PACKAGES[@]}"
	nginx_accepts
}

case_modules_are_upgraded_removed_and_purged() {
	nginx_server
	apt install "${PACKAGES[@]}"
	configure_nginx
	newer "${NGINX_MODULES[@]}"
	apt install /root/newer/libnginx-mod-{http,stream}-toa.deb
	same "versions" "9.9.9 9.9.9" "$(version libnginx-mod-http-toa) $(version libnginx-mod-stream-toa)"
	nginx_accepts

	rm "$SERVER/etc/nginx/conf.d/toa.conf"
	sed -i '/^stream/,$d' "$SERVER/etc/nginx/nginx.conf"
	apt remove "${NGINX_MODULES[@]}"
	echo "server { listen 127.0.0.1:8080; }" >"$SERVER/etc/nginx/sites-available/default"
	nginx_accepts
	files "$SERVER" >removed
	same "left by remove" "$(
		cat <<-LIST
			/etc/nginx/modules-enabled/50-mod-http-toa.conf.removed
			/etc/nginx/modules-enabled/70-mod-stream-toa.conf.removed
			/var/lib/dpkg/info/libnginx-mod-http-toa.list
			/var/lib/dpkg/info/libnginx-mod-http-toa.postrm
			/var/lib/dpkg/info/libnginx-mod-stream-toa.list
			/var/lib/dpkg/info/libnginx-mod-stream-toa.postrm
		LIST
	)" "$(appeared before removed)"
	apt purge "${NGINX_MODULES[@]}"
	files "$SERVER" >purged
	same "left by purge" "" "$(appeared before purged)"
}

# An nginx that cannot load the installed modules would not start.
case_an_nginx_of_another_abi_is_kept_back() {
	local package current
	nginx_server
	for package in "${NGINX_MODULES[@]}"; do
		has "$package's dependencies" ", $ABI," ", $(field "$package" Depends),"
	done
	# Debian's own module alone would keep nginx back.
	apt purge libnginx-mod-stream
	apt install /root/libnginx-mod-http-toa.deb
	current=$(version nginx)
	offer_nginx_9
	apt upgrade
	same "nginx" "$current" "$(version nginx)"
	has "apt" "kept back: nginx" "$(tr -s ' \n' ' ' <apt.log)"

	# The module's package, as if it had been built for that nginx.
	remake libnginx-mod-http-toa rebuilt "s/$ABI/nginx-abi-9.9.9-1/; s/^Version: .*/Version: 0.1.0+nginx9.9.9.1/"
	apt install nginx /root/rebuilt/libnginx-mod-http-toa.deb
	same "nginx and its module" "9.9.9 0.1.0+nginx9.9.9.1" "$(version nginx) $(version libnginx-mod-http-toa)"
}

# offer_nginx_9: makes a repository with an nginx for which no module was built.
offer_nginx_9() {
	local repository=$SERVER/srv/repository deb=$SERVER/srv/repository/nginx.deb
	mkdir -p "$TMP/nginx/DEBIAN" "$repository"
	cat >"$TMP/nginx/DEBIAN/control" <<-CONTROL
		Package: nginx
		Version: 9.9.9
		Architecture: amd64
		Maintainer: A test <test@packages.invalid>
		Provides: nginx-abi-9.9.9-1
		Description: nginx with another ABI
	CONTROL
	dpkg-deb --root-owner-group -z0 -b "$TMP/nginx" "$deb" >/dev/null
	{
		cat "$TMP/nginx/DEBIAN/control"
		echo "Filename: ./nginx.deb"
		echo "Size: $(stat -c %s "$deb")"
		echo "SHA256: $(sha256sum "$deb" | cut -d ' ' -f 1)"
	} >"$repository/Packages"
	echo "deb [trusted=yes] file:/srv/repository ./" >"$SERVER/etc/apt/sources.list.d/repository.list"
	apt update -o Dir::Etc::sourcelist=sources.list.d/repository.list -o Dir::Etc::sourceparts=- \
		-o APT::Get::List-Cleanup=0
}

need_host ip=iproute2
cases_on_servers "$@"
