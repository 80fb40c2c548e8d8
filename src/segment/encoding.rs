//! How the values of a file are encoded: tried on a sample, the smallest wins.
//!
//! Measured: values that a sensor rounds to decimals are three times smaller plain (or as a dictionary) than with their
//! bytes split; noise of the full mantissa is smaller split. The two can't be told apart by a look, so each is tried.

use std::collections::HashMap;

use arrow::array::{Array, Float64Array};
use parquet::basic::Encoding;
use parquet::file::metadata::ColumnChunkMetaData;

/// Consecutive values taken at one place, so that runs and repeats show.
const RUN: usize = 1024;

/// Places of the file that are sampled; 32,768 values cost a few milliseconds.
const RUNS: usize = 32;

/// zstd's fastest level: the order of the candidates is the same at any.
const TRIAL_LEVEL: i32 = 1;

/// How the column `value` is written, before zstd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ValueEncoding {
    /// Each different value once, and the places.
    Dictionary,
    /// Eight bytes a value.
    Plain,
    /// All first bytes, then all second bytes, and so on.
    Split,
}

impl ValueEncoding {
    pub(super) const ALL: [Self; 3] = [Self::Dictionary, Self::Plain, Self::Split];

    /// How the values of `chunk` were written.
    pub(super) fn of(chunk: &ColumnChunkMetaData) -> Self {
        let has = |encoding| chunk.encodings().any(|found| found == encoding);
        match () {
            () if has(Encoding::BYTE_STREAM_SPLIT) => Self::Split,
            () if has(Encoding::RLE_DICTIONARY) => Self::Dictionary,
            () => Self::Plain,
        }
    }
}

/// The best encoding for `values`, in the order in which `order` names their rows.
pub(super) fn choose(values: &Float64Array, order: &[u32]) -> ValueEncoding {
    let sample = sample(values, order);
    let candidates =
        [(ValueEncoding::Plain, plain(&sample)), (ValueEncoding::Dictionary, dictionary(&sample)), (ValueEncoding::Split, split(&sample))];
    let sized = candidates.into_iter().map(|(encoding, bytes)| (encoding, compressed(&bytes)));
    sized.min_by_key(|(_, bytes)| *bytes).map_or(ValueEncoding::Plain, |(encoding, _)| encoding)
}

fn sample(values: &Float64Array, order: &[u32]) -> Vec<u64> {
    let stride = (order.len() / RUNS).max(RUN);
    let rows = order.chunks(stride).flat_map(|part| part.iter().take(RUN));
    let bits = rows.filter_map(|row| {
        let row = *row as usize;
        (row < values.len() && values.is_valid(row)).then(|| values.value(row).to_bits())
    });
    bits.collect()
}

fn plain(sample: &[u64]) -> Vec<u8> {
    sample.iter().flat_map(|bits| bits.to_le_bytes()).collect()
}

fn split(sample: &[u64]) -> Vec<u8> {
    (0..8).flat_map(|byte| sample.iter().map(move |bits| (bits >> (8 * byte)) as u8)).collect()
}

/// The different values, then the places packed to as few bits as they need.
fn dictionary(sample: &[u64]) -> Vec<u8> {
    let mut places = HashMap::new();
    let mut words = Vec::new();
    let indexes: Vec<u64> = sample
        .iter()
        .map(|bits| {
            *places.entry(*bits).or_insert_with(|| {
                words.push(*bits);
                words.len() as u64 - 1
            })
        })
        .collect();
    let width = u64::BITS - (words.len() as u64).saturating_sub(1).leading_zeros();
    let mut bytes = plain(&words);
    let (mut pending, mut filled) = (0_u64, 0);
    for index in indexes {
        pending |= index << filled;
        filled += width;
        while filled >= 8 {
            bytes.push(pending as u8);
            pending >>= 8;
            filled -= 8;
        }
    }
    bytes.push(pending as u8);
    bytes
}

fn compressed(bytes: &[u8]) -> usize {
    zstd::bulk::compress(bytes, TRIAL_LEVEL).map_or(usize::MAX, |bytes| bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A deterministic noise in 0..1 with all 52 bits of the mantissa in use.
    fn noise(count: usize) -> impl Iterator<Item = f64> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        (0..count).map(move |_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) as f64 / (1_u64 << 53) as f64
        })
    }

    fn best(values: impl Iterator<Item = f64>) -> ValueEncoding {
        let values: Float64Array = values.map(Some).collect();
        choose(&values, &(0..values.len() as u32).collect::<Vec<_>>())
    }

    #[test]
    fn noise_of_the_full_mantissa_is_split() {
        assert_eq!(best(noise(50_000).map(|value| 20.0 + value)), ValueEncoding::Split);
    }

    #[test]
    fn values_that_a_sensor_rounds_are_not_split() {
        let rounded = noise(50_000).map(|value| (2000.0 + value * 300.0).round() / 100.0);
        assert_ne!(best(rounded), ValueEncoding::Split);
    }

    #[test]
    fn few_different_values_make_a_dictionary() {
        assert_eq!(best(noise(50_000).map(|value| (value * 16.0).floor() * 1.234_567)), ValueEncoding::Dictionary);
    }

    #[test]
    fn a_file_without_values_has_an_encoding_too() {
        assert_eq!(best(std::iter::empty()), ValueEncoding::Plain);
        let nulls: Float64Array = vec![None; 10].into();
        choose(&nulls, &(0..10).collect::<Vec<_>>());
    }
}
