//! `hwtests/run --real`, over virtual devices that are given to it as if they were real.
#![allow(clippy::unwrap_used)] // tests

use std::process::{Command, Output};

use hwtests::{
    engines::{AwsFace, Engine, Google, Piv, SoftHsm, SwTpm, Vault},
    programs,
};
use signer_contract::PinSetup;
use signer_core::{Backend, GenerateRequest, KeyName, KeyType, ListRequest};

/// The checks that show the most in the least time.
const SOME: [&str; 5] =
    ["is_healthy", "every_algorithm_signs", "deleted_keys_are_gone", "pages_lose", "keys_survive_a_restart"];

fn program(spec: &str) -> Command {
    let mut command = Command::new(programs::ours("hwtests-real"));
    command.arg(spec);
    command
}

/// Runs some checks, which must pass; gives what was said.
async fn passes(mut command: Command) -> String {
    command.arg("--yes").args(SOME);
    let output = tokio::task::spawn_blocking(move || programs::output(&mut command)).await.unwrap();
    let text = programs::text(&output);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("5 passed, 0 failed"), "{text}");
    text
}

async fn make(backend: &dyn Backend, name: &str) {
    let request = GenerateRequest::new(KeyName::label(name).unwrap(), KeyType::EcdsaP256);
    backend.generate().unwrap().generate(request).await.unwrap();
}

async fn names(backend: &dyn Backend) -> Vec<String> {
    let page = backend.list(ListRequest::default()).await.unwrap();
    page.keys.iter().map(|k| k.name.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card() {
    let card = Piv::start();
    let pin_file = card.pin_file(PinSetup::Right).unwrap();
    let backend = card.direct(PinSetup::Right).await.unwrap();
    make(&*backend, "9c").await;
    let command = |serial: u32| {
        let mut command = program(&format!("yubikey:{serial}"));
        command.env("PCSCLITE_CSOCK_NAME", card.pcscd().socket()).arg("--pin-file").arg(&pin_file);
        command.args(["--setting", "allow_defaults = true", "--setting"]);
        command.arg(format!("management_key_file = {:?}", card.management_key_file()));
        command.args([
            "--setting",
            &format!("environment = {{ PCSCLITE_CSOCK_NAME = {:?} }}", card.pcscd().socket()),
        ]);
        command
    };
    // Nobody can be asked: nothing is written.
    let output = run(command(card.serial())).await;
    assert_eq!(output.status.code(), Some(2), "{}", programs::text(&output));
    assert!(programs::text(&output).contains("say --yes"), "{}", programs::text(&output));
    assert_eq!(names(&*backend).await, ["9c"]);
    let text = passes(command(card.serial())).await;
    assert!(text.contains("The key that is there is neither used nor changed"), "{text}");
    assert!(text.contains("empty slots 9a, 9d, 82"), "{text}");
    assert_eq!(names(&*backend).await, ["9c"], "the card is not as it was:\n{text}");
    assert_eq!(card.card().state().counters.failed_verifies, 0);
    let output = run(command(7)).await;
    assert_eq!(output.status.code(), Some(2), "{}", programs::text(&output));
    assert!(programs::text(&output).contains("serial number 7 is not there"), "{}", programs::text(&output));
}

async fn run(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || programs::output(&mut command)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tpm() {
    let tpm = SwTpm::start();
    let mut command = program("tpm");
    command.env("TCTI", tpm.tcti());
    passes(command).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token() {
    let hsm = SoftHsm::start();
    let backend = hsm.direct(PinSetup::Right).await.unwrap();
    make(&*backend, "mine").await;
    let mut command = program(&format!("pkcs11:{}", programs::softhsm_module().display()));
    command.args(["--token", hsm.label(), "--pin-file"]).arg(hsm.pin_file(PinSetup::Right).unwrap());
    command.args(["--setting", &format!("environment = {{ SOFTHSM2_CONF = {:?} }}", hsm.configuration())]);
    passes(command).await;
    assert_eq!(names(&*backend).await, ["mine"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn vault_as_its_users_name_it() {
    let vault = Vault::start();
    let mut command = program("hashivault:");
    command.env("VAULT_ADDR", format!("http://{}", vault.address())).env("VAULT_TOKEN", vault.root());
    passes(command).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn aws_as_its_users_name_it() {
    let aws = AwsFace::start();
    let mut command = program("awskms:arn:aws:kms:us-east-1:111122223333:key/1234");
    command
        .env("AWS_ENDPOINT_URL_KMS", aws.engine().url())
        .env("AWS_SHARED_CREDENTIALS_FILE", aws.folder().join("credentials"))
        .env("AWS_CONFIG_FILE", aws.folder().join("config"));
    passes(command).await;
}

/// Google keeps names for ever: the checks still find an empty place, twice.
#[tokio::test(flavor = "multi_thread")]
async fn google_where_names_are_for_ever() {
    let google = Google::start();
    for _ in 0..2 {
        let mut command = program("gcpkms:projects/signerd-tests/locations/global/keyRings/tests");
        command.args(["--setting", &format!("endpoint = {:?}", google.kms().url())]);
        command.env("GOOGLE_APPLICATION_CREDENTIALS", google.credentials());
        passes(command).await;
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    for (spec, said) in [
        ("yubikey:abc", "not a serial number"),
        ("awskms:arn:aws:s3:::bucket", "not an ARN of KMS"),
        ("gcpkms:ring", "names no key ring"),
        ("floppy:", "none of yubikey"),
    ] {
        let output = programs::output(&mut program(spec));
        assert_eq!(output.status.code(), Some(2), "{spec}: {}", programs::text(&output));
        assert!(programs::text(&output).contains(said), "{spec}: {}", programs::text(&output));
    }
    let output = programs::output(&mut program("yubikey:1"));
    assert!(programs::text(&output).contains("--pin-file"), "{}", programs::text(&output));
}
