//! Reason codes of MQTT 5, and what 3.1.1 has for them.

/// Why something is as it is. MQTT 5, 2.4; those that we use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(in crate::ingest::listener) enum Reason {
    /// All is well.
    Success = 0x00,
    /// There was nothing to unsubscribe from.
    NoSubscription = 0x11,
    /// The bytes are no packet.
    Malformed = 0x81,
    /// A packet that may not be, or not there.
    Protocol = 0x82,
    /// This server does not do that.
    NotDone = 0x83,
    /// Another version of MQTT.
    Version = 0x84,
    /// A client id that can't be taken.
    ClientId = 0x85,
    /// Unknown user, or wrong password.
    BadCredentials = 0x86,
    /// Nobody may who says nothing of himself.
    NotAuthorised = 0x87,
    /// Something is not to be had just now.
    Unavailable = 0x88,
    /// Too many others are here.
    Busy = 0x89,
    /// The daemon stops.
    Stopping = 0x8b,
    /// There is no such method of authentication here.
    AuthMethod = 0x8c,
    /// Nothing came within the keep-alive.
    KeepAlive = 0x8d,
    /// Another connection came with the same client id.
    TakenOver = 0x8e,
    /// A topic that can't be.
    Topic = 0x90,
    /// No message is held under that packet id.
    UnknownId = 0x92,
    /// More messages under way than announced.
    TooManyUnderWay = 0x93,
    /// A topic alias out of range.
    TopicAlias = 0x94,
    /// A packet longer than announced.
    TooLong = 0x95,
    /// A limit that was set here.
    Quota = 0x97,
    /// A message that can't be decoded.
    Payload = 0x99,
    /// Shared subscriptions.
    Shared = 0x9e,
    /// Subscription identifiers.
    SubscriptionIds = 0xa1,
    /// Subscriptions with wildcards.
    Wildcards = 0xa2,
}

impl Reason {
    /// As on the wire.
    pub(in crate::ingest::listener) fn code(self) -> u8 {
        self as u8
    }

    /// Whether what was asked for did not happen.
    pub(in crate::ingest::listener) fn is_error(self) -> bool {
        self.code() >= 0x80
    }
}
