//! Topic aliases: numbers that a sensor lets stand for topics, as long as its connection lasts (MQTT 5, 3.3.2.3.4).

use std::sync::Arc;

use super::error::End;
use super::packet::PacketError;

/// The greatest alias: a sensor that repeats itself has a handful of topics.
pub(super) const GREATEST: u16 = 32;

/// Bytes of all topics that have an alias. Far more than sensors need, and little for a thousand connections.
const MAX_BYTES: usize = 16 << 10;

/// The aliases of one connection.
#[derive(Debug, Default)]
pub(super) struct Aliases {
    /// Place `alias - 1`.
    topics: Vec<Option<Arc<str>>>,
    bytes: usize,
}

impl Aliases {
    /// The topic of a message that came with this topic, which is empty where only the alias says it.
    ///
    /// # Errors
    /// An alias out of range, or that stands for nothing; more than is remembered.
    pub(super) fn resolve(&mut self, topic: Arc<str>, alias: Option<u16>) -> Result<Arc<str>, End> {
        let Some(alias) = alias else { return Ok(topic) };
        let place = usize::from(alias.checked_sub(1).filter(|place| *place < GREATEST).ok_or(PacketError::TopicAlias(alias))?);
        if topic.is_empty() {
            return self.topics.get(place).cloned().flatten().ok_or(End::UnknownAlias(alias));
        }
        if self.topics.len() <= place {
            self.topics.resize(place + 1, None);
        }
        let Some(known) = self.topics.get_mut(place) else { return Err(End::UnknownAlias(alias)) };
        self.bytes = self.bytes - known.as_ref().map_or(0, |before| before.len()) + topic.len();
        if self.bytes > MAX_BYTES {
            return Err(End::LongAliases);
        }
        *known = Some(Arc::clone(&topic));
        Ok(topic)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_stands_for_the_topic_it_came_with_last() {
        let mut aliases = Aliases::default();
        let mut resolve = |topic: &str, alias| aliases.resolve(topic.into(), alias).map(|topic| topic.to_string()).map_err(drop);
        assert_eq!(resolve("a", None), Ok("a".to_owned()));
        assert_eq!(resolve("", Some(3)), Err(()));
        assert_eq!(resolve("b", Some(3)), Ok("b".to_owned()));
        assert_eq!(resolve("", Some(3)), Ok("b".to_owned()));
        assert_eq!(resolve("", Some(2)), Err(()));
        assert_eq!(resolve("c", Some(3)), Ok("c".to_owned()));
        assert_eq!(resolve("", Some(3)), Ok("c".to_owned()));
    }

    #[test]
    fn aliases_are_bounded_in_number_and_in_bytes() {
        let mut aliases = Aliases::default();
        for alias in [0, GREATEST + 1, u16::MAX] {
            let refused = aliases.resolve("t".into(), Some(alias));
            assert!(matches!(refused, Err(End::Packet(PacketError::TopicAlias(found))) if found == alias));
        }
        let topic: Arc<str> = "t".repeat(MAX_BYTES / 2).into();
        for _ in 0..100 {
            aliases.resolve(Arc::clone(&topic), Some(GREATEST)).unwrap();
        }
        aliases.resolve(Arc::clone(&topic), Some(1)).unwrap();
        assert!(matches!(aliases.resolve("t".into(), Some(2)), Err(End::LongAliases)));
    }
}
