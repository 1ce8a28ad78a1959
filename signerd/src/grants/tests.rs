use proptest::prelude::*;

use super::*;

fn grant(callers: &[&str], keys: &[&str], operations: &[&str], algorithms: &[&str]) -> GrantConfig {
    let mut set = AlgorithmSet::NONE;
    for algorithm in algorithms {
        set |= algorithm.parse().unwrap();
    }
    GrantConfig {
        line: 1,
        callers: callers.iter().map(|c| c.parse().unwrap()).collect(),
        keys: keys.iter().map(|k| k.parse().unwrap()).collect(),
        operations: operations.iter().fold(Operations::NONE, |all, o| all | o.parse().unwrap()),
        algorithms: if algorithms.is_empty() { AlgorithmSet::ALL } else { set },
    }
}

fn compile(grants: &[GrantConfig], names: &[(&str, &str)]) -> Grants {
    let key = |members: &str| KeyConfig {
        members: members.split_whitespace().map(|m| m.parse().unwrap()).collect(),
        order: crate::config::Order::First,
        public_key: None,
    };
    let names = names.iter().map(|(name, members)| (name.parse().unwrap(), key(members))).collect();
    Grants::compile(grants, &names).0
}

fn alice() -> Identity {
    Identity::new(Some(1000), vec![1000, 50])
}

fn may(grants: &Grants, caller: &Identity, operation: &str, key: &str) -> bool {
    let names = grants.names_as_asked(&key.parse().unwrap());
    grants.allow(caller, operation.parse().unwrap(), &names)
}

#[test]
fn the_matrix_of_callers() {
    let bob = Identity::new(Some(1001), vec![1001]);
    for (pattern, alice_may, bob_may) in [
        ("uid:1000", true, false),
        ("gid:50", true, false),
        ("gid:1001", false, true),
        ("uid:50", false, false),
        ("any", true, true),
        ("user:no-such-user", false, false),
        ("group:no-such-group", false, false),
    ] {
        let grants = compile(&[grant(&[pattern], &["hsm/*"], &["sign"], &[])], &[]);
        assert_eq!(may(&grants, &alice(), "sign", "hsm/x"), alice_may, "{pattern}");
        assert_eq!(may(&grants, &bob, "sign", "hsm/x"), bob_may, "{pattern}");
    }
    let (_, warnings) =
        Grants::compile(&[grant(&["user:no-such-user"], &["*"], &["sign"], &[])], &BTreeMap::new());
    assert!(warnings[0].contains("no-such-user"));
}

#[test]
fn the_matrix_of_keys() {
    let names = [("release", "hsm/prod"), ("by-address", "pkcs11:object=z")];
    for (glob, fits, does_not) in [
        ("hsm/*", vec!["hsm/a", "hsm/a@2", "hsm/a/b", "release"], vec!["soft/a", "hsmx/a"]),
        ("hsm/prod", vec!["hsm/prod", "hsm/prod@7", "release"], vec!["hsm/prod2", "hsm/pro"]),
        ("hsm/prod@7", vec!["hsm/prod@7"], vec!["hsm/prod", "hsm/prod@8", "release"]),
        ("release", vec!["release", "hsm/prod", "hsm/prod@1"], vec!["hsm/release", "hsm/other"]),
        ("rel*", vec!["release", "hsm/prod"], vec!["hsm/release"]),
        ("*", vec!["release", "hsm/x", "by-address", "unknown"], vec![]),
        ("by-address", vec!["by-address", "pkcs11:object=z"], vec!["pkcs11:object=y", "release"]),
        ("hsm/a b%40c", vec!["hsm/a b%40c", "hsm/a%20b%40c"], vec!["hsm/a"]),
    ] {
        let grants = compile(&[grant(&["any"], &[glob], &["sign"], &[])], &names);
        for key in fits {
            assert!(may(&grants, &alice(), "sign", key), "{glob} {key}");
        }
        for key in does_not {
            assert!(!may(&grants, &alice(), "sign", key), "{glob} {key}");
        }
    }
}

