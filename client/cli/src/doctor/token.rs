//! A backend's device, as far as it can be seen without the daemon: driver program, module, token, PIN file.

use std::process::{Command, Stdio};

use super::{Finding, config::Backend, files};
use crate::programs;

pub(super) fn check(backend: &Backend, findings: &mut Vec<Finding>) {
    let name = &backend.name;
    if let Some(path) = &backend.pin_file {
        findings.push(files::check_pin_file(name, path));
    }
    let driver = match backend.kind.as_str() {
        "pkcs11" => "signerd-pkcs11",
        "piv" => "signerd-piv",
        "tpm" => "signerd-tpm",
        _ => return,
    };
    let Some(program) = programs::find(driver) else {
        findings.push(Finding::problem(
            format!("{name}: its driver program {driver} is neither beside this one nor in PATH"),
            format!("install {driver} beside signerd"),
        ));
        return;
    };
    findings.push(Finding::ok(format!("{name}: its driver is {}", program.display())));
    if backend.kind == "pkcs11" {
        check_token(backend, &program, findings);
    }
}

fn check_token(backend: &Backend, driver: &std::path::Path, findings: &mut Vec<Finding>) {
    let name = &backend.name;
    let Some(module) = &backend.module else { return };
    let at = module.display();
    if !module.exists() {
        findings.push(Finding::problem(
            format!("{name}: the PKCS#11 module {at} is not there"),
            "install the device's software, or correct `module` in the configuration",
        ));
        return;
    }
    let mut command = Command::new(driver);
    command.arg("list-tokens").arg(module).args(["--output", "json"]).stdin(Stdio::null());
    let output = match command.envs(backend.environment.iter().cloned()).output() {
        Ok(output) => output,
        Err(e) => {
            let what = format!("{name}: {} cannot be started ({e})", driver.display());
            findings.push(Finding::problem(what, "install it again"));
            return;
        }
    };
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        findings.push(Finding::problem(
            format!("{name}: the PKCS#11 module {at} does not work: {said}"),
            "check that it is the right file, and that the device's own tools work",
        ));
        return;
    }
    let listing: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let tokens = listing.as_array().or_else(|| listing["tokens"].as_array()).cloned().unwrap_or_default();
    let field =
        |token: &serde_json::Value, name: &str| token[name].as_str().unwrap_or_default().trim().to_owned();
    let fits = |token: &&serde_json::Value| {
        backend.token.as_ref().is_none_or(|label| field(token, "label") == *label)
            && backend.serial.as_ref().is_none_or(|serial| field(token, "serial") == *serial)
    };
    let wanted = backend.token.clone().or_else(|| backend.serial.clone()).unwrap_or_else(|| "any".to_owned());
    let fitting: Vec<_> = tokens.iter().filter(fits).collect();
    findings.extend(fitting.iter().take(1).filter_map(|token| pin_state(name, token)));
    findings.push(match fitting.len() {
        1 => Finding::ok(format!("{name}: the module {at} loads and has the token {wanted:?}")),
        0 => {
            let there: Vec<_> = tokens.iter().map(|t| format!("{:?}", field(t, "label"))).collect();
            let there = if there.is_empty() { "none".to_owned() } else { there.join(", ") };
            Finding::problem(
                format!("{name}: the module {at} has no token {wanted:?} (tokens there: {there})"),
                "plug it in, or correct `token` or `serial` in the configuration",
            )
        }
        n => Finding::problem(
            format!("{name}: the module {at} has {n} tokens {wanted:?}"),
            "name the one that is meant with `serial`",
        ),
    });
}

/// What the token says of its PIN (C_GetTokenInfo), without trying any.
fn pin_state(name: &str, token: &serde_json::Value) -> Option<Finding> {
    let flags: Vec<_> = token["flags"].as_array().into_iter().flatten().filter_map(|f| f.as_str()).collect();
    let has = |flag: &str| flags.contains(&flag);
    if has("USER_PIN_LOCKED") {
        return Some(Finding::problem(
            format!("{name}: the token's PIN is locked after too many wrong tries"),
            "unlock it with the security officer's PIN, with the device's own tool",
        ));
    }
    if has("USER_PIN_FINAL_TRY") {
        return Some(Finding::problem(
            format!("{name}: one try is left for the token's PIN, and signerd will not use it by itself"),
            format!("make sure of the PIN, then run `signer keys unlock {name} --use-last-try`"),
        ));
    }
    if has("LOGIN_REQUIRED") && !has("USER_PIN_INITIALIZED") {
        return Some(Finding::problem(
            format!("{name}: the token has no PIN yet"),
            "set one with the device's own tool (for SoftHSM: softhsm2-util --init-token)",
        ));
    }
    has("USER_PIN_COUNT_LOW").then(|| {
        Finding::problem(
            format!("{name}: somebody has tried a wrong PIN on the token since the last login"),
            format!("make sure of the PIN; a login with the right one resets the count: `signer keys unlock {name}`"),
        )
    })
}
