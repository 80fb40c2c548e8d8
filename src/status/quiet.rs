//! A bound on what one place in the code can write to the log: a fault that repeats a thousand times a second must neither
//! fill a card nor push everything else out of the journal.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// Lines of one place within a window; debugging is asked for, and not bounded.
const LINES: u32 = 30;

const WINDOW: Duration = Duration::from_secs(60);

/// Counts lines by the place they come from. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Quiet {
    places: Arc<Mutex<HashMap<Identifier, Place>>>,
}

/// As many as there are log statements, and so bounded.
#[derive(Debug)]
struct Place {
    began: Instant,
    lines: u32,
    name: &'static str,
    left_out: u64,
}

impl Quiet {
    /// Whether one more line of this place may be written.
    fn admits(&self, place: Identifier, name: &'static str, now: Instant) -> bool {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let place = places.entry(place).or_insert(Place { began: now, lines: 0, name, left_out: 0 });
        if now.saturating_duration_since(place.began) >= WINDOW {
            (place.began, place.lines) = (now, 0);
        }
        place.lines += 1;
        let admitted = place.lines <= LINES;
        place.left_out += u64::from(!admitted);
        admitted
    }

    /// How many lines were left out since the last question, and the place that most of them are of.
    fn take_left_out(&self) -> Option<(u64, &'static str)> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let loudest = places.values().max_by_key(|place| place.left_out)?.name;
        let count = places.values_mut().map(|place| std::mem::take(&mut place.left_out)).sum();
        (count > 0).then_some((count, loudest))
    }

    /// Says once a window how many lines were left out, for ever.
    pub async fn tell(self) {
        loop {
            tokio::time::sleep(WINDOW).await;
            if let Some((count, place)) = self.take_left_out() {
                tracing::warn!(count, place, "log lines were left out because they came too fast; the place wrote most of them");
            }
        }
    }
}

impl<S: Subscriber> Layer<S> for Quiet {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        *metadata.level() > Level::INFO || self.admits(metadata.callsite(), metadata.target(), Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    struct Count(Arc<AtomicU32>);

    impl<S: Subscriber> Layer<S> for Count {
        fn on_event(&self, _: &Event<'_>, _: Context<'_, S>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_place_that_repeats_itself_is_cut_short_and_the_others_are_heard() {
        let (quiet, lines) = (Quiet::default(), Arc::new(AtomicU32::new(0)));
        let subscriber = tracing_subscriber::registry().with(quiet.clone()).with(Count(Arc::clone(&lines)));
        tracing::subscriber::with_default(subscriber, || {
            (0..LINES + 70).for_each(|_| tracing::warn!("the card is slow"));
            tracing::info!("another place");
            (0..100).for_each(|_| tracing::debug!("asked for"));
        });
        assert_eq!(lines.load(Ordering::Relaxed), LINES + 1 + 100);
        assert_eq!(quiet.take_left_out(), Some((70, module_path!())));
        assert_eq!(quiet.take_left_out(), None);
    }

    #[test]
    fn a_new_window_begins_with_nothing_said() {
        let (quiet, begun) = (Quiet::default(), Instant::now());
        let place = tracing::Metadata::callsite;
        let subscriber = tracing_subscriber::registry();
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::info_span!("place");
            let place = place(span.metadata().unwrap());
            assert_eq!((0..LINES + 5).filter(|_| quiet.admits(place.clone(), "place", begun)).count() as u32, LINES);
            assert!(quiet.admits(place, "place", begun + WINDOW));
        });
    }
}
