//! Sets of operations and of algorithms, as grants name them.

use std::{
    fmt,
    ops::{BitOr, BitOrAssign},
    str::FromStr,
};

use signer_core::{Error, SignatureAlgorithm};

use super::Glob;

/// A set of operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operations(u16);

/// Name, and what a sentence says before the key's name.
const OPERATIONS: [(&str, &str); 9] = [
    ("list", "see"),
    ("sign", "sign with"),
    ("create", "create"),
    ("import", "import"),
    ("delete", "delete"),
    ("rotate", "rotate"),
    ("certificate", "store a certificate beside"),
    ("unlock", "unlock"),
    ("watch", "watch"),
];

impl Operations {
    /// None.
    pub const NONE: Self = Self(0);
    /// To know that a key exists. Every other operation on the key includes it.
    pub const LIST: Self = Self(1);
    /// To sign.
    pub const SIGN: Self = Self(1 << 1);
    /// To make a key of that name.
    pub const CREATE: Self = Self(1 << 2);
    /// To bring a key of that name in.
    pub const IMPORT: Self = Self(1 << 3);
    /// To destroy a key.
    pub const DELETE: Self = Self(1 << 4);
    /// To make a new version.
    pub const ROTATE: Self = Self(1 << 5);
    /// To store a certificate beside a key.
    pub const CERTIFICATE: Self = Self(1 << 6);
    /// To give the PIN of the key's backend.
    pub const UNLOCK: Self = Self(1 << 7);
    /// To be told what happens to the key's backend.
    pub const WATCH: Self = Self(1 << 8);
    /// All of them: `"*"`.
    pub const ALL: Self = Self((1 << OPERATIONS.len()) - 1);

    /// Whether the two sets have one in common.
    pub fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// The name of a single operation.
    pub fn name(self) -> &'static str {
        OPERATIONS.get(self.0.trailing_zeros() as usize).map_or("none", |(name, _)| name)
    }

    /// What a sentence says of a single operation, before the key's name: "sign with".
    pub fn verb(self) -> &'static str {
        OPERATIONS.get(self.0.trailing_zeros() as usize).map_or("use", |(_, verb)| verb)
    }
}

impl BitOr for Operations {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Operations {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl FromStr for Operations {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if text == "*" {
            return Ok(Self::ALL);
        }
        OPERATIONS.iter().position(|(name, _)| *name == text).map(|n| Self(1 << n)).ok_or_else(|| {
            let names: Vec<_> = OPERATIONS.iter().map(|(name, _)| *name).collect();
            Error::bad_request(format!("no operation is called {text:?}"))
                .next(format!("use one of {}, or \"*\" for all", names.join(", ")))
        })
    }
}

impl fmt::Display for Operations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::ALL {
            return f.write_str("*");
        }
        let names = OPERATIONS.iter().enumerate().filter(|(n, _)| self.0 & (1 << n) != 0);
        f.write_str(&names.map(|(_, (name, _))| *name).collect::<Vec<_>>().join(", "))
    }
}

/// A set of algorithms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlgorithmSet(u16);

impl AlgorithmSet {
    /// None.
    pub const NONE: Self = Self(0);
    /// All.
    pub const ALL: Self = Self((1 << SignatureAlgorithm::ALL.len()) - 1);

    /// Whether it is in the set.
    pub fn contains(self, algorithm: SignatureAlgorithm) -> bool {
        SignatureAlgorithm::ALL.iter().position(|a| *a == algorithm).is_some_and(|n| self.0 & (1 << n) != 0)
    }

    /// Whether there is none in it.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl BitOr for AlgorithmSet {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for AlgorithmSet {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl FromStr for AlgorithmSet {
    type Err = Error;

    /// An algorithm's name, or a pattern that fits some: `rsa-pss-*`.
    fn from_str(text: &str) -> Result<Self, Error> {
        let glob = Glob::new(text);
        let fitting = SignatureAlgorithm::ALL.iter().enumerate().filter(|(_, a)| glob.matches(a.name()));
        let set = fitting.fold(Self::NONE, |set, (n, _)| set | Self(1 << n));
        if set.is_empty() {
            let names = SignatureAlgorithm::ALL.map(SignatureAlgorithm::name).join(", ");
            return Err(Error::bad_request(format!("no signature algorithm fits {text:?}"))
                .next(format!("there are {names}")));
        }
        Ok(set)
    }
}

impl fmt::Display for AlgorithmSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::ALL {
            return f.write_str("any algorithm");
        }
        let names: Vec<_> = SignatureAlgorithm::ALL
            .into_iter()
            .filter(|a| self.contains(*a))
            .map(SignatureAlgorithm::name)
            .collect();
        f.write_str(&names.join(", "))
    }
}
