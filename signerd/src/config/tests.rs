use std::path::Path;

use super::*;

const PATH: &str = "/etc/signerd/signerd.toml";

fn parse(text: &str) -> Result<Config, Faults> {
    Config::parse(Path::new(PATH), text, &Overrides::default())
}

fn faults(text: &str) -> String {
    match parse(text) {
        Ok(config) => panic!("{text}\nwas accepted: {config:?}"),
        Err(faults) => faults.to_string(),
    }
}

#[test]
fn the_example_is_well_formed_as_it_is_and_with_everything_in_it() {
    let config = parse(crate::EXAMPLE).unwrap();
    assert_eq!(config.limits, Limits::default(), "the example shows the defaults");
    assert_eq!(config.warnings, [""; 0]);
    // Settings in comments have no blank after their #.
    let setting = |line: &str| {
        let rest = line.strip_prefix('#').filter(|r| r.starts_with('[') || r.contains(" = "));
        rest.filter(|r| r.starts_with(|c: char| c == '[' || c.is_ascii_lowercase()))
            .unwrap_or(line)
            .to_owned()
    };
    let everything: Vec<_> = crate::EXAMPLE.lines().map(setting).collect();
    let config = parse(&everything.join("\n")).unwrap();
    assert_eq!(config.backends.len(), 9);
    assert_eq!(config.grants.len(), 2);
    assert_eq!(config.keys.len(), 2);
    assert!(config.socket_group.is_some() && config.metrics.listen.is_some());
    let audit = config.audit.unwrap();
    assert_eq!(audit.max_unsigned, Duration::from_mins(1), "the example shows the defaults");
    assert_eq!(audit.checkpoint_every, Duration::from_secs(1), "the example shows the defaults");
    assert!(audit.denied && !audit.reads, "the example shows the defaults");
}

#[test]
fn what_is_wrong_with_an_audit_log_is_told() {
    let soft = "[[backend]]\nname = \"soft\"\nkind = \"software\"\n";
    let text =
        |more: &str| format!("{soft}[audit]\nkey = \"soft/audit\"\norigin = \"audit.example\"\n{more}");
    let config = parse(&text("")).unwrap().audit.unwrap();
    assert_eq!(config.directory, default_state().join("audit"));
    assert_eq!(
        parse(&text("directory = \"log\"")).unwrap().audit.unwrap().directory,
        Path::new("/etc/signerd/log")
    );
    for (more, line, word) in [
        ("keys = \"x\"", 7, "keys"),
        ("max_unsigned = \"1 s\"", 7, "twice"),
        ("checkpoint_every = \"1 ms\"", 7, "10 ms"),
        ("[[key]]\nname = \"a\"\nmembers = [\"soft/audit\"]", 5, "[[key]] a"),
        ("[[grant]]\ncallers = [\"any\"]\nkeys = [\"soft/audit\"]\noperations = [\"sign\"]", 5, "line 7"),
    ] {
        let shown = faults(&text(more));
        assert!(shown.contains(&format!("{PATH}:{line}:")) && shown.contains(word), "{more}\n{shown}");
    }
    for (from, to, line) in [
        ("soft/audit", "hsm/audit", 5),
        ("soft/audit", "audit", 5),
        ("soft/audit", "pkcs11:object=audit", 5),
        ("audit.example", "audit example", 6),
        ("audit.example", "", 6),
    ] {
        let shown = faults(&text("").replace(from, to));
        assert!(shown.contains(&format!("{PATH}:{line}:")), "{to}\n{shown}");
    }
    // Grants that name more than this key are as they are; signing with it is refused all the same.
    let grant = "[[grant]]\ncallers = [\"any\"]\nkeys = [\"soft/*\"]\noperations = [\"sign\"]";
    assert!(parse(&text(grant)).is_ok());
}

#[test]
fn an_unknown_setting_anywhere_names_its_line() {
    let backend = "[[backend]]\nname = \"soft\"\nkind = \"software\"\n";
    for (text, line) in [
        ("sokcet = \"/s\"".to_owned(), 1),
        ("\n[log]\ncolour = \"red\"".to_owned(), 3),
        ("[limits]\nqueue = 3\nquue = 4".to_owned(), 3),
        ("[metrics]\n\n\nprot = 1".to_owned(), 4),
        (format!("{backend}modul = \"x\""), 4),
        (format!("{backend}module = \"x\""), 4),
        (format!("{backend}pin = {{ file = \"x\" }}"), 4),
        ("[[backend]]\nname = \"v\"\nkind = \"vault-transit\"\naddres = \"x\"".to_owned(), 4),
        ("[[backend]]\nname = \"a\"\nkind = \"aws-kms\"\naccess_key = \"x\"".to_owned(), 4),
        ("[[backend]]\nname = \"g\"\nkind = \"google-kms\"\nrings = []".to_owned(), 4),
        ("[[backend]]\nname = \"t\"\nkind = \"tpm\"\ntcit = \"x\"".to_owned(), 4),
        ("[[backend]]\nname = \"p\"\nkind = \"piv\"\nmodule = \"x\"".to_owned(), 4),
        ("[[grant]]\ncallers = [\"any\"]\nkeys = [\"*\"]\noperations = [\"sign\"]\nuntil = 3".to_owned(), 5),
        ("[[key]]\nname = \"a\"\nmember = [\"soft/a\"]".to_owned(), 3),
        ("[[backnd]]\nname = \"soft\"".to_owned(), 1),
    ] {
        let shown = faults(&text);
        assert!(shown.contains(&format!("{PATH}:{line}:")), "{text}\n{shown}");
    }
}

