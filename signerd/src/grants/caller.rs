//! Who a grant is for.

use std::{fmt, str::FromStr};

use signer_core::Error;

use crate::identity::{self, Identity};

/// A caller as the configuration names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallerPattern {
    /// `user:alice`
    User(String),
    /// `uid:1000`
    Uid(u32),
    /// `group:release`: as the primary or a supplementary group.
    Group(String),
    /// `gid:1000`
    Gid(u32),
    /// `any`: whoever may open the socket.
    Any,
}

/// The same, with names resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallerRule {
    Uid(u32),
    Gid(u32),
    Any,
    /// A name that nobody has.
    Nobody,
}

impl CallerPattern {
    pub(super) fn resolve(&self, warnings: &mut Vec<String>) -> CallerRule {
        match self {
            Self::Any => CallerRule::Any,
            Self::Uid(uid) => CallerRule::Uid(*uid),
            Self::Gid(gid) => CallerRule::Gid(*gid),
            Self::User(name) => identity::uid_of(name).map_or_else(
                || {
                    warnings
                        .push(format!("no user is called {name:?}: grants for user:{name} are for nobody"));
                    CallerRule::Nobody
                },
                CallerRule::Uid,
            ),
            Self::Group(name) => identity::gid_of(name).map_or_else(
                || {
                    warnings
                        .push(format!("no group is called {name:?}: grants for group:{name} are for nobody"));
                    CallerRule::Nobody
                },
                CallerRule::Gid,
            ),
        }
    }

    /// The identity of such a caller, for `signerd explain`.
    pub fn identity(&self) -> Result<Identity, Error> {
        let unknown = |what: &str, name: &str| Error::bad_request(format!("no {what} is called {name:?}"));
        match self {
            Self::User(name) => Identity::of_user(name).ok_or_else(|| unknown("user", name)),
            Self::Uid(uid) => Ok(Identity::of_uid(*uid)),
            Self::Group(name) => {
                Ok(Identity::of_group(identity::gid_of(name).ok_or_else(|| unknown("group", name))?))
            }
            Self::Gid(gid) => Ok(Identity::of_group(*gid)),
            Self::Any => Ok(Identity::anybody()),
        }
    }
}

impl CallerRule {
    pub(super) fn matches(self, caller: &Identity) -> bool {
        match self {
            Self::Uid(uid) => caller.uid() == Some(uid),
            Self::Gid(gid) => caller.is_in(gid),
            Self::Any => true,
            Self::Nobody => false,
        }
    }
}

impl FromStr for CallerPattern {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let number = |n: &str| {
            n.parse()
                .ok()
                .filter(|n| *n != u32::MAX)
                .ok_or_else(|| Error::bad_request(format!("{text:?} lacks a number")))
        };
        let bad = || {
            Error::bad_request(format!("{text:?} is not a caller"))
                .next("write user:NAME, uid:NUMBER, group:NAME, gid:NUMBER or any")
        };
        match text.split_once(':') {
            None if text == "any" => Ok(Self::Any),
            Some((_, "")) => Err(bad()),
            Some(("user", name)) => Ok(Self::User(name.to_owned())),
            Some(("uid", n)) => Ok(Self::Uid(number(n)?)),
            Some(("group", name)) => Ok(Self::Group(name.to_owned())),
            Some(("gid", n)) => Ok(Self::Gid(number(n)?)),
            _ => Err(bad()),
        }
    }
}

impl fmt::Display for CallerPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(name) => write!(f, "user:{name}"),
            Self::Uid(uid) => write!(f, "uid:{uid}"),
            Self::Group(name) => write!(f, "group:{name}"),
            Self::Gid(gid) => write!(f, "gid:{gid}"),
            Self::Any => f.write_str("any"),
        }
    }
}
