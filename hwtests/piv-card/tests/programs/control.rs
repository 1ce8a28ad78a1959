//! The program `piv-card`, led through its control socket.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use hwtests_piv_card::{Pcscd, attestation_root_pem};
use serde_json::{Value, json};

use crate::support::end;

/// The program, inside the namespaces of a `pcscd`; it is told to end when this is dropped.
struct Program {
    child: Child,
    control: BufReader<UnixStream>,
}

impl Program {
    fn start(pcscd: &Pcscd) -> Self {
        let socket = pcscd.folder().join("control");
        let child = Command::new("nsenter")
            .args(["--target", &pcscd.pid().to_string(), "--net", env!("CARGO_BIN_EXE_piv-card")])
            .args(["--serial", "4242", "--firmware", "5.4.3", "--control"])
            .arg(&socket)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let start = Instant::now();
        let stream = loop {
            match UnixStream::connect(&socket) {
                Ok(stream) => break stream,
                Err(e) => assert!(start.elapsed() < Duration::from_secs(10), "{e}"),
            }
            thread::sleep(Duration::from_millis(10));
        };
        Self { child, control: BufReader::new(stream) }
    }

    fn ask(&mut self, order: &Value) -> Value {
        self.control.get_mut().write_all(format!("{order}\n").as_bytes()).unwrap();
        let mut line = String::new();
        self.control.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_program_is_led_by_lines_of_json() {
    let pcscd = Pcscd::start().unwrap();
    let mut program = Program::start(&pcscd);
    pcscd.wait_for_cards(1).unwrap();
    let tool = |words: &str| {
        let mut command = pcscd.command("yubico-piv-tool");
        command.args(words.split(' ')).current_dir(pcscd.folder());
        command
    };
    assert!(end(tool("-a status")).1.contains("4242"));
    assert!(!end(tool("-a verify-pin -P 111111")).0);
    let state = program.ask(&json!({"do": "state"}));
    assert_eq!(
        [&state["pin_tries"], &state["verifies"], &state["failed_verifies"], &state["touch_awaited"]],
        [&json!(2), &json!(1), &json!(1), &json!(false)]
    );
    assert_eq!(program.ask(&json!({"do": "set", "pin_tries": 1}))["ok"], true);
    assert_eq!(program.ask(&json!({"do": "state"}))["pin_tries"], 1);

    assert!(end(tool("-s 9e -A ECCP256 --touch-policy always -a generate -o pub.pem")).0);
    std::fs::write(pcscd.folder().join("message"), "what is signed").unwrap();
    let mut child = tool("-s 9e --sign -A ECCP256 -H SHA256 -i message -o signature").spawn().unwrap();
    let start = Instant::now();
    while program.ask(&json!({"do": "state"}))["touch_awaited"] == false {
        assert!(start.elapsed() < Duration::from_secs(10));
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(program.ask(&json!({"do": "touch"}))["awaited"], true);
    assert!(child.wait().unwrap().success());

    let fault = json!({"do": "fault", "kind": "status", "sw": "6f00", "ins": "20", "count": 1});
    assert_eq!(program.ask(&fault)["ok"], true);
    assert!(!end(tool("-a verify-pin -P 123456")).0);
    assert!(end(tool("-a verify-pin -P 123456")).0);

    for nonsense in [json!({"do": "dance"}), json!({"do": "fault", "kind": "slow"}), json!(5)] {
        let answer = program.ask(&nonsense);
        assert!(answer["ok"] == false && answer["error"].is_string(), "{answer}");
    }

    program.ask(&json!({"do": "remove"}));
    pcscd.wait_for_cards(0).unwrap();
    program.ask(&json!({"do": "swap", "serial": 4243}));
    pcscd.wait_for_cards(1).unwrap();
    assert!(end(tool("-a status")).1.contains("4243"));
    assert_eq!(program.ask(&json!({"do": "quit"}))["ok"], true);
    assert!(program.child.wait().unwrap().success());
}

#[test]
fn the_root_is_printed() {
    let output = Command::new(env!("CARGO_BIN_EXE_piv-card")).arg("--print-root").output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), attestation_root_pem());
}