#[test]
fn a_secret_in_the_file_is_refused_and_never_repeated() {
    let pkcs11 = "[[backend]]\nname = \"hsm\"\nkind = \"pkcs11\"\nmodule = \"/m.so\"\ntoken = \"t\"\n";
    for line in [
        "pin = \"hunter2\"",
        "pin = { value = \"hunter2\" }",
        "pin = { \"hunter2\" = \"\" }",
        "pin = [\"hunter2\"]",
        "pin = \"hunter2",
        "pni = \"hunter2\"",
        "pin = { file = \"/f\", value = \"hunter2\" }",
        "pin = { file = \"/f\", env = \"hunter2\" }",
        "pin =\n  \"hunter2\"",
        "pin = '''\nhunter2'''",
    ] {
        let shown = faults(&format!("{pkcs11}{line}\n"));
        assert!(!shown.contains("hunter2"), "{line}: {shown}");
        assert!(shown.contains(":6:") || shown.contains(":7:"), "{line}: {shown}");
    }
    for line in ["pin = 424242", "pin = 4242.42", "pin = 424242-"] {
        let shown = faults(&format!("{pkcs11}{line}\n"));
        assert!(!shown.contains("4242"), "{line}: {shown}");
    }
}

#[test]
fn a_secret_in_the_table_of_a_service_is_never_repeated() {
    for (kind, line) in [
        ("vault-transit", "login = { method = \"token\", token = \"hunter2\" }"),
        ("vault-transit", "login = { method = \"token\", token = { file = \"/f\", value = \"hunter2\" } }"),
        ("vault-transit", "token = \"hunter2\""),
        ("azure-key-vault", "client_secret = \"hunter2\""),
        ("azure-key-vault", "client_secret = { value = \"hunter2\" }"),
        ("aws-kms", "secret_access_key = \"hunter2\""),
        ("google-kms", "credentials = { private_key = \"hunter2\" }"),
        ("piv", "pin = \"hunter2\""),
        ("tpm", "owner_auth = \"hunter2\""),
    ] {
        let shown = faults(&format!("[[backend]]\nname = \"a\"\nkind = \"{kind}\"\n{line}\n"));
        assert!(!shown.contains("hunter2"), "{kind}, {line}: {shown}");
    }
}

#[test]
fn every_kind_is_read_and_its_paths_begin_at_the_file() {
    let config = parse(
        r#"
        [[backend]]
        name = "yubikey"
        kind = "piv"
        serial = 123
        pin = "prompt"
        management_key_file = "mgm"

        [[backend]]
        name = "tpm"
        kind = "tpm"

        [[backend]]
        name = "vault"
        kind = "vault-transit"
        address = "https://vault:8200"
        ca_file = "ca.pem"
        login = { method = "approle", role_id = "r", secret_id = { file = "secret" } }

        [[backend]]
        name = "aws"
        kind = "aws-kms"
        region = "eu-west-1"

        [[backend]]
        name = "google"
        kind = "google-kms"
        key_ring = "projects/p/locations/l/keyRings/r"
        credentials = "google.json"

        [[backend]]
        name = "azure"
        kind = "azure-key-vault"
        vault = "https://v.vault.azure.net"
        client_secret = { file = "azure" }
        "#,
    )
    .unwrap();
    let kinds: Vec<_> = config.backends.iter().map(BackendConfig::kind_name).collect();
    assert_eq!(kinds, ["piv", "tpm", "vault-transit", "aws-kms", "google-kms", "azure-key-vault"]);
    let BackendKind::Driver(piv) = &config.backends[0].kind else { panic!() };
    assert_eq!(piv.program, Path::new("signerd-piv"));
    assert_eq!(
        (&piv.options["serial"], &piv.options["management_key_file"]),
        (&123.into(), &"/etc/signerd/mgm".into())
    );
    let BackendKind::Driver(tpm) = &config.backends[1].kind else { panic!() };
    assert_eq!(tpm.options["state"], config.state.join("tpm").to_str().unwrap());
    let BackendKind::Vault(vault) = &config.backends[2].kind else { panic!() };
    assert_eq!(vault.ca_file.as_deref(), Some(Path::new("/etc/signerd/ca.pem")));
    let BackendKind::Google(google) = &config.backends[4].kind else { panic!() };
    assert_eq!(google.credentials.as_deref(), Some(Path::new("/etc/signerd/google.json")));
}

