// SPDX-License-Identifier: GPL-2.0

//! The results, one number for each row and subject.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;

use crate::bench::subject::Subject;

/// The file of the results, for the plot (`tests/plot`).
const FILE: &str = "/toa/out/bench.tsv";

/// The subjects that have a column.
const COLUMNS: [Subject; 3] = [Subject::Toa, Subject::Overwrite, Subject::Ebpf];

/// Rows of one kind, in the order of their first measurement, each with the numbers of each column. A
/// subject that is measured more often has more numbers.
#[derive(Default)]
pub struct Table {
    rows: Vec<(String, BTreeMap<String, Vec<f64>>)>,
}

/// Prints the heads of the columns.
pub fn print_head() {
    println!(
        "\nInstructions, the program's own included; drift is the most by which turns without anything \
         differ.\n"
    );
    let titles = COLUMNS.map(|subject| format!("{:>9}", subject.to_string()));
    println!(
        "{:<60} {:>9} {:>7}{}",
        "",
        "nothing",
        "drift",
        titles.concat()
    );
}

impl Table {
    pub fn add(&mut self, row: &str, subject: Subject, instructions: f64) {
        let at = match self.rows.iter().position(|(name, _)| name == row) {
            Some(at) => at,
            None => {
                self.rows.push((row.to_owned(), BTreeMap::new()));
                self.rows.len() - 1
            }
        };
        let columns = &mut self.rows[at].1;
        columns
            .entry(subject.to_string())
            .or_default()
            .push(instructions);
    }

    /// Prints the rows under their title: the instructions without anything, and what each subject adds.
    /// Appends the same to [`FILE`].
    pub fn print(&self, title: &str) {
        println!("\n{title}");
        let mut file = File::options().create(true).append(true).open(FILE);
        let mut write = |row: &str, column: &str, number: f64| {
            let line = format!("{title}\t{row}\t{column}\t{number}\n");
            let file = file
                .as_mut()
                .unwrap_or_else(|error| panic!("{FILE}: {error}"));
            file.write_all(line.as_bytes())
                .expect("room for the results");
        };
        for (row, columns) in &self.rows {
            let nothing = &columns[&Subject::Nothing.to_string()];
            let base = middle(nothing);
            let drift = spread(nothing);
            print!("  {row:<58} {base:>9.0} {drift:>7.0}");
            write(row, "nothing", base);
            write(row, "drift", drift);
            for subject in COLUMNS.map(|subject| subject.to_string()) {
                match columns.get(&subject) {
                    Some(numbers) => {
                        let added = middle(numbers) - base;
                        print!("{added:>+9.0}");
                        write(row, &subject, added);
                    }
                    None => print!("{:>9}", "-"),
                }
            }
            println!();
        }
    }
}

/// Returns the median.
fn middle(numbers: &[f64]) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    match sorted.len() % 2 {
        0 => (sorted[half - 1] + sorted[half]) / 2.0,
        _ => sorted[half],
    }
}

fn spread(numbers: &[f64]) -> f64 {
    let greatest = numbers.iter().copied().fold(f64::MIN, f64::max);
    greatest - numbers.iter().copied().fold(f64::MAX, f64::min)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_keeps_the_numbers_of_all_turns() {
        let mut table = Table::default();
        for number in [10.0, 14.0, 11.0] {
            table.add("close", Subject::Nothing, number);
        }
        table.add("close", Subject::Toa, 31.0);
        let [(row, columns)] = &table.rows[..] else {
            panic!("one row");
        };
        assert_eq!(row, "close");
        assert_eq!(
            (middle(&columns["nothing"]), spread(&columns["nothing"])),
            (11.0, 4.0)
        );
        assert_eq!(columns["toa"], [31.0]);
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_two() {
        assert_eq!(middle(&[4.0, 1.0, 100.0, 2.0]), 3.0);
    }
}
