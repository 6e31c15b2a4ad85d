//! What a generated client is made of: a peer, and the signatures that the client was built for.
//!
//! Signatures are compared once, method by method, before anything is sent: a method that differs fails
//! with both texts, and the others work.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::call::Call;
use crate::error::{CallError, CallErrorKind, Error, ErrorKind, Executed, Result};
use crate::peer::Peer;
use crate::wire::printable;

/// What a generated client is made of: a peer and the procedures it was built for.
#[derive(Clone)]
pub struct Stub {
    peer: Peer,
    procedures: Arc<[Known]>,
}

/// A procedure a client was built for, and what the peer has under its name.
struct Known {
    name: &'static str,
    number: Option<u16>,
    /// What differs, if something does.
    differs: Option<String>,
}

impl Stub {
    /// Connects to `name`, and checks that it offers what this client was built for.
    ///
    /// # Errors
    /// If it cannot be bound, or if a signature differs.
    pub async fn connect(
        name: &str,
        procedures: &'static [(&'static str, &'static str)],
    ) -> Result<Self> {
        let peer = crate::connect(name).await?;
        let stub = Self::on(&peer, procedures);
        stub.check()?;
        Ok(stub)
    }

    /// A client of another service on the channel of `peer`.
    #[must_use]
    pub fn on(peer: &Peer, procedures: &'static [(&'static str, &'static str)]) -> Self {
        let offered = &peer.binding().offered;
        let known = procedures.iter().map(|&(name, expected)| {
            let number = offered.find(name);
            let found = number.map_or("", |number| offered.signature(number));
            // A free-form procedure has no signature, and takes what decodes.
            let differs = (!found.is_empty() && found != expected).then(|| {
                let found = printable(found);
                format!("this client was built for `{expected}`, and the peer has `{found}`")
            });
            Known {
                name,
                number,
                differs,
            }
        });
        Self {
            peer: peer.clone(),
            procedures: known.collect(),
        }
    }

    /// Whether the peer offers every procedure with the very signature this client was built for.
    ///
    /// # Errors
    /// One that names each procedure that is missing or differs.
    pub fn check(&self) -> Result<()> {
        let wrong: Vec<String> = self
            .procedures
            .iter()
            .filter_map(|known| match (&known.differs, known.number) {
                (Some(differs), _) => Some(differs.clone()),
                (None, None) => Some(format!("the peer has no `{}`", known.name)),
                (None, Some(_)) => None,
            })
            .collect();
        if wrong.is_empty() {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::SignatureMismatch,
            format!(
                "`{}` is not what this client was built for: {}",
                self.peer.name(),
                wrong.join("; ")
            ),
        ))
    }

    /// The peer.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Calls the procedure of this index in the list the stub was made with.
    pub fn call<A: Serialize, R: DeserializeOwned>(&self, index: usize, arguments: A) -> Call<R> {
        let known = &self.procedures[index];
        if let Some(differs) = &known.differs {
            let kind = CallErrorKind::SignatureMismatch;
            let error = CallError::new(kind, Executed::No, differs.clone());
            return self.peer.failed(known.name, error);
        }
        self.peer.start(known.number, known.name, &arguments)
    }
}

impl fmt::Debug for Stub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.peer.fmt(f)
    }
}
