//! Generates the API's messages, client and server from `proto/`, without protoc, and keeps the descriptors for
//! server reflection.

use prost::Message;

fn main() {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(["signerd/v1/signerd.proto"], ["proto"]).expect("signerd.proto compiles");
    let out = std::path::PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    std::fs::write(out.join("signerd.bin"), files.encode_to_vec()).expect("descriptors are written");
    tonic_prost_build::configure()
        .bytes(".signerd.v1.SignRequest.message")
        .bytes(".signerd.v1.SignStreamRequest.message")
        // What holds a secret or what is to be signed prints itself by hand: src/redacted.rs.
        .skip_debug([
            ".signerd.v1.SignRequest",
            ".signerd.v1.SignRequest.input",
            ".signerd.v1.SignStreamRequest",
            ".signerd.v1.SignStreamRequest.input",
            ".signerd.v1.ImportKeyRequest",
            ".signerd.v1.UnlockRequest",
        ])
        .compile_fds(files)
        .expect("code is generated");
}
