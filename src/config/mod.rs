//! Settings as plain data: one section a room, of the same name.

mod check;
mod load;
mod sections;
mod template;
mod units;

pub use load::{DEFAULT_PATH, Loaded, Problem, Problems, load, parse};
pub use sections::{
    Api, Config, Engine, Gateway, Ingest, Journal, Listener, Log, LogTarget, Mqtt, Order, RetainedPolicy, Retention, Route, Segment,
    TimeFormat, Upstream, WhenFull,
};
pub use template::DEFAULT_FILE;
pub use units::{ByteSize, Period};
