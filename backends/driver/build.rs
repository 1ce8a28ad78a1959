//! Generates the protocol's messages from `proto/driver.proto`, without protoc.

fn main() {
    println!("cargo:rerun-if-changed=proto/driver.proto");
    let files = protox::compile(["driver.proto"], ["proto"]).expect("driver.proto compiles");
    prost_build::Config::new()
        .bytes([".signerd.driver.v1.Sign.message"])
        .compile_fds(files)
        .expect("messages are generated");
}
