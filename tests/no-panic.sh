#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Checks that the module's pure files cannot panic.
#
#   no-panic.sh
#
# Run it as `scripts/root.sh run tools tests/no-panic.sh`. The files are
# compiled as the kernel compiles them: optimized, with checks for overflow.
# The object file may call only functions that move or format memory. A panic, even one
# in a function of `core`, would leave an undefined symbol.

. "$(dirname "$0")/../scripts/lib.sh"
shopt -s inherit_errexit

# The functions that the compiler itself calls.
readonly MEMORY='^(memcpy|memmove|memset|memcmp|bcmp)$'

# The formatting of core, which check-object.sh checks in modules.
readonly FORMATTING='4core3fmt|core\.\.fmt'

# undefined NAME: compiles the crate on standard input and prints the undefined
# symbols of its object file.
undefined() {
	rustc --edition 2021 --crate-type rlib --crate-name "$1" --emit "obj=$TMP/$1.o" \
		-C opt-level=2 -C overflow-checks=on -C debug-assertions=off -C codegen-units=1 \
		-C panic=abort -C relocation-model=static -D warnings -A dead_code -A private_interfaces -
	nm --undefined-only --just-symbols "$TMP/$1.o" | grep -vE "$MEMORY|$FORMATTING" || true
}

# pure_files: prints a crate that calls each function that the module calls.
pure_files() {
	cat <<-RUST
		#![no_std]
		#[path = "$REPO/endpoint.rs"]
		mod endpoint;
		#[path = "$REPO/kinds.rs"]
		mod kinds;
		#[path = "$REPO/option.rs"]
		mod option;
		#[path = "$REPO/prefixes.rs"]
		mod prefixes;
		#[path = "$REPO/shares.rs"]
		mod shares;
		#[path = "$REPO/syntax.rs"]
		mod syntax;

		use core::net::{Ipv4Addr, Ipv6Addr};
		use endpoint::{Connection, Endpoint};

		#[no_mangle]
		pub fn find_client(options: &[u8], port: &mut u16) -> u128 {
		    let parsed = option::find_client(options, &kinds::Default, option::Pick::First);
		    let client = match parsed.claim {
		        Some(option::Claim::Client(client)) => client,
		        _ => Endpoint::new(Ipv6Addr::UNSPECIFIED, parsed.claim.is_some() as u16),
		    };
		    *port = client.port();
		    client.address().to_bits() ^ parsed.duplicate as u128 ^ parsed.malformed as u128
		}

		#[no_mangle]
		pub fn find_by_rules(options: &[u8], rules: &kinds::Rules, last: bool) -> bool {
		    let pick = if last { option::Pick::Last } else { option::Pick::First };
		    option::find_client(options, rules, pick).malformed
		}

		#[no_mangle]
		pub fn rules(text: &[u8], rules: &mut kinds::Rules) -> usize {
		    match kinds::Rules::parse(text) {
		        Ok(parsed) => *rules = parsed,
		        Err(refusal) => return refusal.column,
		    }
		    rules.is_default() as usize
		}

		#[no_mangle]
		pub fn line(bytes: &[u8], offset: i64) -> usize {
		    syntax::line(bytes, offset, prefixes::MAX_TEXT).map_or(0, |line| line.len())
		}

		#[no_mangle]
		pub fn insert_prefixes(line: &[u8], sorted: &mut [prefixes::Range]) -> usize {
		    let prefixes::Text::Set(all) = prefixes::parse(line) else {
		        return 0;
		    };
		    for prefix in all {
		        match prefix {
		            Ok(prefix) => _ = prefixes::insert(sorted, prefix.range()),
		            Err(refusal) => return refusal.column,
		        }
		    }
		    prefixes::Merged::new(sorted).len()
		}

		#[no_mangle]
		pub fn contains(set: prefixes::Set, address: Ipv6Addr) -> bool {
		    set.contains(address)
		}

		#[no_mangle]
		pub fn shares(max: i64) -> [i64; 4] {
		    let shares = shares::Shares::of(max);
		    [shares.all, shares.others, shares.each, shares.foreign]
		}

		#[no_mangle]
		pub fn endpoint_v4(address: Ipv4Addr, port: u16) -> Option<Ipv4Addr> {
		    Endpoint::from_v4(address, port).address_v4()
		}

		#[no_mangle]
		pub fn same(a: [Ipv6Addr; 4], b: [u16; 4]) -> bool {
		    let end = |i: usize| Endpoint::new(a[i & 3], b[i & 3]);
		    let one = Connection { local: end(0), peer: end(1) };
		    one == Connection { local: end(2), peer: end(3) }
		}
	RUST
}

# control BODY: prints a crate whose function panics. The check must find it.
control() {
	cat <<-RUST
		#![no_std]
		#[no_mangle]
		pub fn control(list: &[u8]) -> $1
	RUST
}

main() {
	local found panic
	case ${1:-} in
	'') ;;
	-h | --help | help) usage ;;
	*) usage 1 >&2 ;;
	esac
	TMP=$(mktemp -d)
	trap 'rm -rf "$TMP"' EXIT

	for panic in 'u8 { list[7] }' 'u8 { list[0] + 1 }' '&[u8] { &list[2..] }' \
		'u8 { *list.first().unwrap() }'; do
		found=$(control "$panic" | undefined control)
		[[ -n $found ]] || die "the check finds no panic in: $panic"
	done
	found=$(pure_files | undefined pure)
	[[ -z $found ]] || die "a pure file may panic: they call ${found//$'\n'/ }"
	info "the pure files cannot panic"
}

main "$@"
