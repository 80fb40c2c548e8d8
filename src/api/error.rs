//! What goes wrong at the doors themselves.

use std::io;
use std::path::PathBuf;

use crate::error::ErrorKind;
use crate::tls::TlsError;

/// A door can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// A setting that can't be followed.
    #[error("{0}")]
    Config(String),
    /// Certificates or keys.
    #[error("api: {0}")]
    Tls(#[from] TlsError),
    /// Another daemon answers on the socket.
    #[error("another daemon answers on {}", .0.display())]
    Taken(PathBuf),
    /// An address or path can't be bound.
    #[error("can't listen on {place}")]
    Bind {
        /// The address or path.
        place: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl ApiError {
    /// What to do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Config(_) => ErrorKind::Config,
            Self::Tls(error) => error.kind(),
            Self::Taken(_) | Self::Bind { .. } => ErrorKind::Broken,
        }
    }

    pub(super) fn bind(place: impl ToString) -> impl FnOnce(io::Error) -> Self {
        let place = place.to_string();
        move |source| Self::Bind { place, source }
    }
}
