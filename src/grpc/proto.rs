//! The generated messages, servers and clients.

/// `proto/grpc_service.proto` and `proto/model_config.proto`: the Open Inference Protocol with Triton's extensions.
pub mod inference {
    #![expect(
        missing_docs,
        unused_qualifications,
        clippy::pedantic,
        reason = "generated code; the schema documents itself"
    )]

    // The protocol's package has these, too; they are generated apart, for those that know no protocol.
    pub use crate::triton::proto::*;

    tonic::include_proto!("inference");
}

/// `proto/convoy`: convoy's own services.
pub mod convoy {
    /// `proto/convoy/v1/image_classifier.proto`.
    pub mod v1 {
        #![expect(
            missing_docs,
            unused_qualifications,
            clippy::pedantic,
            reason = "generated code; the schema documents itself"
        )]

        tonic::include_proto!("convoy.v1");
    }
}

/// The schemas of both, as server reflection answers with them.
pub(super) const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/grpc_descriptors.bin"));
