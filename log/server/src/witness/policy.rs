//! Who has to cosign: the text form of C2SP `tlog-policy`.
//!
//! ```text
//! log <vkey> [<url>]
//! witness <name> <vkey> [<url>]
//! group <name> <threshold|any|all> <member>…
//! quorum <name>|none
//! ```

use std::collections::{BTreeSet, HashMap};

use reqwest::Url;
use signer_core::{Error, Result};
use signer_log_engine::{NoteKey, NoteKind};

use crate::fetch;

/// A policy: its witnesses, and which of them are enough.
#[derive(Debug)]
pub(super) struct Policy {
    /// The verifier keys of logs that it is for; empty for any.
    pub(super) logs: Vec<NoteKey>,
    pub(super) witnesses: Vec<Witness>,
    quorum: Quorum,
}

#[derive(Debug)]
pub(super) struct Witness {
    pub(super) name: String,
    pub(super) key: NoteKey,
    pub(super) url: Option<Url>,
}

#[derive(Clone, Debug)]
enum Quorum {
    /// Enough without anybody.
    Nobody,
    One(usize),
    Some(usize, Vec<Quorum>),
}

impl Quorum {
    fn met(&self, signed: &BTreeSet<usize>) -> bool {
        match self {
            Self::Nobody => true,
            Self::One(at) => signed.contains(at),
            Self::Some(threshold, members) => members.iter().filter(|m| m.met(signed)).count() >= *threshold,
        }
    }
}

impl Policy {
    /// Reads a policy. Every line is understood, or it is an error that names it.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let mut this = Self { logs: Vec::new(), witnesses: Vec::new(), quorum: Quorum::Nobody };
        let mut names: HashMap<String, Quorum> = HashMap::new();
        let mut quorum = None;
        for (number, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            let words: Vec<_> = line.split_whitespace().collect();
            let wrong = |what: String| {
                Error::bad_request(format!("line {} of the witness policy: {what}", number + 1)).next(
                    "lines are: log VKEY [URL], witness NAME VKEY [URL], group NAME COUNT|any|all MEMBER…, quorum NAME|none",
                )
            };
            let is_free = |names: &HashMap<String, Quorum>, name: &str| {
                if name == "none" || names.contains_key(name) {
                    return Err(wrong(format!("{name:?} is there twice, or cannot be a name")));
                }
                Ok(())
            };
            let address = |url: Option<&&str>| url.map(|url| fetch::url(url)).transpose();
            match &words[..] {
                [] => {}
                ["log", vkey, url @ ..] if url.len() <= 1 => {
                    address(url.first()).map_err(|e| wrong(e.what().to_owned()))?;
                    this.logs.push(NoteKey::from_vkey(vkey).map_err(|e| wrong(e.what().to_owned()))?);
                }
                ["witness", name, vkey, url @ ..] if url.len() <= 1 => {
                    let key = NoteKey::from_vkey(vkey).map_err(|e| wrong(e.what().to_owned()))?;
                    if key.kind() != NoteKind::Cosignature {
                        return Err(wrong(format!("the key of {name} is not one for cosignatures (type 4)")));
                    }
                    is_free(&names, name)?;
                    names.insert((*name).to_owned(), Quorum::One(this.witnesses.len()));
                    let url = address(url.first()).map_err(|e| wrong(e.what().to_owned()))?;
                    this.witnesses.push(Witness { name: (*name).to_owned(), key, url });
                }
                ["group", name, threshold, members @ ..] if !members.is_empty() => {
                    let threshold = match *threshold {
                        "any" => 1,
                        "all" => members.len(),
                        number => {
                            number.parse().ok().filter(|n| (1..=members.len()).contains(n)).ok_or_else(
                                || wrong(format!("{number:?} of {} members cannot be", members.len())),
                            )?
                        }
                    };
                    let member = |member: &&str| {
                        names.get(*member).cloned().ok_or_else(|| {
                            wrong(format!("{member:?} has to be defined before it is in a group"))
                        })
                    };
                    let members = members.iter().map(member).collect::<Result<Vec<_>>>()?;
                    is_free(&names, name)?;
                    names.insert((*name).to_owned(), Quorum::Some(threshold, members));
                }
                ["quorum", name] => {
                    let meaning = match *name {
                        "none" => Quorum::Nobody,
                        name => names
                            .get(name)
                            .cloned()
                            .ok_or_else(|| wrong(format!("{name:?} has to be defined before")))?,
                    };
                    if quorum.replace(meaning).is_some() {
                        return Err(wrong("there is a quorum already".to_owned()));
                    }
                }
                _ => return Err(wrong(format!("{line:?} is not understood"))),
            }
        }
        this.quorum = quorum.ok_or_else(|| {
            Error::bad_request("the witness policy has no quorum")
                .next("end it with \"quorum NAME\", or \"quorum none\" to publish without any witness, too")
        })?;
        Ok(this)
    }

    /// Whether these have signed enough, by their places in the list.
    pub(super) fn is_met(&self, signed: &BTreeSet<usize>) -> bool {
        self.quorum.met(signed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "one.example+8c3a8c0f+BAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

    fn key(name: &str) -> String {
        let key = signer_core::PublicKey::from_raw(signer_core::KeyType::Ed25519, &[9; 32]).unwrap();
        NoteKey::new(name, NoteKind::Cosignature, key).unwrap().to_vkey().unwrap()
    }

    #[test]
    fn groups_are_counted() {
        let (a, b, c) = (key("a.example"), key("b.example"), key("c.example"));
        let text = format!(
            "# three of them\nwitness a {a} https://a.example/w\nwitness b {b} http://127.0.0.1:1\nwitness c {c}\n\
             group two 2 a b c\ngroup both all two a # and a\nquorum both\n"
        );
        let policy = Policy::parse(&text).unwrap();
        assert_eq!(policy.witnesses.len(), 3);
        let met = |signed: &[usize]| policy.is_met(&signed.iter().copied().collect());
        assert!(met(&[0, 1]) && met(&[0, 2]) && met(&[0, 1, 2]));
        assert!(!met(&[]) && !met(&[0]) && !met(&[1, 2]));
        assert!(Policy::parse("quorum none").unwrap().is_met(&BTreeSet::new()));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let a = key("a.example");
        for bad in [
            String::new(),
            format!("witness a {a}"),
            format!("witness a {a}\nquorum b"),
            format!("witness none {a}\nquorum none"),
            format!("witness a {a}\nwitness a {a}\nquorum a"),
            format!("witness a {a} ftp://x\nquorum a"),
            format!("witness a {a}\ngroup g 2 a\nquorum g"),
            format!("witness a {a}\ngroup g 0 a\nquorum g"),
            format!("witness a {a}\ngroup g any\nquorum g"),
            format!("witness a {a}\ngroup a any a\nquorum a"),
            format!("witness a {a}\nquorum a\nquorum a"),
            format!("witness a {ONE}\nquorum a"),
            "quorums none".to_owned(),
            "witness a b c d\nquorum none".to_owned(),
        ] {
            assert!(Policy::parse(&bad).is_err(), "{bad:?}");
        }
    }
}
