//! `[[backend]]` tables: which settings each kind has.

use std::{
    collections::BTreeMap,
    ops::Range,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::{Map, Value, json};
use signer_core::BackendName;
use signer_software::Kdf;
use toml::Spanned;

use super::{BackendConfig, BackendKind, DriverTable, SecretSource, SoftwareTable, file::Reader};

/// Every setting of every kind. Each kind takes its own out; what is left over is an error at its place.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BackendTable {
    name: Spanned<String>,
    kind: Spanned<String>,
    queue: Option<Spanned<u32>>,
    directory: Option<Spanned<PathBuf>>,
    passphrase: Option<Spanned<SecretSource>>,
    kdf: Option<Spanned<Kdf>>,
    module: Option<Spanned<PathBuf>>,
    token: Option<Spanned<String>>,
    serial: Option<Spanned<String>>,
    read_only: Option<Spanned<bool>>,
    pin: Option<Spanned<SecretSource>>,
    environment: Option<Spanned<BTreeMap<String, String>>>,
    processes: Option<Spanned<u32>>,
    threads: Option<Spanned<u32>>,
    spin: Option<Spanned<bool>>,
    program: Option<Spanned<PathBuf>>,
    arguments: Option<Spanned<Vec<String>>>,
    options: Option<Spanned<toml::Table>>,
}

impl BackendTable {
    /// The backend, and where its name is.
    pub(super) fn into_config(
        mut self,
        reader: &mut Reader<'_>,
        state: &Path,
    ) -> Option<(BackendConfig, Range<usize>)> {
        let span = self.name.span();
        let name: Option<BackendName> = reader.parsed(&self.name);
        let queue = reader.positive(self.queue.take().as_ref()).map(|n| n as usize);
        let folder = reader.folder().to_owned();
        let (kind, settings) = match self.kind.get_ref().as_str() {
            "software" => (Some(self.software(&folder, state)), "directory, passphrase, kdf and queue"),
            "pkcs11" => (
                self.pkcs11(reader, &folder),
                "module, token or serial, read_only, pin, environment, processes, threads, spin, queue, program, arguments and \
                 options",
            ),
            "driver" => (
                self.driver(reader, &folder),
                "program, arguments, options, pin, environment, processes, threads, spin and queue",
            ),
            other => {
                reader.fault(
                    self.kind.span(),
                    format!("no kind of backend is called {other:?}: there are software, pkcs11 and driver"),
                );
                return None;
            }
        };
        for (left_over, span) in self.left_over() {
            let what = format!("a {} backend has no {left_over}; it has {settings}", self.kind.get_ref());
            reader.fault(span, what);
        }
        Some((BackendConfig { name: name?, kind: kind?, queue }, span))
    }

    fn software(&mut self, folder: &Path, state: &Path) -> BackendKind {
        BackendKind::Software(SoftwareTable {
            directory: taken(&mut self.directory).map_or_else(|| state.join("keys"), |d| folder.join(d)),
            passphrase: taken(&mut self.passphrase).map(|s| s.resolved(folder)),
            kdf: taken(&mut self.kdf).unwrap_or_default(),
        })
    }

    fn pkcs11(&mut self, reader: &mut Reader<'_>, folder: &Path) -> Option<BackendKind> {
        let Some(module) = self.module.take() else {
            reader.fault(self.kind.span(), "a pkcs11 backend needs module: the path of the vendor's library");
            return None;
        };
        // A name without a folder is looked for as the system does.
        let path = module.get_ref();
        let path = if path.components().count() > 1 { folder.join(path) } else { path.clone() };
        let Some(path) = path.to_str() else {
            reader.fault(module.span(), "the path is not UTF-8");
            return None;
        };
        let mut options = Map::from_iter([("module".to_owned(), json!(path))]);
        match (self.token.take(), self.serial.take()) {
            (Some(token), None) => options.insert("token".to_owned(), json!(token.into_inner())),
            (None, Some(serial)) => options.insert("serial".to_owned(), json!(serial.into_inner())),
            (Some(_), Some(serial)) => {
                reader
                    .fault(serial.span(), "a token is named by token (its label) or by serial, not by both");
                return None;
            }
            (None, None) => {
                reader.fault(self.kind.span(), "a pkcs11 backend needs token (the token's label) or serial");
                return None;
            }
        };
        if let Some(read_only) = taken(&mut self.read_only) {
            options.insert("read_only".to_owned(), json!(read_only));
        }
        let program = self.program(folder).unwrap_or_else(|| PathBuf::from("signerd-pkcs11"));
        self.table(reader, folder, program, 2, options).map(BackendKind::Driver)
    }

    fn driver(&mut self, reader: &mut Reader<'_>, folder: &Path) -> Option<BackendKind> {
        let Some(program) = self.program(folder) else {
            reader.fault(self.kind.span(), "a driver backend needs program: the driver's path or name");
            return None;
        };
        self.table(reader, folder, program, 1, Map::new()).map(BackendKind::Driver)
    }

    /// A program by its path, or by its name alone when it is to be looked for.
    fn program(&mut self, folder: &Path) -> Option<PathBuf> {
        let program = taken(&mut self.program)?;
        Some(if program.components().count() > 1 { folder.join(program) } else { program })
    }

    /// What all kinds that run in driver processes have.
    fn table(
        &mut self,
        reader: &mut Reader<'_>,
        folder: &Path,
        program: PathBuf,
        processes: usize,
        mut options: Map<String, Value>,
    ) -> Option<DriverTable> {
        if let Some(more) = self.options.take() {
            let span = more.span();
            let Ok(Value::Object(more)) = serde_json::to_value(more.into_inner()) else {
                reader.fault(span, "options has a value that cannot be handed to a driver");
                return None;
            };
            for (name, value) in more {
                if options.insert(name.clone(), value).is_some() {
                    reader.fault(span.clone(), format!("options must not repeat {name}"));
                }
            }
        }
        let few = |n: Option<u32>, default| n.map_or(default, |n| n.min(64) as usize);
        Some(DriverTable {
            kind: self.kind.get_ref().clone(),
            program,
            arguments: taken(&mut self.arguments).unwrap_or_default(),
            environment: taken(&mut self.environment).unwrap_or_default(),
            options: Value::Object(options),
            processes: few(reader.positive(self.processes.take().as_ref()), processes),
            threads: few(reader.positive(self.threads.take().as_ref()), 1),
            spin: taken(&mut self.spin),
            pin: taken(&mut self.pin).map(|s| s.resolved(folder)),
        })
    }

    fn left_over(&self) -> Vec<(&'static str, Range<usize>)> {
        fn place<T>(
            name: &'static str,
            setting: Option<&Spanned<T>>,
        ) -> Option<(&'static str, Range<usize>)> {
            setting.map(|s| (name, s.span()))
        }
        [
            place("directory", self.directory.as_ref()),
            place("passphrase", self.passphrase.as_ref()),
            place("kdf", self.kdf.as_ref()),
            place("module", self.module.as_ref()),
            place("token", self.token.as_ref()),
            place("serial", self.serial.as_ref()),
            place("read_only", self.read_only.as_ref()),
            place("pin", self.pin.as_ref()),
            place("environment", self.environment.as_ref()),
            place("processes", self.processes.as_ref()),
            place("threads", self.threads.as_ref()),
            place("spin", self.spin.as_ref()),
            place("program", self.program.as_ref()),
            place("arguments", self.arguments.as_ref()),
            place("options", self.options.as_ref()),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

fn taken<T>(setting: &mut Option<Spanned<T>>) -> Option<T> {
    setting.take().map(Spanned::into_inner)
}
