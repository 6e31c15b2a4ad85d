//! Who may bind, by the kernel's word: decided before anything of a peer's is taken.

use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use urpc_donate::{Credentials, PeerProcess};

use crate::error::{Error, ErrorKind, Result};

/// As whom the kernel shows a user that has no number in this namespace.
pub(crate) const UNMAPPED: u32 = 65_534;

/// Which processes may bind: those of the same user, or, once there are rules, those that one of them allows.
/// Nobody else, and nobody of whom the kernel does not say who it is.
#[derive(Clone, Default)]
pub(crate) struct Allow(Vec<Rule>);

#[derive(Clone)]
enum Rule {
    Users(Vec<u32>),
    Groups(Vec<u32>),
    If(Arc<dyn Fn(Credentials) -> bool + Send + Sync>),
}

impl Rule {
    fn allows(&self, credentials: Credentials) -> bool {
        match self {
            Self::Users(uids) => is_known(credentials) && uids.contains(&credentials.uid),
            Self::Groups(gids) => is_known(credentials) && gids.contains(&credentials.gid),
            // One that panics allows nobody, and ends no thread of ours.
            Self::If(allowed) => {
                catch_unwind(AssertUnwindSafe(|| allowed(credentials))).unwrap_or(false)
            }
        }
    }
}

/// Neither such a user, nor one of whom the kernel says nothing. Where all users have numbers, that one is somebody's.
fn is_known(credentials: Credentials) -> bool {
    credentials.uid != UNMAPPED || credentials.pid != 0 && all_have_numbers()
}

/// Whether this is a namespace of all users.
fn all_have_numbers() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map");
    map.is_ok_and(|map| map.split_whitespace().eq(["0", "0", "4294967295"]))
}

impl Allow {
    pub(crate) fn users(&mut self, uids: impl IntoIterator<Item = u32>) {
        self.0.push(Rule::Users(uids.into_iter().collect()));
    }

    pub(crate) fn groups(&mut self, gids: impl IntoIterator<Item = u32>) {
        self.0.push(Rule::Groups(gids.into_iter().collect()));
    }

    pub(crate) fn when(&mut self, allowed: impl Fn(Credentials) -> bool + Send + Sync + 'static) {
        self.0.push(Rule::If(Arc::new(allowed)));
    }

    fn allows(&self, credentials: Credentials) -> bool {
        if self.0.is_empty() {
            let own = rustix::process::geteuid().as_raw();
            return is_known(credentials) && credentials.uid == own;
        }
        self.0.iter().any(|rule| rule.allows(credentials))
    }

    /// Asks the kernel who is at the other end, and whether that may be.
    pub(crate) fn check(&self, socket: impl AsFd) -> Result<PeerProcess> {
        let credentials = Credentials::of(socket).map_err(|error| {
            let why = format!("the kernel does not say who it is: {error}");
            Error::new(ErrorKind::NotAllowed, why)
        })?;
        self.admit(credentials)
    }

    /// Whether it may be who the kernel says it is.
    pub(crate) fn admit(&self, credentials: Credentials) -> Result<PeerProcess> {
        if self.allows(credentials) {
            return Ok(PeerProcess::of(credentials));
        }
        let Credentials { pid, uid, gid } = credentials;
        Err(Error::new(
            ErrorKind::NotAllowed,
            format!("process {pid} of user {uid}, group {gid}, is not allowed here"),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_is_named_is_allowed() {
        let own = rustix::process::geteuid().as_raw();
        let of = |uid, gid| Credentials { pid: 1, uid, gid };
        let mut allow = Allow::default();
        assert!(allow.allows(of(own, 7)) && !allow.allows(of(own + 1, 7)));
        allow.users([]);
        assert!(!allow.allows(of(own, 7)), "an empty list names nobody");
        allow.users([own + 1, own + 2]);
        assert!(!allow.allows(of(own, 7)) && allow.allows(of(own + 2, 7)));
        allow.groups([8, 9]);
        assert!(allow.allows(of(own, 9)) && !allow.allows(of(own, 7)));
        allow.when(|credentials| match credentials.uid {
            77 => panic!("and allows nobody"),
            uid => uid == 78,
        });
        assert!(!allow.allows(of(77, 0)) && allow.allows(of(78, 0)));

        let unknown = Credentials {
            pid: 0,
            ..of(UNMAPPED, UNMAPPED)
        };
        let mut allow = Allow::default();
        allow.users([UNMAPPED]);
        allow.groups([UNMAPPED]);
        assert_eq!(allow.allows(of(UNMAPPED, 7)), all_have_numbers());
        assert!(!allow.allows(unknown));
        allow.when(|credentials| credentials.pid == 0);
        assert!(allow.allows(unknown));
    }
}
