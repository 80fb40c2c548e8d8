//! Sets of seqs as closed ranges: what is whole takes one range, however much it is.

/// A set of numbers as disjoint closed ranges, in order, none touching the next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RangeSet {
    ranges: Vec<(u64, u64)>,
}

impl RangeSet {
    /// Appends a range that begins at or after the last one's begin.
    fn push(&mut self, first: u64, last: u64) {
        match self.ranges.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = (*end).max(last),
            _ => self.ranges.push((first, last)),
        }
    }

    /// Adds `first` through `last`; nothing if `last < first`.
    pub fn insert(&mut self, first: u64, last: u64) {
        if last < first {
            return;
        }
        // All that overlap or touch become one.
        let from = self.ranges.partition_point(|(_, end)| end.saturating_add(1) < first);
        let until = self.ranges.partition_point(|(begin, _)| *begin <= last.saturating_add(1));
        let merged = self.ranges.get(from..until).unwrap_or_default().iter().fold((first, last), |(a, b), (c, d)| (a.min(*c), b.max(*d)));
        self.ranges.splice(from..until, [merged]);
    }

    /// Adds all of `other`.
    pub fn extend(&mut self, other: &Self) {
        for (first, last) in &other.ranges {
            self.insert(*first, *last);
        }
    }

    /// What is in both.
    pub fn intersection(&self, other: &Self) -> Self {
        let mut both = Self::default();
        let (mut ours, mut theirs) = (self.ranges.iter().peekable(), other.ranges.iter().peekable());
        while let (Some((a, b)), Some((c, d))) = (ours.peek(), theirs.peek()) {
            let (first, last) = (*a.max(c), *b.min(d));
            if first <= last {
                both.push(first, last);
            }
            if b < d {
                ours.next()
            } else {
                theirs.next()
            };
        }
        both
    }

    /// What is in this and not in `other`.
    pub fn difference(&self, other: &Self) -> Self {
        let mut rest = Self::default();
        let mut theirs = other.ranges.iter().peekable();
        for (first, last) in &self.ranges {
            let mut next = *first;
            while theirs.next_if(|(_, end)| *end < *first).is_some() {}
            let mut covered = theirs.clone();
            while let Some((begin, end)) = covered.next_if(|(begin, _)| *begin <= *last) {
                if *begin > next {
                    rest.push(next, begin - 1);
                }
                next = next.max(end.saturating_add(1));
            }
            if next <= *last {
                rest.push(next, *last);
            }
        }
        rest
    }

    /// The part from `first` through `last`.
    pub fn within(&self, first: u64, last: u64) -> Self {
        let mut window = Self::default();
        window.insert(first, last);
        self.intersection(&window)
    }

    /// Whether `number` is in it.
    pub fn contains(&self, number: u64) -> bool {
        let place = self.ranges.partition_point(|(_, end)| *end < number);
        self.ranges.get(place).is_some_and(|(begin, _)| *begin <= number)
    }

    /// The ranges, in order.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        self.ranges.iter().copied()
    }

    /// How many numbers.
    pub fn count(&self) -> u64 {
        self.ranges.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The highest number; 0 if there is none.
    pub fn last(&self) -> u64 {
        self.ranges.last().map_or(0, |(_, last)| *last)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn from_sorted(numbers: impl IntoIterator<Item = u64>) -> RangeSet {
        let mut set = RangeSet::default();
        numbers.into_iter().for_each(|number| set.push(number, number));
        set
    }

    fn ranges(set: &RangeSet) -> Vec<(u64, u64)> {
        set.iter().collect()
    }

    #[test]
    fn what_overlaps_or_touches_becomes_one_range() {
        let mut set = RangeSet::default();
        for (first, last) in [(10, 20), (30, 40), (21, 21), (5, 4), (1, 3), (22, 29)] {
            set.insert(first, last);
        }
        assert_eq!(ranges(&set), [(1, 3), (10, 40)]);
        assert_eq!(set.count(), 34);
    }

    #[test]
    fn every_operation_agrees_with_a_plain_set() {
        let mut dice = 1_u64;
        let mut roll = || {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            dice >> 33
        };
        for _ in 0..500 {
            let mut sets = [RangeSet::default(), RangeSet::default()];
            let mut plain = [BTreeSet::new(), BTreeSet::new()];
            for _ in 0..8 {
                let (which, first, length) = ((roll() % 2) as usize, roll() % 40, roll() % 6);
                sets[which].insert(first, first + length);
                plain[which].extend(first..=first + length);
            }
            let [a, b] = &sets;
            let [p, q] = &plain;
            let expect = |numbers: BTreeSet<u64>| from_sorted(numbers);
            assert_eq!(*a, expect(p.clone()));
            assert_eq!(a.intersection(b), expect(p & q));
            assert_eq!(a.difference(b), expect(p - q));
            assert_eq!(a.count(), p.len() as u64);
            assert!((0..50).all(|number| a.contains(number) == p.contains(&number)));
            let mut all = a.clone();
            all.extend(b);
            assert_eq!(all, expect(p | q));
        }
    }

    #[test]
    fn the_highest_number_is_no_edge() {
        let mut set = RangeSet::default();
        set.insert(u64::MAX, u64::MAX);
        set.insert(1, 2);
        assert_eq!(ranges(&set.difference(&from_sorted([1]))), [(2, 2), (u64::MAX, u64::MAX)]);
    }
}
