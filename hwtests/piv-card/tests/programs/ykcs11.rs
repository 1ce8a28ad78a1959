//! `ykcs11`, Yubico's PKCS#11 module, through OpenSC's `pkcs11-tool`.

use hwtests_piv_card::Firmware;

use crate::support::{Bench, MANAGEMENT_KEY, module};

#[test]
fn lists_signs_and_generates() {
    let bench = Bench::new(Firmware::V5_4_3);
    let module = module("libykcs11.so", "ykcs11");
    let tool = |words: &str| bench.run("pkcs11-tool", &format!("--module {module} {words}"));

    tool(&format!(
        "--login --login-type so --so-pin {MANAGEMENT_KEY} --keypairgen --key-type EC:prime256v1 --id 02"
    ));
    tool(&format!(
        "--login --login-type so --so-pin {MANAGEMENT_KEY} --keypairgen --key-type rsa:2048 --id 01"
    ));
    let list = tool("--login --pin 123456 --list-objects");
    for word in ["Private key for Digital Signature", "Private key for PIV Authentication", "PIV Attestation"]
    {
        assert!(list.contains(word), "{word}: {list}");
    }

    // 9c is 02, and asks for the PIN before each signature.
    tool("--login --pin 123456 --sign -m ECDSA-SHA256 --signature-format openssl --id 02 -i message -o ec");
    tool("--login --pin 123456 --sign -m SHA256-RSA-PKCS --id 01 -i message -o rsa");
    tool("--login --pin 123456 --sign -m SHA256-RSA-PKCS-PSS --id 01 -i message -o pss");
    for (id, public) in [("02", "ec.der"), ("01", "rsa.der")] {
        tool(&format!("--read-object --type pubkey --id {id} -o {public}"));
    }
    bench.run("openssl", "dgst -sha256 -keyform DER -verify ec.der -signature ec message");
    bench.run("openssl", "dgst -sha256 -keyform DER -verify rsa.der -signature rsa message");
    bench.run(
        "openssl",
        "dgst -sha256 -keyform DER -verify rsa.der -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:32 -signature pss message",
    );
    let state = bench.card.state();
    assert_eq!((state.counters.failed_verifies, state.counters.failed_signatures), (0, 0));
}
