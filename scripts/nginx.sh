#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Builds the modules in nginx/ for a distribution's nginx, in a root of that suite.
#
#   nginx.sh make            both, in build/nginx/SUITE, and loads them
#   nginx.sh check           clippy
#   nginx.sh roots           the roots of both suites
#   nginx.sh bundles         both suites' modules, and sid's nginx with the libraries
#                            that it needs, in build/nginx/bundle for the tests
#
# NGINX=   trixie (default) or sid
#
# The compiler's output is kept in TOA_CACHE/nginx, separate for each version.

. "$(dirname "$0")/lib.sh"
shopt -s inherit_errexit

SUITE=${NGINX:-trixie}
OUT=$REPO/build/nginx/$SUITE
MODULES=(ngx_http_toa_module.so ngx_stream_toa_module.so)

# nginx reads inherited sockets from a variable of that name.
unset NGINX

in_root() {
	NGINX=$SUITE "$SCRIPTS/root.sh" run nginx "$@"
}

# The compiler's directory, which all clones share.
cache() {
	local key
	key=$(NGINX=$SUITE "$SCRIPTS/root.sh" key nginx)
	mkdir -p "$TOA_CACHE/nginx/$key"
	touch "$TOA_CACHE/nginx/$key"
	forget_unused "$TOA_CACHE/nginx" 'nginx-*'
	echo "$TOA_CACHE/nginx/$key"
}

# locked_make TARGET…: runs the makefile of nginx/ in the root, as on a server.
locked_make() {
	local cache
	cache=$(cache)
	in_root make --no-print-directory -C "$REPO/nginx" "OUT=$cache" "$@" >&2
	[[ $1 == all ]] || return 0
	mkdir -p "$OUT"
	cp "${MODULES[@]/#/$cache/}" "$OUT/"
}

# Searches both modules for panics, then loads them as an administrator would: nginx
# compares its version and its signature with theirs.
look() {
	local dir=$1 module found
	for module in "${MODULES[@]/#/$dir/}"; do
		found=$(panics "$module")
		[[ -z $found ]] || die "$module may panic: $found"
	done
	cd "$(mktemp -d)"
	{
		echo "load_module /usr/lib/nginx/modules/ngx_stream_module.so;"
		printf 'load_module %s;\n' "${MODULES[@]/#/$dir/}"
		echo "pid $PWD/pid; events {} http { toa_real_ip on; } stream {}"
	} >nginx.conf
	nginx -t -q -e stderr -p "$PWD" -c "$PWD/nginx.conf" ||
		die "nginx does not load the modules: build them for this nginx with make nginx-module"
	nginx -v 2>&1 | sed 's/^nginx version: /both modules load into /'
}

# The functions of these crates that call a function which panics: nginx's worker
# would end with all its connections. The compiler removes unreachable calls.
panics() {
	objdump -d --no-show-raw-insn "$1" | awk '
		/^[0-9a-f]+ <.*>:$/ { name = $2 }
		name ~ /toa_nginx|toa_peer|toa_module/ && /(call|jmp) .*(panic|unwrap_failed|expect_failed|_fail)/ {
			print name, $NF
		}'
}

make_modules() {
	locked "nginx-$SUITE" locked_make_all
	in_root "$SCRIPTS/nginx.sh" look "$OUT" >&2
	printf '%s\n' "${MODULES[@]/#/$OUT/}"
}

locked_make_all() {
	locked_make all
}

check() {
	locked "nginx-$SUITE" locked_make_check
}

locked_make_check() {
	locked_make check
}

# Runs in the root.
copy_nginx() {
	local dir=$1 program=/usr/sbin/nginx stream=/usr/lib/nginx/modules/ngx_stream_module.so
	mkdir -p "$dir/lib"
	cp "$program" "$stream" "$dir/"
	ldd "$program" "$stream" | grep -oE '/[^ ]+ \(0x' | sed 's/ (0x//' | sort -u | xargs cp -Lt "$dir/lib"
}

# Collects the modules of both suites, and sid's nginx. Trixie's is in the guest.
bundles() {
	local dir=$REPO/build/nginx/bundle
	rm -rf "$dir" "$dir.new"
	mkdir -p "$dir.new"/{trixie,sid}
	for SUITE in trixie sid; do
		OUT=$REPO/build/nginx/$SUITE
		make_modules
		cp "${MODULES[@]/#/$OUT/}" "$dir.new/$SUITE/"
	done
	in_root "$SCRIPTS/nginx.sh" copy-nginx "$dir.new/sid" >&2
	mv "$dir.new" "$dir"
}

roots() {
	for SUITE in trixie sid; do
		NGINX=$SUITE "$SCRIPTS/root.sh" make nginx
	done
}

main() {
	case ${1:-} in
	make) make_modules ;;
	check) check ;;
	bundles) bundles ;;
	roots) roots ;;
	look) look "$2" ;;
	copy-nginx) copy_nginx "$2" ;;
	-h | --help | help) usage ;;
	*) usage 1 >&2 ;;
	esac
}

main "$@"