#[test]
fn what_makes_no_sense_is_told_at_its_place() {
    let soft = "[[backend]]\nname = \"soft\"\nkind = \"software\"\n";
    for (text, reason) in [
        ("socket_mode = 660", "permissions"),
        ("[limits]\nmax_message = \"3 furlongs\"", "16 MiB"),
        ("[limits]\nqueue = 0", "at least 1"),
        ("[limits]\nqueue = -1", "u32"),
        ("[limits]\ndefault_deadline = 0", "24 h"),
        ("[log]\nformat = \"xml\"", "xml"),
        ("[metrics]\nlisten = \"localhost\"", "socket address"),
        ("[[backend]]\nname = \"a/b\"\nkind = \"software\"", "not a name"),
        ("[[backend]]\nname = \"a\"\nkind = \"floppy\"", "floppy"),
        ("[[backend]]\nname = \"a\"\nkind = \"pkcs11\"\nmodule = \"/m\"", "token"),
        ("[[backend]]\nname = \"a\"\nkind = \"pkcs11\"\ntoken = \"t\"", "module"),
        (
            "[[backend]]\nname = \"a\"\nkind = \"pkcs11\"\nmodule = \"/m\"\ntoken = \"t\"\nserial = \"s\"",
            "not by both",
        ),
        ("[[backend]]\nname = \"a\"\nkind = \"driver\"", "program"),
        ("[[grant]]\ncallers = [\"alice\"]\nkeys = [\"*\"]\noperations = [\"sign\"]", "user:NAME"),
        ("[[grant]]\ncallers = [\"uid:x\"]\nkeys = [\"*\"]\noperations = [\"sign\"]", "number"),
        ("[[grant]]\ncallers = []\nkeys = [\"*\"]\noperations = [\"sign\"]", "grants nothing"),
        ("[[grant]]\ncallers = [\"any\"]\nkeys = [\"*\"]\noperations = [\"fly\"]", "fly"),
        ("[[grant]]\ncallers = [\"any\"]\nkeys = [\"soft/\"]\noperations = [\"sign\"]", "key"),
        ("[[key]]\nname = \"a\"\nmembers = [\"soft/a\"]", "no [[backend]]"),
        ("[[key]]\nname = \"a\"\nmembers = []", "empty"),
        ("[[key]]\nname = \"a\"\nmembers = [\"x/a\", \"x/b\"]", "no [[backend]]"),
        ("[[key]]\nname = \"a\"\nmembers = [\"awskms:///a\", \"awskms:///a\"]", "a member already"),
        ("[[key]]\nname = \"a\"\nmembers = [\"awskms:///a\"]\norder = \"last\"", "unknown variant"),
        ("[[key]]\nname = \"a\"\nmembers = [\"awskms:///a\"]\npublic_key = \"a.pem\"", "this key has one"),
        (
            "[[key]]\nname = \"a\"\nmembers = [\"awskms:///a\", \"awskms:///b\"]\npublic_key = \"a.pem\"",
            "/etc/signerd/a.pem cannot be read",
        ),
        ("[[key]]\nname = \"a\"\nmembers = [\"b\"]", "backend/key"),
        (&format!("{soft}{soft}"), "two backends"),
    ] {
        let shown = faults(text);
        assert!(shown.contains(reason), "{text}\n{shown}");
        assert!(shown.contains(&format!("{PATH}:")), "{shown}");
    }
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let text = "[[grant]]\ncallers = [\"a\", \"b\"]\nkeys = [\"*\"]\noperations = [\"fly\"]\n";
    assert_eq!(parse(text).unwrap_err().0.len(), 3);
}

#[test]
fn relative_paths_begin_at_the_file() {
    let config =
        parse("socket = \"s\"\nstate = \"st\"\n[[backend]]\nname = \"a\"\nkind = \"software\"\n").unwrap();
    assert_eq!(config.socket, Path::new("/etc/signerd/s"));
    let BackendKind::Software(table) = &config.backends[0].kind else { panic!() };
    assert_eq!(table.directory, Path::new("/etc/signerd/st/keys"));
}

