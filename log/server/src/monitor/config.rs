//! What a monitor is told to do: a TOML file, and what the command line says besides.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use signer_core::{Error, Result};
use toml::Spanned;

use super::{
    follow::Start,
    pattern::Pattern,
    rules::{self, Content, Rule},
};
use crate::{
    cli::{Expected, Which},
    location::S3Options,
    place::Kind,
};

/// Everything that a monitor needs to know.
#[derive(Debug)]
pub(super) struct Config {
    pub(super) which: Which,
    pub(super) state: PathBuf,
    pub(super) evidence: PathBuf,
    pub(super) start: Start,
    pub(super) interval: Duration,
    pub(super) max_age: Option<Duration>,
    pub(super) metrics: Option<SocketAddr>,
    pub(super) unreadable: bool,
    pub(super) rules: Vec<Rule>,
    pub(super) reports: Vec<Destination>,
}

/// Where reports go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Destination {
    Stdout,
    File(PathBuf),
    Webhook { url: String, secret: Option<PathBuf>, ca_file: Option<PathBuf> },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    log: LogTable,
    state: Option<PathBuf>,
    evidence: Option<PathBuf>,
    from: Option<Spanned<Beginning>>,
    interval: Option<Spanned<String>>,
    max_age: Option<Spanned<String>>,
    metrics_listen: Option<SocketAddr>,
    #[serde(default = "yes")]
    report_unreadable: bool,
    #[serde(default)]
    rule: Vec<Spanned<RuleTable>>,
    #[serde(default)]
    report: Vec<Spanned<ReportTable>>,
}

