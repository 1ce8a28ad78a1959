//! Generates Rekor v2's messages and server from `proto/`, without protoc.

fn main() {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(["rekor_v2.proto"], ["proto"]).expect("the protocol compiles");
    tonic_prost_build::configure()
        .include_file("generated.rs")
        .compile_fds(files)
        .expect("code is generated");
}
