//! `signer keys attest`, and `signer attest verify` of what it wrote and of what unmodified programs of others wrote: a virtual
//! YubiKey, swtpm, and the Cloud HSMs of our own engine.
#![allow(clippy::unwrap_used)] // tests

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use hwtests::{
    daemon::Daemon,
    engines::{DEFAULT_MANAGEMENT_KEY, Engine, Google, Piv, SwTpm},
    programs,
};
use signer_contract::PinSetup;

/// `signer` in a folder, without a daemon.
struct Place {
    folder: PathBuf,
}

impl Place {
    fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.folder.join(name), content).unwrap();
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.folder.join(name)).unwrap()
    }

    fn command(&self, words: &str) -> Command {
        let mut command = Command::new(programs::ours("signer"));
        command
            .env_clear()
            .current_dir(&self.folder)
            .args(["attest", "verify"])
            .args(words.split_whitespace());
        command
    }

    /// It must be proven; what it said.
    #[track_caller]
    fn proven(&self, words: &str) -> serde_json::Value {
        let said = programs::must(self.command(words).args(["--output", "json"]));
        let json: serde_json::Value = serde_json::from_str(&said).unwrap();
        assert_eq!(json["proven"], true);
        json
    }

    /// It must end with status 1 and say this.
    #[track_caller]
    fn refused(&self, words: &str, part: &str) -> String {
        let output = programs::output(&mut self.command(words));
        let text = programs::text(&output);
        assert_eq!(output.status.code(), Some(1), "{words}: {text}");
        assert!(text.contains(part), "{words}: {text}");
        text
    }

    /// Changes one byte in the middle of one part of a statement of ours.
    fn change(&self, from: &str, to: &str, part: usize) {
        let mut json: serde_json::Value = serde_json::from_slice(&self.read(from)).unwrap();
        let mut bytes = BASE64_STANDARD.decode(json["parts"][part].as_str().unwrap()).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        json["parts"][part] = BASE64_STANDARD.encode(bytes).into();
        self.write(to, json.to_string());
    }
}