fn yes() -> bool {
    true
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct LogTable {
    /// A URL or a folder.
    location: Option<String>,
    kind: Option<Kind>,
    origin: Option<String>,
    public_key: Option<PathBuf>,
    ca_file: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Beginning {
    At(u64),
    Word(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleTable {
    name: String,
    #[serde(default)]
    identity: Vec<String>,
    #[serde(default)]
    identity_regex: Vec<String>,
    #[serde(default)]
    issuer: Vec<String>,
    #[serde(default)]
    issuer_regex: Vec<String>,
    #[serde(default)]
    subject: Vec<String>,
    #[serde(default)]
    subject_regex: Vec<String>,
    #[serde(default)]
    fingerprint: Vec<String>,
    #[serde(default)]
    digest: Vec<String>,
    #[serde(default)]
    extension: Vec<ExtensionTable>,
    #[serde(default)]
    everything: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExtensionTable {
    oid: String,
    value: Option<String>,
    value_regex: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReportTable {
    #[serde(default)]
    stdout: bool,
    file: Option<PathBuf>,
    webhook: Option<String>,
    webhook_secret_file: Option<PathBuf>,
    webhook_ca_file: Option<PathBuf>,
}

impl Config {
    /// What the command line says, over what the file says.
    pub(super) fn load(command: &crate::cli::Monitor) -> Result<Self> {
        let mut config = match &command.config {
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|e| {
                    Error::bad_request(format!("{} cannot be read", path.display())).vendor(e)
                })?;
                Partial::parse(path, &text)?
            }
            None => Partial { unreadable: true, ..Partial::default() },
        };
        config.add(command)?;
        config.finish()
    }
}

/// A configuration of which parts may come from elsewhere.
#[derive(Default)]
struct Partial {
    log: LogTable,
    state: Option<PathBuf>,
    evidence: Option<PathBuf>,
    start: Option<Start>,
    interval: Option<Duration>,
    max_age: Option<Duration>,
    metrics: Option<SocketAddr>,
    unreadable: bool,
    rules: Vec<Rule>,
    reports: Vec<Destination>,
}

impl Partial {
    fn parse(path: &Path, text: &str) -> Result<Self> {
        let at = |span: std::ops::Range<usize>, what: &dyn std::fmt::Display| {
            let line = text[..text.floor_char_boundary(span.start)].matches('\n').count() + 1;
            Error::bad_request(format!("{}:{line}: {what}", path.display()))
        };
        // The parser's own picture of the line may have a webhook's address in it, which is a secret: only line and message.
        let file: File = toml::from_str(text).map_err(|e| at(e.span().unwrap_or_default(), &e.message()))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let absolute = |path: PathBuf| folder.join(path);
        let duration = |text: Option<Spanned<String>>| {
            text.map(|t| duration(t.get_ref()).map_err(|e| at(t.span(), &e))).transpose()
        };
        let start = match &file.from {
            None => None,
            Some(from) => Some(match from.get_ref() {
                Beginning::At(index) => Start::At(*index),
                Beginning::Word(word) => start(word).map_err(|e| at(from.span(), &e))?,
            }),
        };
        let mut rules = Vec::new();
        for table in file.rule {
            let span = table.span();
            let rule = rule(table.into_inner()).map_err(|e| at(span.clone(), &e))?;
            if rules.iter().any(|r: &Rule| r.name == rule.name) {
                return Err(at(span, &format!("two rules are called {:?}", rule.name)));
            }
            rules.push(rule);
        }
        let mut reports = Vec::new();
        for table in file.report {
            let span = table.span();
            reports.push(destination(table.into_inner(), folder).map_err(|e| at(span, &e))?);
        }
        let mut log = file.log;
        log.public_key = log.public_key.map(absolute);
        log.ca_file = log.ca_file.map(absolute);
        log.location = log.location.map(|location| {
            if location.contains("://") { location } else { folder.join(location).display().to_string() }
        });
        Ok(Self {
            log,
            state: file.state.map(absolute),
            evidence: file.evidence.map(absolute),
            start,
            interval: duration(file.interval)?,
            max_age: duration(file.max_age)?,
            metrics: file.metrics_listen,
            unreadable: file.report_unreadable,
            rules,
            reports,
        })
    }

    fn add(&mut self, command: &crate::cli::Monitor) -> Result<()> {
        let over = |there: &mut Option<PathBuf>, given: &Option<PathBuf>| {
            if given.is_some() {
                there.clone_from(given);
            }
        };
        over(&mut self.state, &command.state);
        over(&mut self.evidence, &command.evidence);
        over(&mut self.log.public_key, &command.expected.public_key);
        over(&mut self.log.ca_file, &command.expected.ca_file);
        self.log.location = command.log.clone().or(self.log.location.take());
        self.log.origin = command.expected.origin.clone().or(self.log.origin.take());
        self.log.kind = command.expected.kind.or(self.log.kind);
        self.metrics = command.metrics_listen.or(self.metrics);
        if let Some(text) = &command.from {
            self.start = Some(start(text)?);
        }
        if let Some(text) = &command.interval {
            self.interval = Some(duration(text)?);
        }
        if let Some(text) = &command.max_age {
            self.max_age = Some(duration(text)?);
        }
        self.rules.extend(of_flags(command)?);
        if command.stdout {
            self.reports.push(Destination::Stdout);
        }
        self.reports.extend(command.file.iter().cloned().map(Destination::File));
        self.reports.extend(command.webhook.iter().map(|url| Destination::Webhook {
            url: url.clone(),
            secret: command.webhook_secret_file.clone(),
            ca_file: command.expected.ca_file.clone(),
        }));
        Ok(())
    }

    fn finish(self) -> Result<Config> {
        let missing = |what: &str, next: &str| Err(Error::bad_request(what).next(next));
        let Some(log) = self.log.location else {
            return missing(
                "no log is named",
                "give its folder or URL, or location in [log] of --config FILE",
            );
        };
        let Some(state) = self.state else {
            return missing(
                "the monitor has no state",
                "give --state FILE: there it keeps how far it has read",
            );
        };
        if self.rules.is_empty() {
            return missing(
                "there is no rule, so nothing would ever be reported",
                "give --certificate-identity, --fingerprint, --digest or --extension, or [[rule]] tables in --config FILE",
            );
        }
        let evidence = self.evidence.unwrap_or_else(|| {
            let mut name = state.file_name().unwrap_or_default().to_owned();
            name.push(".evidence");
            state.with_file_name(name)
        });
        let mut reports = self.reports;
        reports.dedup();
        if reports.is_empty() {
            reports.push(Destination::Stdout);
        }
        let which = Which {
            log,
            expected: Expected {
                public_key: self.log.public_key,
                origin: self.log.origin,
                kind: self.log.kind,
                ca_file: self.log.ca_file,
            },
            // A bucket is reached as the AWS command line would: by its variables and files.
            s3: S3Options::default(),
        };
        Ok(Config {
            which,
            state,
            evidence,
            start: self.start.unwrap_or(Start::At(0)),
            interval: self.interval.unwrap_or(Duration::from_secs(10)),
            max_age: self.max_age,
            metrics: self.metrics,
            unreadable: self.unreadable,
            rules: self.rules,
            reports,
        })
    }
}

fn start(text: &str) -> Result<Start> {
    match text {
        "now" => Ok(Start::Now),
        "start" => Ok(Start::At(0)),
        number => number.parse().map(Start::At).map_err(|_| {
            Error::bad_request(format!("{text:?} is no place to begin at"))
                .next("write start, now, or the index of an entry")
        }),
    }
}

/// `90s`, `15m`, `12h`, `2d`.
fn duration(text: &str) -> Result<Duration> {
    let wrong = || {
        Error::bad_request(format!("{text:?} is no length of time"))
            .next("write 90s, 15m, 12h or 2d, at least 1s")
    };
    let at = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let number: u64 = text[..at].parse().map_err(|_| wrong())?;
    let unit = match &text[at..] {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let seconds = number.checked_mul(unit).filter(|s| *s > 0 && *s < 1 << 40).ok_or_else(wrong)?;
    Ok(Duration::from_secs(seconds))
}

fn patterns(globs: &[String], regexes: &[String]) -> Result<Vec<Pattern>> {
    let globs = globs.iter().map(|text| Pattern::glob(text));
    globs.chain(regexes.iter().map(|text| Pattern::regex(text))).collect()
}

fn rule(table: RuleTable) -> Result<Rule> {
    let extension = |table: ExtensionTable| {
        let content = match (&table.value, &table.value_regex) {
            (Some(value), None) => rules::content(value)?,
            (None, Some(regex)) => Content::Text(Pattern::regex(regex)?),
            _ => {
                return Err(Error::bad_request(format!(
                    "the extension {} wants one of value and value_regex",
                    table.oid
                )));
            }
        };
        Ok((rules::oid_of(&table.oid)?, content))
    };
    let rule = Rule {
        identities: patterns(&table.identity, &table.identity_regex)?,
        issuers: patterns(&table.issuer, &table.issuer_regex)?,
        subjects: patterns(&table.subject, &table.subject_regex)?,
        fingerprints: table.fingerprint.iter().map(|t| rules::fingerprint(t)).collect::<Result<_>>()?,
        digests: table.digest.iter().map(|t| rules::digest(t)).collect::<Result<_>>()?,
        extensions: table.extension.into_iter().map(extension).collect::<Result<_>>()?,
        everything: table.everything,
        name: table.name,
    };
    if rule.is_empty() {
        return Err(Error::bad_request(format!("the rule {:?} has no condition", rule.name))
            .next("give it one, or everything = true"));
    }
    Ok(rule)
}

fn destination(table: ReportTable, folder: &Path) -> Result<Destination> {
    let secret = table.webhook_secret_file.map(|p| folder.join(p));
    let ca_file = table.webhook_ca_file.map(|p| folder.join(p));
    let no_webhook = secret.is_none() && ca_file.is_none();
    match (table.stdout, table.file, table.webhook) {
        (true, None, None) if no_webhook => Ok(Destination::Stdout),
        (false, Some(path), None) if no_webhook => Ok(Destination::File(folder.join(path))),
        (false, None, Some(url)) => Ok(Destination::Webhook { url, secret, ca_file }),
        _ => Err(Error::bad_request("a [[report]] goes to one place: stdout = true, file or webhook")),
    }
}

/// The rules that the command line makes: one for certificates, and one each for keys and for digests.
fn of_flags(command: &crate::cli::Monitor) -> Result<Vec<Rule>> {
    let certificate = Rule {
        identities: patterns(&command.certificate_identity, &command.certificate_identity_regexp)?,
        issuers: patterns(&command.certificate_oidc_issuer, &command.certificate_oidc_issuer_regexp)?,
        subjects: patterns(&command.certificate_subject, &[])?,
        extensions: command.extension.iter().map(|t| rules::extension(t)).collect::<Result<_>>()?,
        ..Rule::named("certificate")
    };
    let key = Rule {
        fingerprints: command.fingerprint.iter().map(|t| rules::fingerprint(t)).collect::<Result<_>>()?,
        ..Rule::named("fingerprint")
    };
    let digest = Rule {
        digests: command.digest.iter().map(|t| rules::digest(t)).collect::<Result<_>>()?,
        ..Rule::named("digest")
    };
    Ok([certificate, key, digest].into_iter().filter(|rule| !rule.is_empty()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Partial> {
        Partial::parse(Path::new("/etc/monitor.toml"), text)
    }

    #[test]
    fn a_file_is_read() {
        let config = parse(
            r#"
            state = "monitor.sqlite"
            from = "now"
            interval = "30s"
            max_age = "2h"
            [log]
            location = "https://log.example.com"
            kind = "signature"
            public_key = "log.pem"
            [[rule]]
            name = "release"
            identity = ["*@example.com"]
            issuer_regex = ["^https://"]
            extension = [{ oid = "source-repository-uri", value = "https://github.com/acme/*" }, { oid = "1.2.3", value_regex = "x" }]
            [[rule]]
            name = "key"
            fingerprint = ["abababababababababababababababababababababababababababababababab"]
            [[report]]
            file = "matches.jsonl"
            [[report]]
            webhook = "https://hooks.example.com/secret"
            webhook_secret_file = "hook"
            "#,
        )
        .unwrap();
        assert_eq!(config.state.unwrap(), Path::new("/etc/monitor.sqlite"));
        assert_eq!(config.start, Some(Start::Now));
        assert_eq!(config.max_age, Some(Duration::from_hours(2)));
        assert_eq!(config.rules.iter().map(|r| &*r.name).collect::<Vec<_>>(), ["release", "key"]);
        assert_eq!(config.rules[0].extensions[0].0, "1.3.6.1.4.1.57264.1.12");
        assert_eq!(config.reports[0], Destination::File("/etc/matches.jsonl".into()));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line_and_without_its_value() {
        let rule = "[[rule]]\nname = \"a\"\n";
        for (text, line, what) in [
            ("state = \"x\"\nstat = 1\n".to_owned(), 2, "unknown field"),
            (format!("{rule}identitty = []\n"), 3, "unknown field"),
            (rule.to_owned(), 1, "no condition"),
            (format!("\n{rule}fingerprint = [\"xyz\"]\n"), 2, "fingerprint"),
            (format!("{rule}identity_regex = [\"(\"]\n"), 1, "regular expression"),
            (format!("{rule}extension = [{{ oid = \"1.2\" }}]\n"), 1, "value"),
            (format!("{rule}everything = true\n{rule}everything = true\n"), 4, "two rules"),
            ("max_age = \"soon\"\n".to_owned(), 1, "length of time"),
            ("from = \"yesterday\"\n".to_owned(), 1, "place to begin"),
            ("[[report]]\nfile = \"x\"\nstdout = true\n".to_owned(), 1, "one place"),
            ("[[report]]\nwebhook = \"https://secret\"\nweebhook = 1\n".to_owned(), 3, "unknown field"),
        ] {
            let error = parse(&text).err().unwrap_or_else(|| panic!("{text} is accepted")).to_string();
            assert!(error.contains(&format!("/etc/monitor.toml:{line}: ")), "{text}: {error}");
            assert!(error.contains(what), "{text}: {error}");
            assert!(!error.contains("https://secret"), "{error}");
        }
    }
}
