//! Which delivered segments are merged next, and which cuts that are not delivered: pure.
//!
//! Merging costs writes, so each row is rewritten about twice: [`FAN_IN`] files of a day become one as soon as they are
//! there, as many of those become one again, and what is left when the day is over becomes one. What is large already is left
//! alone, and so is a large file with small ones beside it.
//!
//! Cuts have no end of a day to wait for: [`FAN_IN`] neighbours become one, and as many of those one again, until it has
//! [`MAX_ROWS`] rows or files of [`MAX_DATES`] days.

use std::collections::HashSet;

use crate::ledger::{Standing, Waiting};
use crate::model::{Cut, CutNumber, MICROS_PER_SECOND, MIXED, Segment, SegmentName, Timestamp};

/// Files that become one. A day of five-minute cuts is 16 times as many.
pub(super) const FAN_IN: usize = 18;

/// Rows of a merged file at most, and of a merged cut.
const MAX_ROWS: u64 = 1_000_000;

/// A file or a cut with as many rows is large enough.
pub(super) const LARGE_ROWS: u64 = MAX_ROWS / 2;

/// Files that become one of [`MAX_ROWS`] before there are [`FAN_IN`] of them; fewer are not worth the writing.
const FEWEST_FULL: usize = 4;

/// Days that a merged cut has files of at most, as any other.
const MAX_DATES: usize = 32;

/// A day is over when it ended so long ago and nothing new came for as long: late readings are gathered first.
const QUIET_MICROS: i64 = 3600 * MICROS_PER_SECOND;

/// The sources of the next merge in one group: its segments that are here, by cut. Those that are not `usable` stay as they
/// are.
pub(super) fn next(group: &[Standing], usable: impl Fn(&SegmentName) -> bool, now: Timestamp) -> Option<Vec<Segment>> {
    let mergeable = |standing: &Standing| standing.is_delivered && standing.segment.rows < LARGE_ROWS && usable(&standing.segment.name);
    // A merged file holds everything between its cuts, so only neighbours become one.
    let runs = || group.split(|standing| !mergeable(standing)).filter(|run| run.len() > 1);
    let found =
        runs().find_map(|run| of_one_size(run, size, fitting)).or_else(|| if is_over(group, now) { runs().find_map(rest) } else { None });
    found.map(|sources| sources.iter().map(|standing| standing.segment.clone()).collect())
}

/// The cuts of the next merge: neighbours among `cuts`, which are by number, that are all `usable`.
pub(super) fn next_cuts(cuts: &[Waiting], usable: impl Fn(CutNumber) -> bool) -> Option<&[Waiting]> {
    let mergeable = |waiting: &Waiting| rows_of(&waiting.cut) < LARGE_ROWS && usable(waiting.cut.number);
    let runs = cuts.split(|waiting| !mergeable(waiting)).flat_map(|run| run.chunk_by(|a, b| a.cut.is_followed_by(&b.cut)));
    runs.filter(|run| run.len() > 1)
        .find_map(|run| of_one_size(run, |waiting| level(waiting.cut.first_cut, waiting.cut.number), fitting_cuts))
}

fn rows_of(cut: &Cut) -> u64 {
    cut.readings + cut.records
}

/// As many cuts from the start on as one merge takes.
fn fitting_cuts(run: &[Waiting]) -> &[Waiting] {
    let (mut rows, mut dates) = (0, HashSet::new());
    let fitting = run.iter().take(FAN_IN).take_while(|waiting| {
        rows += rows_of(&waiting.cut);
        dates.extend(&waiting.dates);
        rows <= MAX_ROWS && dates.len() <= MAX_DATES
    });
    let count = fitting.count();
    run.get(..count).unwrap_or_default()
}

/// How often what holds these cuts was merged.
fn level(first_cut: CutNumber, cut: CutNumber) -> u32 {
    (cut.saturating_sub(first_cut) + 1).ilog(FAN_IN as u64)
}

fn size(standing: &Standing) -> u32 {
    level(standing.segment.name.first_cut, standing.segment.name.cut)
}

/// The first neighbours of one size that are enough for a merge.
fn of_one_size<T>(run: &[T], size: impl Fn(&T) -> u32, fitting: impl Fn(&[T]) -> &[T]) -> Option<&[T]> {
    run.chunk_by(|a, b| size(a) == size(b)).find_map(|chunk| {
        (0..chunk.len()).find_map(|start| {
            let fitting = fitting(chunk.get(start..)?);
            let is_full = fitting.len() < chunk.len() - start;
            (fitting.len() == FAN_IN || is_full && fitting.len() >= FEWEST_FULL).then_some(fitting)
        })
    })
}

