// SPDX-License-Identifier: GPL-2.0

//! Plots the benchmark's results as bars, in SVG.
//!
//! `toa-plot bench.tsv >cost.svg`. A line of the file is a table's title, a row's name, a column's name
//! and a number, with tabs between them (`tests/guest/src/bench/table.rs`).

use std::collections::BTreeMap;
use std::env;
use std::error::Error;
use std::fs;
use std::process::ExitCode;

use plotters::prelude::*;
use plotters::style::text_anchor::HPos;
use plotters::style::text_anchor::Pos;
use plotters::style::text_anchor::VPos;

/// The rows of the plot, from the top.
const ROWS: [&str; 8] = [
    "getpeername, IPv4 none",
    "getpeername, IPv4 option",
    "accept, IPv4 none",
    "accept, IPv4 option",
    "opening segment, IPv4 timestamps",
    "opening segment, IPv4 option",
    "ACK, accept, close by FIN, IPv4 none",
    "ACK, accept, close by FIN, IPv4 option",
];

/// The columns, each with its colour: of equal lightness, and distinct for the colour-blind.
const COLUMNS: [(&str, RGBColor); 3] = [
    ("toa", RGBColor(0, 114, 178)),
    ("C hook", RGBColor(153, 153, 153)),
    ("eBPF", RGBColor(230, 159, 0)),
];

/// The title of the table that is plotted.
const TABLE: &str = "compared";

const SIZE: (u32, u32) = (900, 640);
const TITLE: &str = "Instructions that a way to show clients adds";

/// The width of the rows' names, in pixels.
const NAMES: i32 = 290;

/// The pixels of a bar, of a row and above the first row.
const BAR: i32 = 18;
const ROW: i32 = 68;
const TOP: i32 = 80;

/// Pixels for the number behind the longest bar.
const NUMBERS: i32 = 70;

type Results = BTreeMap<(String, String), f64>;

fn main() -> ExitCode {
    match run() {
        Ok(svg) => {
            print!("{svg}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("toa-plot: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<String, Box<dyn Error>> {
    let file = env::args()
        .nth(1)
        .ok_or("usage: toa-plot bench.tsv >cost.svg")?;
    let text = fs::read_to_string(&file).map_err(|error| format!("{file}: {error}"))?;
    plot(&parse(&text).map_err(|error| format!("{file}: {error}"))?)
}

fn parse(text: &str) -> Result<Results, Box<dyn Error>> {
    let mut results = Results::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let [title, row, column, number] = fields[..] else {
            return Err(format!("not a title, a row, a column and a number: {line:?}").into());
        };
        if title != TABLE {
            continue;
        }
        let number = number
            .parse()
            .map_err(|error| format!("{line:?}: {error}"))?;
        results.insert((row.to_owned(), column.to_owned()), number);
    }
    Ok(results)
}

fn plot(results: &Results) -> Result<String, Box<dyn Error>> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let text = |size: i32| ("sans-serif", size).into_font().color(&BLACK);
        let at_middle = Pos::new(HPos::Left, VPos::Center);
        area.draw(&Text::new(TITLE, (20, 16), text(20)))?;
        for (at, (column, colour)) in (0..).zip(COLUMNS) {
            let x = NAMES + at * 110;
            area.draw(&Rectangle::new([(x, 48), (x + 14, 62)], colour.filled()))?;
            area.draw(&Text::new(column, (x + 20, 55), text(14).pos(at_middle)))?;
        }
        let most = ROWS
            .iter()
            .flat_map(|row| COLUMNS.map(|(column, _)| number(results, row, column)));
        let most = most.flatten().fold(1.0, f64::max);
        let scale = f64::from(SIZE.0 as i32 - NAMES - NUMBERS) / most;
        for (at, row) in (0..).zip(ROWS) {
            let y = TOP + at * ROW;
            area.draw(&Text::new(
                row,
                (20, y + 3 * BAR / 2),
                text(14).pos(at_middle),
            ))?;
            for (bar, (column, colour)) in (0..).zip(COLUMNS) {
                let Some(number) = number(results, row, column) else {
                    continue;
                };
                let y = y + bar * BAR;
                let end = NAMES + (number.max(0.0) * scale).round() as i32;
                area.draw(&Rectangle::new(
                    [(NAMES, y + 1), (end, y + BAR - 1)],
                    colour.filled(),
                ))?;
                let label = format!("{number:+.0}");
                area.draw(&Text::new(
                    label,
                    (end + 6, y + BAR / 2),
                    text(13).pos(at_middle),
                ))?;
            }
        }
        area.present()?;
    }
    Ok(svg)
}

fn number(results: &Results, row: &str, column: &str) -> Option<f64> {
    results.get(&(row.to_owned(), column.to_owned())).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_has_its_number() {
        let results = parse(
            "compared\taccept, IPv4 option\ttoa\t153\n\
             compared\taccept, IPv4 option\teBPF\t321.4\n\
             10 records\taccept, IPv4 option\ttoa\t999\n",
        );
        let svg = plot(&results.expect("results")).expect("a plot");
        assert!(svg.contains("+153") && svg.contains("+321"), "{svg}");
        assert!(!svg.contains("+0") && !svg.contains("+999"), "{svg}");
    }

    #[test]
    fn a_line_that_lacks_a_number_is_an_error() {
        for text in ["compared\taccept\ttoa", "compared\taccept\ttoa\tmany"] {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
    }
}
