//! The service that tonic calls, without a compiler for its description.

use tonic_build::manual::{Builder, Method, Service};

fn main() {
    let null = Method::builder()
        .name("null")
        .route_name("Null")
        .input_type("crate::with_tonic::Nothing")
        .output_type("crate::with_tonic::Nothing")
        .codec_path("tonic_prost::ProstCodec")
        .build();
    let calls = Service::builder()
        .name("Calls")
        .package("beside")
        .method(null)
        .build();
    Builder::new().compile(&[calls]);
    println!("cargo:rerun-if-changed=build.rs");
}
