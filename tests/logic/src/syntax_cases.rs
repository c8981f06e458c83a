// SPDX-License-Identifier: GPL-2.0

//! Tests of the frame and the items of a sysctl's value.

use crate::prefixes::MAX_TEXT;
use crate::syntax;
use crate::syntax::Class;
use crate::syntax::Items;
use proptest::prelude::*;

/// The class of a refused write at offset 0, or the line's length.
fn framed(bytes: &[u8]) -> Result<usize, Class> {
    let line = syntax::line(bytes, 0, MAX_TEXT);
    line.map(<[u8]>::len).map_err(|refusal| refusal.class)
}

#[test]
fn line_is_the_write_without_its_newline() {
    assert_eq!(syntax::line(b"1\n", 0, 127), Ok(&b"1"[..]));
    assert_eq!(syntax::line(b"1", 0, 127), Ok(&b"1"[..]));
    assert_eq!(syntax::line(b"", 0, 127), Ok(&b""[..]));
    assert_eq!(syntax::line(b"\n", 0, 127), Ok(&b""[..]));
}

#[test]
fn write_at_another_offset_is_a_part() {
    for offset in [1, 1024, -1] {
        let refusal = syntax::line(b"1\n", offset, 127).unwrap_err();
        assert_eq!(refusal.class, Class::Part, "{offset}");
    }
}

#[test]
fn line_of_more_than_1023_bytes_needs_its_newline() {
    let line = [b'1'; 1024];
    assert_eq!(framed(&line[..1023]), Ok(1023));
    assert_eq!(framed(&line), Err(Class::Part));
    let terminated = [&line[..], b"\n"].concat();
    assert_eq!(framed(&terminated), Ok(1024));
}

#[test]
fn line_beyond_its_limit_is_too_long() {
    let mut line = vec![b' '; MAX_TEXT];
    line.push(b'\n');
    assert_eq!(framed(&line), Ok(MAX_TEXT));
    line.insert(0, b' ');
    assert_eq!(framed(&line), Err(Class::TooLong));
    let refusal = syntax::line(b"12345\n", 0, 4).unwrap_err();
    assert_eq!((refusal.class, refusal.column), (Class::TooLong, 5));
}

#[test]
fn items_have_the_columns_of_their_first_bytes() {
    let items: Vec<_> = Items::new(b" a,bc ,\t d,").collect();
    assert_eq!(items, [(2, &b"a"[..]), (4, b"bc"), (10, b"d")]);
    assert_eq!(Items::new(b" ,, \t").next(), None);
}

/// A newline within a value would let a part of it end like a whole.
#[test]
fn newline_separates_no_items() {
    let items: Vec<_> = Items::new(b"a\nb").collect();
    assert_eq!(items, [(1, &b"a\nb"[..])]);
}

#[test]
fn numbers_have_neither_signs_nor_leading_zeros() {
    let numbers = [
        ("0", Some(0)),
        ("10", Some(10)),
        ("4294967295", Some(u32::MAX)),
    ];
    let no_numbers = [
        "",
        "00",
        "01",
        "+1",
        "-1",
        "1 ",
        "0x1",
        "4294967296",
        "99999999999",
    ];
    let rows = numbers
        .into_iter()
        .chain(no_numbers.map(|text| (text, None)));
    for (text, number) in rows {
        assert_eq!(syntax::number(text.as_bytes()), number, "{text}");
    }
}

#[test]
fn only_item_of_a_line_has_no_other_beside_it() {
    assert_eq!(syntax::only(b" first "), Some(&b"first"[..]));
    assert_eq!(syntax::only(b"first last"), None);
    assert_eq!(syntax::only(b" "), None);
}

proptest! {
    #[test]
    fn no_beginning_of_a_long_line_is_a_value(line in "[0-9a-f.:/, ]{1024,5000}", cut in 1024..5000_usize) {
        let cut = cut.min(line.len());
        prop_assert_eq!(framed(&line.as_bytes()[..cut]), Err(Class::Part));
    }

    #[test]
    fn items_are_those_of_a_split(line in "[a-c, \t]{0,30}") {
        let items: Vec<_> = Items::new(line.as_bytes()).map(|(_, item)| item.to_vec()).collect();
        let split: Vec<_> = line
            .split([',', ' ', '\t'])
            .filter(|item| !item.is_empty())
            .map(|item| item.as_bytes().to_vec())
            .collect();
        prop_assert_eq!(items, split);
        for (column, item) in Items::new(line.as_bytes()) {
            prop_assert_eq!(&line.as_bytes()[column - 1..][..item.len()], item);
        }
    }
}
