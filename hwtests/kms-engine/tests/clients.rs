//! The engine under the vendors' own Python clients: what keeps it honest.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use hwtests_kms_engine::{
    AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AZURE_CLIENT_ID, AZURE_CLIENT_SECRET, AZURE_TENANT, Engine,
};

/// A Python with the clients in it, installed once into the user's cache.
fn python() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../engines/kms-clients.sh");
        let output = Command::new(&script).stderr(Stdio::inherit()).output().expect("bash runs scripts");
        assert!(output.status.success(), "{} failed: it says above what is missing", script.display());
        PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())
    })
}

fn drive(face: &str) {
    let (engine, folder) = (Engine::start(), tempfile::tempdir().expect("a temporary folder can be made"));
    let write = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).expect("a temporary file can be written");
        path
    };
    let line = serde_json::json!({
        "url": engine.url(),
        "tls_url": engine.tls_url(),
        "ca": write("ca.pem", engine.ca_pem()),
        "google_credentials": write("google.json", &engine.google_service_account()),
        "aws_access_key_id": AWS_ACCESS_KEY_ID,
        "aws_secret_access_key": AWS_SECRET_ACCESS_KEY,
        "azure_tenant": AZURE_TENANT,
        "azure_client_id": AZURE_CLIENT_ID,
        "azure_client_secret": AZURE_CLIENT_SECRET,
    });
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients.py");
    let output = Command::new(python())
        .args([script.as_os_str(), face.as_ref(), line.to_string().as_ref()])
        .env("HOME", folder.path())
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env_remove("HTTPS_PROXY")
        .env_remove("HTTP_PROXY")
        .stdin(Stdio::null())
        .output()
        .expect("the Python of the script runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{face}: {}{}\n{}",
        text(&output.stdout),
        text(&output.stderr),
        engine.all_seen()
    );
    assert_eq!(text(&output.stdout).trim(), "ok");
}

#[test]
fn boto3_python() {
    drive("aws");
}

#[test]
fn google_cloud_kms_python() {
    drive("google");
}

#[test]
fn azure_keyvault_keys_python() {
    drive("azure");
}
