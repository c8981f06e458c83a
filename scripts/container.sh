#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Builds the Containerfile in a clean container. The base image is made here from
# the archive: no registry is asked. No engine that runs containers is needed:
# buildah isolates by chroot.
#
#   container.sh test     toa.ko for the kernel that KERNEL= and KVER= select (see
#                         kernel.sh) has its vermagic; the last line is "N passed,
#                         N failed, N skipped"

. "$(dirname "$0")/lib.sh"
shopt -s inherit_errexit

OUT=$REPO/build/container

# base SUITE…: makes a base image like debian:SUITE, with the release's security updates
# and this machine's settings for the archive.
base() {
	need_host mmdebstrap=mmdebstrap
	archive_acquire >"$OUT/acquire"
	archive_sources "$@" >"$OUT/base.list"
	archive_try mmdebstrap --mode=root --variant=minbase --aptopt="$OUT/acquire" \
		--customize-hook="cp $OUT/acquire \"\$1/etc/apt/apt.conf.d/acquire\"" \
		"$1" "$OUT/base.tar" "$OUT/base.list"
}

# Runs in the root.
build_image() {
	local release=$1 suite=$2 store=$OUT/store container
	buildah() {
		command buildah --storage-driver vfs --root "$store" --runroot "$store-run" "$@"
	}
	container=$(buildah from scratch)
	buildah add --quiet "$container" "$OUT/base.tar" /
	buildah commit --quiet --rm "$container" toa-base
	# Limits stay as they are here: buildah would raise them, and some machines refuse that.
	buildah build --isolation chroot --network host --pull=never \
		--ulimit "nofile=$(ulimit -Sn):$(ulimit -Hn)" --ulimit "nproc=$(ulimit -Su):$(ulimit -Hu)" \
		--build-arg BASE=localhost/toa-base --build-arg "KVER=$release" --build-arg "SUITE=$suite" \
		--output "$OUT/out" "$OUT/context"
}

build_and_look() {
	local release=$1 suites suite='' found
	read -ra suites < <(suites_of_kernel)
	if [[ ${suites[-1]} != "${suites[0]}" && ${suites[-1]} != *-security ]]; then
		suite=${suites[-1]}
		suites=("${suites[0]}")
	fi
	rm -rf --one-file-system "$OUT"
	mkdir -p "$OUT"
	stage "base image" "$0" base "${suites[@]}"
	sources | copy_sources "$OUT/context"
	stage "root of buildah" "$SCRIPTS/root.sh" make container
	stage "Containerfile" "$SCRIPTS/root.sh" run container "$0" in-root "$release" "$suite"
	need_host modinfo=kmod
	found=$(modinfo -F vermagic "$OUT/out/toa.ko")
	rm -rf --one-file-system "$OUT"/{store,store-run,base.tar,context}
	[[ ${found%% *} == "$release" ]] || die "its vermagic is '$found', not that of $release"
	info "toa.ko: $found"
}

count() {
	local found release status=0
	found=$("$SCRIPTS/kernel.sh" resolve) || status=$?
	case $status in
	0) ;;
	"$NO_KERNEL") echo "0 passed, 0 failed, 1 skipped" && return ;;
	*) exit "$status" ;;
	esac
	eval "$found"
	mkdir -p "$OUT"
	stage "toa.ko for $release in a container" "$0" one "$release" || status=1
	echo "$((1 - status)) passed, $status failed, 0 skipped"
	return "$status"
}

main() {
	case ${1:-} in
	test) count ;;
	one) build_and_look "$2" ;;
	base) base "${@:2}" ;;
	in-root) build_image "$2" "$3" ;;
	-h | --help | help) usage ;;
	*) usage 1 >&2 ;;
	esac
}

main "$@"
