// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tests of the parsers with damaged files, values and arguments: no parser panics, and messages about
//! them have printable characters only.

use proptest::prelude::*;
use proptest::sample::Index;

use crate::connections;
use crate::filter::Filter;
use crate::output;
use crate::output::Side;
use crate::output::Table;
use crate::policy;
use crate::policy::Assignment;
use crate::policy::Setting;
use crate::policy::Trusted;
use crate::sockets;
use crate::stats::Stats;

/// A server's files.
const FILES: &[&str] = &[
    include_str!("../tests/hosts/server/proc/net/toa"),
    include_str!("../tests/hosts/server/proc/net/toa_stats"),
    include_str!("../tests/hosts/server/proc/net/tcp"),
    include_str!("../tests/hosts/server/proc/net/tcp6"),
];

/// Values of the policy, filters and options.
const VALUES: &[&str] = &[
    "10.0.1.0/28, fd00:0:0:1::/124",
    "254,253/20:client6 200:client4-noport",
    "none",
    "enabled kinds own_addresses",
    "168028",
    "client 203.0.113.0/24 balancer [fd00::1]:443 :8080 port 80",
    "254/8",
];

/// Pieces that terminals and parsers treat in a special way.
const PIECES: &[&str] = &[
    "\u{1b}[2J",
    "\u{1b}]0;x\u{7}",
    "\u{9b}",
    "\u{202e}",
    "\u{301}",
    "\0",
    "\r",
    "\n",
    "é",
    "データ",
    "\u{3164}",
    "::",
    ":",
    "/",
    ",",
    "-1",
    "18446744073709551616",
    "FFFF",
    "%eth0",
];

/// A piece in place of some bytes.
type Damage = (Index, usize, String);

fn damage() -> impl Strategy<Value = Damage> {
    let piece = prop_oneof![
        prop::sample::select(PIECES).prop_map(str::to_owned),
        any::<char>().prop_map(String::from),
        Just(String::new()),
    ];
    (any::<Index>(), 0..6_usize, piece)
}

/// A text, damaged at some places. As in files, bytes that are no UTF-8 are replaced.
fn damaged(texts: &'static [&'static str]) -> impl Strategy<Value = String> {
    let damages = prop::collection::vec(damage(), 0..5);
    (prop::sample::select(texts), damages).prop_map(|(text, damages)| {
        let mut bytes = text.as_bytes().to_vec();
        for (place, length, piece) in damages {
            let start = place.index(bytes.len() + 1);
            let end = bytes.len().min(start + length);
            bytes.splice(start..end, piece.into_bytes());
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Checks a message as it is printed.
fn is_one_line(message: &str) -> bool {
    !output::printable(message).contains(char::is_control)
}

proptest! {
    #[test]
    fn damaged_files_are_read_or_name_their_line(text in damaged(FILES)) {
        let lines = text.lines().count();
        let wrong = [
            connections::parse(&text).err(),
            Stats::parse(&text).err(),
            sockets::parse(&text, false).err(),
            sockets::parse(&text, true).err(),
        ];
        for line in wrong.into_iter().flatten() {
            // The line after the last one is the one that is missing.
            prop_assert!((1..=lines + 1).contains(&line), "{line} of {lines}");
        }
        // The names of rows are printed.
        for (row, _) in Stats::parse(&text).unwrap_or_default().rows {
            prop_assert_eq!(output::printable(&row), row);
        }
    }

    #[test]
    fn damaged_values_are_refused_or_become_printable(text in damaged(VALUES)) {
        for setting in Setting::ALL {
            match Assignment::new(setting, &text) {
                // The module's form is also the form of the module's form.
                Ok(assignment) => {
                    prop_assert_eq!(&output::printable(&assignment.value), &assignment.value);
                    let again = Assignment::new(setting, &assignment.value);
                    prop_assert_eq!(again.map(|again| again.value), Ok(assignment.value));
                }
                Err(reason) => prop_assert!(is_one_line(&reason), "{reason:?}"),
            }
        }
        let words: Vec<String> = text.split(' ').map(str::to_owned).collect();
        let reasons = [
            Trusted::parse(&text).err(),
            policy::parse_kinds(&text).err(),
            policy::parse_prefix(&text).err(),
            policy::parse_option(&text).err(),
            Filter::parse(&words).err(),
        ];
        for reason in reasons.into_iter().flatten() {
            prop_assert!(is_one_line(&reason), "{reason:?}");
        }
    }

    #[test]
    fn tables_of_any_texts_fit_each_terminal(
        cells in prop::collection::vec(damaged(VALUES), 1..12),
        width in 20..200_usize,
    ) {
        let mut table = Table::new(&[Side::Left, Side::Right, Side::Left]);
        for row in cells.chunks(3) {
            table.row(row.iter().map(|cell| output::printable(cell)));
        }
        let mut text = String::new();
        table.cut(Some(width)).write(&mut text, None);
        for line in text.lines() {
            prop_assert!(output::columns_of(line) <= width, "{line}");
            prop_assert!(!line.contains(char::is_control), "{line:?}");
        }
    }
}
