#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Builds the kernel's own tests of TCP from Debian's source, for `make selftests`.
#
#   selftests.sh make    build the tests for the kernel of KERNEL= and KVER= (see kernel.sh),
#                        unless they exist; print their directory
#   selftests.sh build DIRECTORY RELEASE SOURCE
#                        the same in the root selftests; SOURCE is the package of the source
#
# The directory has the programs and scripts as in tools/testing/selftests. Only a kernel with
# Rust has a build root with its source: for others the script exits with 77.

. "$(dirname "$0")/lib.sh"
shopt -s inherit_errexit

SELFTESTS=$TOA_CACHE/selftests

# The programs of net that test TCP, or that scripts of net run.
readonly NET=(bind_bhash bind_timewait bind_wildcard epoll_busy_poll getsockopt_iter
	ip_local_port_range msg_zerocopy reuseaddr_conflict reuseaddr_ports_exhausted
	reuseport_addr_any reuseport_bpf reuseport_bpf_cpu reuseport_bpf_numa reuseport_dualstack
	sk_bind_sendto_listen sk_connect_zero_addr sk_so_peek_off so_incoming_cpu so_netns_cookie
	socket stress_reuseport_listen tcp_inq tcp_port_share tls)

# The tests of bpf's test_progs that concern TCP sockets. The many others take most of an hour, and a
# build tree of the kernel for the tests' own modules: sock_addr needs one when it runs.
readonly BPF=(cgroup_tcp_skb connect_force_port migrate_reuseport mptcp select_reuseport sk_lookup
	sock_destroy sock_fields sock_ops_get_sk sockmap_basic sockmap_ktls sockmap_listen
	sockmap_redir sockmap_strp sockopt_sk tcp_custom_syncookie tcp_hdr_options tcp_rtt tcpbpf_user)

# build_in DIRECTORY PROGRAM…: builds the programs of a directory, or all.
build_in() {
	local dir=$1 programs
	shift
	programs=("${@/#/$PWD/$dir/}")
	make -s -j"$(nproc)" -C "$dir" "OUTPUT=$PWD/$dir" "${programs[@]}"
}

# keep DIRECTORY FILE…: removes its other C files.
keep() {
	local dir=$1
	shift
	find "$dir" -maxdepth 1 -name '*.c' -printf '%f\n' | grep -vxF -f <(printf '%s\n' "$@") |
		sed "s|^|$dir/|" | xargs rm
}

# Builds test_sockmap, and test_progs with the tests of BPF. The rules of the others, of the tests' own
# modules and of libarena are left out. The kernel's types are in the headers' vmlinux.
build_bpf() {
	local vmlinux=$1 programs
	keep bpf/prog_tests "${BPF[@]/%/.c}"
	mapfile -t programs < <(grep -ohE '[A-Za-z0-9_]+\.(skel\.h|bpf\.o)' bpf/prog_tests/*.c | sed -E 's/\.(skel\.h|bpf\.o)$/.c/')
	keep bpf/progs "${programs[@]}" test_sockmap_kern.c
	make -s -j"$(nproc)" -C bpf SKIP_DOCS=1 SKIP_LLVM=1 SKIP_LIBBFD=1 SKIP_CRYPTO=1 "VMLINUX_BTF=$vmlinux" \
		LSKELS= LSKELS_SIGNED= LSKELS_EXTRA= LINKED_SKELS= LIBARENA_SKEL= LIBARENA_ASAN_SKEL= TRUNNER_EXTRA_FILES= \
		"$PWD/bpf/test_progs" "$PWD/bpf/test_sockmap" "$PWD/bpf/test_sockmap_kern.bpf.o"
}

build() {
	local dir=$1 release=$2 source=$3
	# In memory, which goes with the root's mounts.
	mkdir -p "$dir" /tmp/source
	tar -xf "/usr/src/$source.tar.xz" -C /tmp/source --strip-components 1 \
		--exclude='*/Documentation' --exclude='*/drivers' --exclude='*/fs' --exclude='*/sound'
	cd /tmp/source
	make -s -j"$(nproc)" headers
	cd tools/testing/selftests
	build_in net "${NET[@]}"
	build_in net/mptcp
	build_in net/tcp_ao
	build_bpf "/usr/src/linux-headers-$release/vmlinux"
	# The programs, the scripts, and what they include.
	find net net/mptcp net/tcp_ao -maxdepth 1 -type f '(' -executable -o -name '*.sh' ')' -print0 >/tmp/files
	find bpf -maxdepth 1 -type f '(' -name test_progs -o -name test_sockmap -o -name '*.bpf.o' ')' -print0 >>/tmp/files
	find net/lib/sh net/forwarding/lib.sh kselftest -type f -print0 >>/tmp/files
	tar -c --null -T /tmp/files | tar -x -C "$dir"
	(cd "$dir" && find . -type f | sort) >/tmp/list
	find "$dir" -type f -executable ! -name '*.sh' -exec strip --strip-debug {} + 2>/dev/null || true
	# The entry's mark needs a file here.
	mv /tmp/list "$dir/list"
}

make_into() {
	nice "$SCRIPTS/root.sh" run selftests "$SCRIPTS/selftests.sh" build "$1" "$release" "$source" >&2
}

main_make() {
	# shellcheck disable=SC2034 # set by kernel.sh
	local dir found release version source binary rustc rustc_text small
	found=$("$SCRIPTS/kernel.sh" resolve)
	eval "$found"
	if [[ -n ${small:-} || -z $source ]]; then
		info "${0##*/}: no source of exactly $release is among its build packages: skipped"
		exit "$NO_KERNEL"
	fi
	# The name has a hash of the recipe: another recipe, another directory.
	dir=$SELFTESTS/${release}_${version}_$(cat "$0" "$SCRIPTS/packages/selftests.txt" | sha256sum | cut -c1-8)
	locked "selftests-$release" entry "$dir" make_into
	touch "$dir"
	forget_unused "$SELFTESTS" '*_*'
	echo "$dir"
}

main() {
	case ${1:-} in
	make) main_make ;;
	build)
		[[ $# == 4 ]] || usage 1 >&2
		build "${@:2}"
		;;
	-h | --help | help) usage ;;
	*) usage 1 >&2 ;;
	esac
}

main "$@"