/// As many files from the start on as one merge takes.
fn fitting(run: &[Standing]) -> &[Standing] {
    let mut rows = 0;
    let fits = |standing: &&Standing| {
        rows += standing.segment.rows;
        rows <= MAX_ROWS
    };
    run.get(..run.iter().take(FAN_IN).take_while(fits).count()).unwrap_or_default()
}

/// Nothing more is to come: the day is over, what there is of it is delivered, and nothing was added lately.
fn is_over(group: &[Standing], now: Timestamp) -> bool {
    let then = now.plus_micros(-QUIET_MICROS);
    let today = then.utc_day().to_string();
    group.iter().all(|Standing { segment, sealed, is_delivered }| {
        *is_delivered && *sealed <= then && (segment.name.date == MIXED || segment.name.date < today)
    })
}

/// The longest stretch in which no file has more rows than the others together: a row that is rewritten for it is then in a
/// file at least twice as large.
fn rest(run: &[Standing]) -> Option<&[Standing]> {
    let stretches = (0..run.len()).flat_map(|start| {
        let fitting = run.get(start..).map_or(&[][..], fitting);
        (2..=fitting.len()).filter_map(|length| fitting.get(..length))
    });
    let balanced = |stretch: &&[Standing]| {
        let rows = || stretch.iter().map(|standing| standing.segment.rows);
        rows().max().unwrap_or(0) * 2 <= rows().sum()
    };
    stretches.filter(balanced).max_by_key(|stretch| stretch.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Day, Digest, FileKind, MICROS_PER_DAY};

    /// 2026-11-20T00:00:00Z.
    const TODAY: Day = Day(20_777);

    /// The cut `number` of `day`, one every five minutes, merged from `first` on.
    fn file(day: Day, first: u64, number: u64, rows: u64) -> Standing {
        let sealed = day.start().plus_micros(number as i64 * 300 * MICROS_PER_SECOND);
        let name = SegmentName::new(FileKind::Readings, Some(day), "00000000000000aa".parse().unwrap(), number);
        let name = SegmentName { first_cut: first, ..name };
        let (first_seq, last_seq, min_time, max_time) = (1, rows, sealed, sealed);
        let segment = Segment { name, bytes: rows * 5, sha256: Digest::of(b""), rows, first_seq, last_seq, min_time, max_time };
        Standing { segment, sealed, is_delivered: true }
    }

    fn files(rows: &[u64]) -> Vec<Standing> {
        (1..).zip(rows).map(|(number, rows)| file(TODAY, number, number, *rows)).collect()
    }

    fn late(day: Day) -> Timestamp {
        day.start().plus_micros(30 * MICROS_PER_DAY)
    }

    /// The first and last cut and the count of the next merge's sources.
    fn planned(group: &[Standing], now: Timestamp) -> Option<(u64, u64, usize)> {
        let sources = next(group, |_| true, now)?;
        Some((sources.first()?.name.first_cut, sources.last()?.name.cut, sources.len()))
    }

    /// Merges until nothing is left to do; how many rows were written.
    fn run(group: &mut Vec<Standing>, now: Timestamp) -> u64 {
        let mut written = 0;
        while let Some(sources) = next(group, |_| true, now) {
            let rows = sources.iter().map(|source| source.rows).sum();
            let merged = file(TODAY, sources.first().unwrap().name.first_cut, sources.last().unwrap().name.cut, rows);
            let place = group.iter().position(|standing| merged.segment.name.holds(&standing.segment.name)).unwrap();
            group.drain(place..place + sources.len());
            group.insert(place, merged);
            written += rows;
        }
        written
    }

    #[test]
    fn a_day_of_five_minute_cuts_becomes_one_file_and_each_row_is_written_twice() {
        let (mut group, mut written, mut most) = (Vec::new(), 0, 0);
        for cut in 1..=288 {
            group.push(file(TODAY, cut, cut, 300));
            written += run(&mut group, TODAY.start().plus_micros(cut as i64 * 300 * MICROS_PER_SECOND));
            most = most.max(group.len());
        }
        assert!(most < 2 * FAN_IN, "{most} files");
        written += run(&mut group, late(TODAY));
        assert_eq!((group.len(), group[0].segment.rows, written), (1, 288 * 300, 2 * 288 * 300));
    }

    #[test]
    fn a_day_of_any_number_of_cuts_becomes_few_files_and_each_row_is_written_a_few_times() {
        for cuts in [2, 17, 18, 19, 100, 289, 324, 325, 700, 1440, 2880] {
            let mut group: Vec<_> = (1..=cuts).map(|cut| file(TODAY, cut, cut, 100)).collect();
            let written = run(&mut group, late(TODAY));
            assert!(group.len() <= 3 && written <= 4 * cuts * 100, "{cuts} cuts: {} files, {written} rows", group.len());
        }
    }

    #[test]
    fn before_the_day_is_over_and_quiet_only_a_full_set_is_merged() {
        let group = files(&[10; FAN_IN - 1]);
        let last = group.last().unwrap().sealed;
        assert_eq!(planned(&group, last), None);
        // Sealed long ago, on the same day; and just sealed, on another.
        assert_eq!(planned(&group, TODAY.start().plus_micros(MICROS_PER_DAY - 1)), None);
        let mut touched = group.clone();
        touched[3].sealed = late(TODAY);
        assert_eq!(planned(&touched, late(TODAY)), None);
        assert_eq!(planned(&group, late(TODAY)), Some((1, 17, 17)));
        assert_eq!(planned(&files(&[10; FAN_IN]), last), Some((1, 18, 18)));
    }

    #[test]
    fn what_is_not_delivered_stays_and_what_is_beside_it_is_not_merged_across_it() {
        let mut group = files(&[10; 25]);
        group[6].is_delivered = false;
        assert_eq!(planned(&group, late(TODAY)), Some((8, 25, 18)));
        group.truncate(20);
        assert_eq!(planned(&group, late(TODAY)), None, "the day is not over as long as something of it is not delivered");
        let mut left_alone = files(&[10; 19]);
        assert!(next(&left_alone, |name| name.cut != 10, late(TODAY)).is_some_and(|sources| sources.len() == 9));
        left_alone.truncate(1);
        assert_eq!(planned(&left_alone, late(TODAY)), None);
    }

    #[test]
    fn no_merged_file_has_more_rows_than_it_may_and_large_ones_stay() {
        let group = files(&[250_000; 6]);
        assert_eq!(planned(&group, group[5].sealed), Some((1, 4, 4)));
        assert_eq!(planned(&files(&[400_000; 6]), TODAY.start()), None);
        assert_eq!(planned(&files(&[400_000; 2]), late(TODAY)), Some((1, 2, 2)));
        assert_eq!(planned(&files(&[500_000, 600_000, 900_000]), late(TODAY)), None);
    }

    #[test]
    fn a_few_late_rows_do_not_rewrite_a_large_file() {
        assert_eq!(planned(&files(&[100_000, 10]), late(TODAY)), None);
        assert_eq!(planned(&files(&[100_000, 10, 10, 20]), late(TODAY)), Some((2, 4, 3)));
        assert_eq!(planned(&files(&[10, 100_000, 10, 60_000, 50_000]), late(TODAY)), Some((1, 5, 5)));
    }

    #[test]
    fn stragglers_of_many_days_are_merged_when_nothing_new_comes() {
        let mut group = files(&[10, 10, 10]);
        group.iter_mut().for_each(|standing| standing.segment.name.date = MIXED.to_owned());
        assert_eq!(planned(&group, group[2].sealed), None);
        assert_eq!(planned(&group, group[2].sealed.plus_micros(QUIET_MICROS)), Some((1, 3, 3)));
    }

    /// The cut `number`, with `rows` readings above those of the one before, that were taken on `days`.
    fn waiting(number: CutNumber, rows: u64, days: &[Day]) -> Waiting {
        let (first_seq, last_seq) = ((number - 1) * rows + 1, number * rows);
        let instance = "00000000000000aa".parse().unwrap();
        let (sealed, state) = (TODAY.start(), crate::model::CutState::Sealed);
        let cut = Cut { instance, number, first_cut: number, first_seq, last_seq, readings: rows, records: 0, sealed, state };
        Waiting { cut, dates: days.iter().map(Day::to_string).collect() }
    }

    /// Merges until nothing is left to do; how many rows were written.
    fn run_cuts(cuts: &mut Vec<Waiting>) -> u64 {
        let mut written = 0;
        while let Some(sources) = next_cuts(cuts, |_| true).map(<[_]>::to_vec) {
            let (first, last) = (sources.first().unwrap(), sources.last().unwrap());
            let readings = sources.iter().map(|source| source.cut.readings).sum();
            let dates: std::collections::BTreeSet<_> = sources.iter().flat_map(|source| source.dates.clone()).collect();
            assert!(readings <= MAX_ROWS && dates.len() <= MAX_DATES);
            let cut = Cut { first_cut: first.cut.first_cut, first_seq: first.cut.first_seq, readings, ..last.cut.clone() };
            let place = cuts.iter().position(|waiting| waiting.cut.number == first.cut.number).unwrap();
            cuts.splice(place..place + sources.len(), [Waiting { cut, dates: dates.into_iter().collect() }]);
            written += readings;
        }
        written
    }

    /// Files of a year of cuts of `seconds`, with `rate` readings a second, and how often each row was written again.
    fn year(seconds: u64, rate: u64) -> (usize, f64) {
        let (mut cuts, mut written, per_cut) = (Vec::new(), 0, seconds * rate);
        let day_of = |number: u64| Day((number * seconds / 86_400) as i64);
        let all = 365 * 86_400 / seconds;
        for number in 1..=all {
            let (begin, end) = (day_of(number - 1), day_of(number));
            let days = if begin == end { &[begin][..] } else { &[begin, end] };
            cuts.push(waiting(number, per_cut, days));
            if number % FAN_IN as u64 == 0 {
                written += run_cuts(&mut cuts);
            }
        }
        (cuts.iter().map(|waiting| waiting.dates.len()).sum(), written as f64 / (all * per_cut) as f64)
    }

    #[test]
    fn a_year_that_nobody_ships_becomes_some_hundreds_of_files_and_each_row_is_written_a_few_times() {
        for (seconds, rate) in [(3600, 1), (3600, 10), (300, 1), (300, 10)] {
            let (files, times) = year(seconds, rate);
            assert!(files < 900 && times < 3.0, "cuts of {seconds} s, {rate} a second: {files} files, rows written {times} times");
        }
    }

    #[test]
    fn only_neighbours_become_one_cut() {
        let mut cuts: Vec<_> = (1..=20).map(|number| waiting(number, 10, &[TODAY])).collect();
        let span = |cuts: &[Waiting]| Some((cuts.first()?.cut.number, cuts.last()?.cut.number));
        assert_eq!(next_cuts(&cuts, |_| true).and_then(span), Some((1, 18)));
        assert_eq!(next_cuts(&cuts, |cut| cut != 2).and_then(span), Some((3, 20)));
        assert_eq!(next_cuts(&cuts, |cut| cut != 3), None);
        // One was dropped, tried or delivered; and of another seqs are missing.
        cuts.remove(4);
        assert_eq!(next_cuts(&cuts, |_| true), None);
        let mut cuts: Vec<_> = (1..=20).map(|number| waiting(number, 10, &[TODAY])).collect();
        cuts[9].cut.first_seq += 1;
        assert_eq!(next_cuts(&cuts, |_| true), None);
        // What is large stays.
        let large: Vec<_> = (1..=20).map(|number| waiting(number, LARGE_ROWS, &[TODAY])).collect();
        assert_eq!(next_cuts(&large, |_| true), None);
    }

    #[test]
    fn a_merged_cut_has_no_more_rows_and_days_than_it_may() {
        let large: Vec<_> = (1..=9).map(|number| waiting(number, 240_000, &[TODAY])).collect();
        assert_eq!(next_cuts(&large, |_| true).map(<[_]>::len), Some(4));
        let of_days = |days: i64| -> Vec<_> {
            (1..=18).map(|number| waiting(number, 10, &(0..days).map(|day| Day(number as i64 * days + day)).collect::<Vec<_>>())).collect()
        };
        assert_eq!(next_cuts(&of_days(1), |_| true).map(<[_]>::len), Some(18));
        assert_eq!(next_cuts(&of_days(5), |_| true).map(<[_]>::len), Some(6));
        assert_eq!(next_cuts(&of_days(12), |_| true), None, "fewer are not worth it");
        // A clock that is always wrong gives every cut a day more, and the same one.
        let wrong: Vec<_> = (1..=18).map(|number| waiting(number, 10, &[Day(0), TODAY])).collect();
        assert_eq!(next_cuts(&wrong, |_| true).map(<[_]>::len), Some(18));
    }
}
