//! Compiles `proto/` without a system `protoc`: protox parses, tonic-prost-build generates messages
//! and services, pbjson-build the canonical proto3 JSON mapping.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;

const FILES: &[&str] = &[
    "gymflow/billing/v1/billing.proto",
    "gymflow/membership/v1/events.proto",
    "gymflow/membership/v1/service.proto",
    "gymflow/access/v1/events.proto",
    "gymflow/access/v1/service.proto",
    "gymflow/integration/v1/events.proto",
    "gymflow/integration/v1/service.proto",
    "gymflow/kisi/v1/service.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    println!("cargo:rerun-if-changed={}", root.display());
    let out = PathBuf::from(env::var("OUT_DIR")?);

    let mut compiler = protox::Compiler::new([&root])?;
    compiler.include_source_info(true).include_imports(true);
    for file in FILES {
        compiler.open_file(root.join(file))?;
    }
    let descriptors = compiler.file_descriptor_set();
    let bytes = descriptors.encode_to_vec();
    // Reflection answers from this set.
    fs::write(out.join("descriptors.bin"), &bytes)?;

    tonic_prost_build::configure()
        .compile_well_known_types(true)
        .extern_path(".google.protobuf", "::pbjson_types")
        .build_transport(true)
        .compile_fds(descriptors)?;

    pbjson_build::Builder::new()
        .register_descriptors(&bytes)?
        .ignore_unknown_fields()
        .build(&[".gymflow"])?;
    Ok(())
}