/// Runs `signer` against the daemon, away from the runtime's threads.
async fn signer(daemon: &Daemon, words: &str) -> String {
    let mut command = daemon.signer();
    command.args(words.split_whitespace());
    tokio::task::spawn_blocking(move || programs::must(&mut command)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_behind_the_daemon_is_proven() {
    for firmware in ["4.3.5", "5.4.3", "5.7.1"] {
        let card = Piv::with_firmware(firmware);
        let daemon = Daemon::start(&[card.toml("yubikey", PinSetup::Right)]).await;
        daemon.backend("yubikey").await;
        signer(&daemon, "keys create yubikey/9c --pin-policy once --touch-policy always").await;
        signer(&daemon, "keys create yubikey/9a").await;
        for slot in ["9a", "9c"] {
            signer(&daemon, &format!("keys attest yubikey/{slot} --out {slot}.json")).await;
            let pem = signer(&daemon, &format!("keys show yubikey/{slot} --pem")).await;
            std::fs::write(daemon.folder().join(format!("{slot}.pem")), pem).unwrap();
        }
        let place = Place::new(daemon.folder());
        place.write("root.pem", hwtests_piv_card::attestation_root_pem());

        let json = place.proven(
            "9c.json --key 9c.pem --root root.pem --require touch=always --require pin=once --require generated-inside \
             --require not-exportable --require device=yubikey --require serial=12345678",
        );
        assert_eq!(json["device"]["firmware"], firmware);
        assert_eq!(json["device"]["serial"], "12345678");
        assert_eq!(json["key"]["place"], "slot 9c");
        assert_eq!(json["key"]["touch_policy"], "always");
        assert_eq!(json["roots"][0]["built_in"], false);

        place.refused("9c.json --key 9c.pem", "neither a root nor in the statement");
        place.refused("9c.json --key 9a.pem --root root.pem", "the statement is about another key");
        place.refused(
            "9a.json --key 9a.pem --root root.pem --require touch=cached",
            "touch=cached is required",
        );
        for part in [0, 1] {
            place.change("9c.json", "changed.json", part);
            place.refused("changed.json --key 9c.pem --root root.pem", "error: ");
        }
        // The key may be named as the daemon knows it.
        let said = signer(&daemon, "attest verify 9c.json --key yubikey/9c --root root.pem").await;
        assert!(said.contains("generated this key in its slot 9c"), "{said}");
    }
}

/// What `yubico-piv-tool` writes: the statement, and the certificate of slot f9.
#[test]
fn what_yubico_piv_tool_attests_is_proven() {
    for firmware in ["4.3.5", "5.4.3"] {
        let card = Piv::with_firmware(firmware);
        let place = Place::new(card.folder());
        place.write("root.pem", hwtests_piv_card::attestation_root_pem());
        let tool = |words: &str| {
            programs::must(card.tool().current_dir(card.folder()).args(words.split_whitespace()));
        };
        tool("-a read-certificate -s f9 -o f9.pem");
        for (slot, algorithm) in [("9a", "ECCP384"), ("9d", "RSA2048")] {
            tool(&format!(
                "-s {slot} -A {algorithm} --pin-policy=always --touch-policy=cached -a generate -o {slot}.pub"
            ));
            tool(&format!("-s {slot} -a attest -o {slot}.att"));
            let json = place.proven(&format!(
                "{slot}.att --with f9.pem --key {slot}.pub --root root.pem --require pin=always --require touch=cached"
            ));
            assert_eq!(json["key"]["place"], format!("slot {slot}"));
            place.refused(
                &format!("{slot}.att --key {slot}.pub --root root.pem"),
                "neither a root nor in the statement",
            );
            // The card's certificate of another key in that place proves nothing.
            place.refused(
                &format!("f9.pem --key {slot}.pub --root root.pem"),
                "no device's statement on a key",
            );
        }
    }
}

/// The same of Yubico's newer tool.
#[test]
fn what_ykman_attests_is_proven() {
    let card = Piv::start();
    let place = Place::new(card.folder());
    place.write("root.pem", hwtests_piv_card::attestation_root_pem());
    let ykman = |words: &str| {
        let mut command = card.pcscd().command(programs::ykman());
        command.current_dir(card.folder()).args(["--device", &card.serial().to_string()]);
        programs::must(command.args(words.split_whitespace()));
    };
    ykman("piv certificates export f9 f9.pem");
    for (slot, algorithm) in [("9a", "ed25519"), ("9c", "eccp256"), ("82", "rsa3072")] {
        ykman(&format!(
            "piv keys generate -m {DEFAULT_MANAGEMENT_KEY} -a {algorithm} --pin-policy once --touch-policy always {slot} {slot}.pub"
        ));
        ykman(&format!("piv keys attest {slot} {slot}.att"));
        let json = place.proven(&format!(
            "{slot}.att --with f9.pem --key {slot}.pub --root root.pem --require touch=always --require firmware=5.7"
        ));
        assert_eq!(json["key"]["place"], format!("slot {slot}"));
        assert_eq!(json["device"]["serial"], card.serial().to_string());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cloud_hsm_behind_the_daemon_is_proven() {
    let google = Google::start();
    let table = google.toml("kms", PinSetup::Right) + "protection_level = \"hsm\"\n";
    let daemon = Daemon::start(&[table]).await;
    daemon.backend("kms").await;
    let place = Place::new(daemon.folder());
    place.write("roots.pem", google.kms().hsm_roots_pem());
    for (name, key_type) in
        [("ec", "ecdsa-p256"), ("ec384", "ecdsa-p384"), ("rsa", "rsa-3072"), ("ed", "ed25519")]
    {
        signer(&daemon, &format!("keys create kms/{name} --type {key_type}")).await;
        signer(&daemon, &format!("keys attest kms/{name} --out {name}.json")).await;
        place.write(&format!("{name}.pem"), signer(&daemon, &format!("keys show kms/{name} --pem")).await);
        let json = place.proven(&format!(
            "{name}.json --key {name}.pem --root roots.pem --require generated-inside --require not-exportable \
             --require device=google-hsm"
        ));
        assert_eq!(json["key"]["type"], key_type);
        assert_eq!(json["chains"].as_array().unwrap().len(), 2);
        place.refused(&format!("{name}.json --key {name}.pem"), "Marvell");
    }
    place.refused("ec.json --key rsa.pem --root roots.pem", "the statement is about another key");
    for part in 0..4 {
        place.change("rsa.json", "changed.json", part);
        place.refused("changed.json --key rsa.pem --root roots.pem", "error: ");
    }
    // As gcloud writes it: the attestation, and all certificates in one file.
    let json: serde_json::Value = serde_json::from_slice(&place.read("ec.json")).unwrap();
    let part = |i: usize| BASE64_STANDARD.decode(json["parts"][i].as_str().unwrap()).unwrap();
    place.write("attestation.dat", part(0));
    place.write("chains.pem", [part(1), part(2), part(3)].concat());
    place.proven("attestation.dat --with chains.pem --key ec.pem --root roots.pem");
    place.refused("attestation.dat --key ec.pem --root roots.pem", "no certificate came with the statement");
}

/// The attestation key of `signer keys attest`, as docs/attestation.md makes it with tpm2-tools.
const ATTESTATION_KEY: &str = "tpm2_createprimary -C e -g sha256 -G ecc256:ecdsa-sha256:null -c ak.ctx \
                               -a fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|sign";

#[tokio::test(flavor = "multi_thread")]
async fn a_tpm_behind_the_daemon_is_proven_once_its_attestation_key_is_enrolled() {
    let tpm = SwTpm::with_certificates();
    let place = Place::new(tpm.folder());
    let daemon = Daemon::start(&[tpm.toml("tpm", PinSetup::Right)]).await;
    daemon.backend("tpm").await;
    for (name, more) in [("ec", "--type ecdsa-p256"), ("rsa", "--type rsa-2048"), ("bound", "--pcrs 16")] {
        signer(&daemon, &format!("keys create tpm/{name} {more}")).await;
        place.write(&format!("{name}.json"), signer(&daemon, &format!("keys attest tpm/{name}")).await);
        place.write(&format!("{name}.pem"), signer(&daemon, &format!("keys show tpm/{name} --pem")).await);
    }
    // A bare TPM serves one at a time.
    assert!(daemon.stop().success());

    // 1. The endorsement key's certificate is of no maker that is known; under the given root it still proves nothing.
    place.refused("ec.json --key ec.pem", "neither a root nor in the statement");
    let said = place.refused(
        "ec.json --key ec.pem --root ca/issuer.pem",
        "nothing shows that the attestation key is in a TPM",
    );
    let name = said.split("--attester ").nth(1).unwrap().trim().to_owned();

    // 2. The TPM that has the certified endorsement key shows that it has this attestation key.
    let tool = |words: &str| tpm2(&tpm, words);
    tool(ATTESTATION_KEY);
    tool("tpm2_readpublic -c ak.ctx -f tss -o ak.pub -n ak.name");
    assert_eq!(hex::encode(place.read("ak.name")), name, "tpm2-tools make the same attestation key");
    let endorsement_key = endorsement_key(&tpm);
    tool(&format!("tpm2_readpublic -c {endorsement_key} -f tss -o ek.pub"));
    tool(&format!("tpm2_readpublic -c {endorsement_key} -f pem -o ek.pem"));
    let certified =
        programs::must(&mut tpm.openssl(&["x509", "-inform", "DER", "-in", "ek.der", "-noout", "-pubkey"]));
    assert_eq!(
        certified.trim(),
        String::from_utf8(place.read("ek.pem")).unwrap().trim(),
        "the EK is the certified one"
    );
    place.write("secret", b"only this TPM can read it");
    tool(&format!("tpm2_makecredential -T none -u ek.pub -s secret -n {name} -o credential"));
    tool(&format!("tpm2_activatecredential -c ak.ctx -C {endorsement_key} -i credential -o answer"));
    assert_eq!(place.read("answer"), place.read("secret"));

    // 3. From now on its word counts.
    for attester in [name.as_str(), "ak.pub"] {
        let json = place.proven(&format!(
            "ec.json --key ec.pem --root ca/issuer.pem --attester {attester} --require generated-inside \
             --require not-exportable --require device=tpm"
        ));
        assert_eq!(json["chains"][0].as_array().unwrap().len(), 2);
        assert_eq!(json["key"]["more"]["attestation_key"], name);
    }
    place.proven(&format!("rsa.json --key rsa.pem --root ca/issuer.pem --attester {name}"));
    let json = place.proven(&format!("bound.json --key bound.pem --root ca/issuer.pem --attester {name}"));
    let policy = json["key"]["policy"].as_str().unwrap().to_owned();
    place.proven(&format!(
        "bound.json --key bound.pem --root ca/issuer.pem --attester {name} --require policy={policy}"
    ));
    place.refused(
        &format!("ec.json --key ec.pem --root ca/issuer.pem --attester {name} --require policy={policy}"),
        "no policy is enforced",
    );
    place.refused(
        &format!("ec.json --key rsa.pem --root ca/issuer.pem --attester {name}"),
        "about another key",
    );
    place.refused(
        &format!("ec.json --key ec.pem --root ca/issuer.pem --attester {name} --nonce 00"),
        "this nonce",
    );
    for part in 0..5 {
        place.change("ec.json", "changed.json", part);
        place
            .refused(&format!("changed.json --key ec.pem --root ca/issuer.pem --attester {name}"), "error: ");
    }
}

/// A program of tpm2-tools; what it left in the TPM goes, for a bare TPM has room for three objects.
#[track_caller]
fn tpm2(tpm: &SwTpm, words: &str) -> String {
    let (program, arguments) = words.split_once(' ').unwrap();
    let said = programs::must(tpm.tool(program).args(arguments.split_whitespace()));
    programs::must(tpm.tool("tpm2_flushcontext").arg("-t"));
    said
}

/// Where swtpm_setup keeps the P-384 endorsement key that it has certified; the certificate goes to `ek.der`.
fn endorsement_key(tpm: &SwTpm) -> &'static str {
    const HANDLE: &str = "0x81010016";
    assert!(tpm2(tpm, "tpm2_getcap handles-persistent").contains(HANDLE));
    tpm2(tpm, "tpm2_nvread 0x1C00016 -o ek.der");
    HANDLE
}

/// What `tpm2_certify` writes of a key that tpm2-tools made.
#[test]
fn what_tpm2_certify_writes_is_proven() {
    let tpm = SwTpm::start();
    let place = Place::new(tpm.folder());
    let tool = |words: &str| tpm2(&tpm, words);
    tool(ATTESTATION_KEY);
    tool("tpm2_createprimary -C o -c parent.ctx");
    tool("tpm2_create -C parent.ctx -G ecc256 -u key.pub -r key.priv");
    tool("tpm2_load -C parent.ctx -u key.pub -r key.priv -c key.ctx");
    tool("tpm2_readpublic -c key.ctx -f pem -o key.pem");
    tool("tpm2_readpublic -c ak.ctx -f tss -o ak.pub");
    tool("tpm2_readpublic -c ak.ctx -f tpmt -o ak.tpmt");
    tool("tpm2_certify -c key.ctx -C ak.ctx -g sha256 -o attest -s signature");
    let json = place.proven(
        "attest --with signature --with key.pub --with ak.pub --key key.pem --attester ak.pub --require generated-inside",
    );
    assert_eq!(json["device"]["kind"], "tpm");
    // tpm2_certify gives the TPM these four bytes for a nonce, and has no option for others.
    assert_eq!(json["key"]["more"]["nonce"], "00ff55aa");
    let nonce =
        "attest --with signature --with key.pub --with ak.pub --key key.pem --attester ak.pub --nonce";
    place.proven(&format!("{nonce} 00ff55aa"));
    place.refused(&format!("{nonce} 00ff55ab"), "was not made for this nonce");
    place.proven("key.pub --with attest --with ak.tpmt --with signature --key key.pem --attester ak.tpmt");
    place.refused(
        "attest --with key.pub --with ak.pub --key key.pem",
        "the signature (tpm2_certify -s) is missing",
    );
    place.refused("attest --with signature --with key.pub --with ak.pub --key key.pem", "nothing shows");

    // A key that signs anything does not vouch for another one.
    tool("tpm2_create -C parent.ctx -G ecc256:ecdsa -u free.pub -r free.priv");
    tool("tpm2_load -C parent.ctx -u free.pub -r free.priv -c free.ctx");
    tool("tpm2_certify -c key.ctx -C free.ctx -g sha256 -o attest2 -s signature2");
    place.refused(
        "attest2 --with signature2 --with key.pub --with free.pub --key key.pem --attester free.pub",
        "anybody can have written it",
    );
}
