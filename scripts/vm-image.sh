#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Makes the disks of the virtual machine, except for the kernel's.
#
#   vm-image.sh guest [ROOT]        makes the user land's image, from the root guest
#                                   or ROOT; prints its path
#   vm-image.sh payload DIR IMAGE   makes an image of DIR's files
#   vm-image.sh unpack IMAGE DIR    copies /out of a payload image into DIR

. "$(dirname "$0")/lib.sh"
shopt -s inherit_errexit

# Makes the image of a guest root once.
guest() {
	local name=$1 key recipe dir
	key=$("$SCRIPTS/root.sh" key "$name")
	recipe=$(cat "$0" "$SCRIPTS/guest/init" | sha256sum | cut -c1-8)
	dir=$TOA_CACHE/images/$key-$recipe
	locked "$name-image" entry "$dir" guest_image "$name"
	touch "$dir"
	forget_unused "${dir%/*}" '*'
	echo "$dir/guest.ext4"
}

guest_image() {
	local name=$1 dir=$2 root
	mkdir -p "$dir"
	root=$("$SCRIPTS/root.sh" path "$name")
	"$SCRIPTS/root.sh" run "$TOOLS" "$SCRIPTS/vm-image.sh" write-guest "$root" "$dir/guest.ext4"
}

# Runs in the tools root.
write_guest() {
	local root=$1 image=$2
	mkdir -p "$root/toa" "$root/usr/lib/modules"
	rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/usr/share/{doc,man,locale,info}
	install -m 755 "$SCRIPTS/guest/init" "$root/usr/sbin/toa-init"
	write_ext4 "$root" "$image" 64
}

# write_ext4 DIRECTORY IMAGE SPARE: makes the image, with SPARE MB free.
write_ext4() {
	local mega
	mega=$(($(du -sm --apparent-size "$1" | cut -f1) * 6 / 5 + $3))
	rm -f "$2.new"
	mke2fs -q -t ext4 -O ^has_journal -m 0 -E root_owner=0:0 -d "$1" "$2.new" "${mega}M"
	mv "$2.new" "$2"
}

unpack() {
	mkdir -p "$2"
	debugfs -R "rdump /out $2" "$1" 2>/dev/null
}

main() {
	case ${1:-} in
	guest) guest "${2:-guest}" ;;
	write-guest) write_guest "$2" "$3" ;;
	payload) write_ext4 "$2" "$3" 256 ;;
	unpack) unpack "$2" "$3" ;;
	-h | --help | help) usage ;;
	*) usage 1 >&2 ;;
	esac
}

main "$@"