#[test]
fn a_driver_gets_its_options_and_nothing_that_is_for_the_daemon() {
    let config = parse(
        "[[backend]]\nname = \"hsm\"\nkind = \"pkcs11\"\nmodule = \"lib/m.so\"\ntoken = \"t\"\npin = \"prompt\"\nprocesses = 3\n\
         environment = { A = \"b\" }\noptions = { more = [1, true] }\n",
    )
    .unwrap();
    let BackendKind::Driver(table) = &config.backends[0].kind else { panic!() };
    let wanted = serde_json::json!({"module": "/etc/signerd/lib/m.so", "token": "t", "more": [1, true]});
    assert_eq!(table.options, wanted);
    assert_eq!((table.processes, table.pin.clone()), (3, Some(SecretSource::Prompt)));
    assert_eq!(table.environment["A"], "b");
}

#[test]
fn the_same_table_is_the_same_backend_wherever_it_stands() {
    let table = "[[backend]]\nname = \"a\"\nkind = \"software\"\n";
    let one = parse(table).unwrap();
    let two = parse(&format!("[log]\nlevel = \"warn\"\n\n{table}queue = 1024\n")).unwrap();
    assert_ne!(one.backends, two.backends);
    assert_eq!(one.backends, parse(&format!("# a comment\n\n{table}")).unwrap().backends);
}

#[test]
fn a_secret_that_others_may_read_is_refused_with_the_fix() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pin");
    std::fs::write(&path, "hunter2\n").unwrap();
    let source = SecretSource::File(path.clone());
    for (mode, fine) in [(0o600, true), (0o400, true), (0o644, false), (0o604, false), (0o660, false)] {
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        match source.load() {
            Ok(pin) => assert!(fine && pin.unwrap().expose() == "hunter2", "{mode:o}"),
            Err(e) => {
                assert!(!fine, "{mode:o}: {e}");
                assert!(e.to_string().contains("chmod 6") && !e.to_string().contains("hunter2"), "{e}");
            }
        }
    }
    for bad in ["", "\n", "a\0b"] {
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        std::fs::write(&path, bad).unwrap();
        assert!(source.load().is_err());
    }
}

#[test]
fn a_key_in_several_places_has_an_order_and_perhaps_a_public_key() {
    // RFC 8410 section 10.1.
    const PEM: &str = "-----BEGIN PUBLIC KEY-----\n\
        MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("release.pem"), PEM).unwrap();
    let text = "[[backend]]\nname = \"soft\"\nkind = \"software\"\n\
        [[key]]\nname = \"plain\"\nmembers = [\"soft/a\", \"awskms:///alias/a\"]\n\
        [[key]]\nname = \"turns\"\nmembers = [\"soft/a\", \"soft/b\"]\norder = \"round-robin\"\n\
        public_key = \"release.pem\"\n";
    let config = Config::parse(&folder.path().join("signerd.toml"), text, &Overrides::default()).unwrap();
    let key = |name: &str| config.keys.get(&name.parse().unwrap()).unwrap().clone();
    assert_eq!((key("plain").order, key("plain").members.len()), (Order::First, 2));
    assert_eq!(key("plain").public_key, None);
    assert_eq!(key("turns").order, Order::RoundRobin);
    assert_eq!(key("turns").public_key.unwrap().to_pem(), PEM);
}

#[test]
fn a_pins_time_is_a_cards_by_default() {
    let ttl = |kind: &str, more: &str| {
        let text = match kind {
            "pkcs11" => "module = \"/m.so\"\ntoken = \"t\"\n",
            "driver" => "program = \"/d\"\n",
            _ => "",
        };
        let config = parse(&format!("[[backend]]\nname = \"a\"\nkind = {kind:?}\n{text}{more}\n"));
        config.map(|config| match &config.backends[0].kind {
            BackendKind::Driver(table) => table.pin_ttl.map(|ttl| ttl.as_secs()),
            other => panic!("{other:?}"),
        })
    };
    for (kind, default) in [("piv", Some(900)), ("tpm", None), ("pkcs11", None), ("driver", None)] {
        assert_eq!(ttl(kind, "").unwrap(), default, "{kind}");
        assert_eq!(ttl(kind, "pin_ttl = \"2 h\"").unwrap(), Some(7200), "{kind}");
        assert_eq!(ttl(kind, "pin_ttl = 90").unwrap(), Some(90), "{kind}");
        assert_eq!(ttl(kind, "pin_ttl = \"unlimited\"").unwrap(), None, "{kind}");
        for bad in ["0", "\"500 ms\"", "\"200 h\"", "\"soon\"", "true"] {
            let faults = ttl(kind, &format!("pin_ttl = {bad}")).unwrap_err();
            assert!(faults.to_string().contains("signerd.toml:"), "{kind} {bad}: {faults}");
        }
    }
}