#[test]
fn operations_and_algorithms_add_up_over_grants() {
    let grants = compile(
        &[
            grant(&["uid:1000"], &["hsm/a"], &["sign"], &["ecdsa-*"]),
            grant(&["gid:50"], &["hsm/*"], &["sign", "rotate"], &["ed25519"]),
            grant(&["uid:7"], &["hsm/*"], &["*"], &[]),
        ],
        &[],
    );
    let names = grants.names_as_asked(&"hsm/a".parse().unwrap());
    let set = grants.algorithms(&alice(), &names);
    assert_eq!(set.to_string(), "ecdsa-sha256, ecdsa-sha384, ecdsa-sha512, ed25519");
    let other = grants.names_as_asked(&"hsm/b".parse().unwrap());
    assert_eq!(grants.algorithms(&alice(), &other).to_string(), "ed25519");
    assert!(may(&grants, &alice(), "rotate", "hsm/b"));
    assert!(!may(&grants, &alice(), "delete", "hsm/b"));
    assert!(grants.see(&alice(), &other));
    assert!(!grants.see(&Identity::anybody(), &other));
}

#[test]
fn a_backend_is_seen_by_whoever_may_use_a_key_there() {
    let names = [("release", "kms/prod")];
    let grants = compile(&[grant(&["any"], &["hs*x", "soft/a", "release"], &["unlock"], &[])], &names);
    let allowed =
        |name: &str, op: &str| grants.allow_backend(&alice(), op.parse().unwrap(), &name.parse().unwrap());
    assert!(allowed("hsm", "unlock") && allowed("soft", "unlock") && allowed("kms", "unlock"));
    assert!(!allowed("sof", "unlock") && !allowed("gsm", "unlock") && !allowed("hsm", "watch"));
}

#[test]
fn explain_says_which_grant_decides_and_what_the_others_lack() {
    let grants = compile(
        &[
            grant(&["uid:7"], &["soft/*"], &["sign"], &[]),
            grant(&["uid:1000"], &["hsm/*"], &["sign"], &["ed25519"]),
        ],
        &[],
    );
    let ask = |algorithm: Option<&str>| {
        let algorithm = algorithm.map(|a| a.parse().unwrap());
        explain(&grants, &alice(), Operations::SIGN, &"hsm/x".parse().unwrap(), algorithm)
    };
    let (allowed, text) = ask(None);
    assert!(allowed && text.starts_with("allowed by grant 2 on line 1"), "{text}");
    assert!(text.contains("does not name the caller nor the key"), "{text}");
    let (allowed, text) = ask(Some("rsa-pss-sha256"));
    assert!(!allowed && text.contains("does not name the algorithm"), "{text}");
}

#[test]
fn a_denial_is_the_same_for_keys_that_are_there_and_keys_that_are_not() {
    let text = |key: &str| denied("alice", Operations::SIGN, key, None).to_string().replace(key, "KEY");
    assert_eq!(text("hsm/there"), text("hsm/not-there"));
}

proptest! {
    #[test]
    fn what_no_grant_allows_is_denied(
        uid in 0_u32..4, group in 0_u32..4,
        grants in proptest::collection::vec((0_u32..4, 0_u32..4, "[ab]", 0_usize..9), 0..6),
        backend in "[ab]", operation in 0_usize..9,
    ) {
        const NAMES: [&str; 9] =
            ["list", "sign", "create", "import", "delete", "rotate", "certificate", "unlock", "watch"];
        let caller = Identity::new(Some(uid), vec![group]);
        let configs: Vec<_> = grants
            .iter()
            .map(|(u, g, b, o)| grant(&[&format!("uid:{u}"), &format!("gid:{g}")], &[&format!("{b}/*")], &[NAMES[*o]], &[]))
            .collect();
        let compiled = compile(&configs, &[]);
        let wanted = grants
            .iter()
            .any(|(u, g, b, o)| (*u == uid || *g == group) && *b == backend && *o == operation);
        prop_assert_eq!(may(&compiled, &caller, NAMES[operation], &format!("{backend}/k")), wanted);
        let name = backend.parse().unwrap();
        prop_assert_eq!(compiled.allow_backend(&caller, NAMES[operation].parse().unwrap(), &name), wanted);
    }
}

#[test]
fn a_grant_on_one_place_of_a_key_is_a_grant_on_its_name() {
    let names = [("release", "hsm/prod vault/prod pkcs11:object=z")];
    let one = compile(&[grant(&["any"], &["vault/*"], &["sign"], &[])], &names);
    assert!(may(&one, &alice(), "sign", "release"));
    assert!(may(&one, &alice(), "sign", "vault/prod"));
    assert!(!may(&one, &alice(), "sign", "hsm/prod"), "a grant on one place is none on another");
    let named = compile(&[grant(&["any"], &["release"], &["sign"], &[])], &names);
    for key in ["release", "hsm/prod", "vault/prod", "vault/prod@3", "pkcs11:object=z"] {
        assert!(may(&named, &alice(), "sign", key), "{key}");
    }
    assert!(!may(&named, &alice(), "sign", "vault/other"));
}
