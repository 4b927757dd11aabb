#![doc = include_str!("../README.md")]

pub mod message;
pub mod subjects;
pub mod wire;

/// The compiled descriptors, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

macro_rules! package {
    ($package:literal) => {
        include!(concat!(env!("OUT_DIR"), "/", $package, ".rs"));
        include!(concat!(env!("OUT_DIR"), "/", $package, ".serde.rs"));
    };
}

/// `gymflow.billing.v1`: what payment providers said.
pub mod billing {
    #[allow(clippy::all, missing_docs)]
    pub mod v1 {
        package!("gymflow.billing.v1");
    }
}

/// `gymflow.membership.v1`: who holds what, and who is entitled.
pub mod membership {
    #[allow(clippy::all, missing_docs)]
    pub mod v1 {
        package!("gymflow.membership.v1");
    }
}

/// `gymflow.access.v1`: what Kisi accepted, and what people are told.
pub mod access {
    #[allow(clippy::all, missing_docs)]
    pub mod v1 {
        package!("gymflow.access.v1");
    }
}

/// `gymflow.integration.v1`: the link between a gym and its Kisi organization.
pub mod integration {
    #[allow(clippy::all, missing_docs)]
    pub mod v1 {
        package!("gymflow.integration.v1");
    }
}

/// `gymflow.kisi.v1`: kisi-sync as access-gateway sees it.
pub mod kisi {
    #[allow(clippy::all, missing_docs)]
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/gymflow.kisi.v1.rs"));
        include!(concat!(env!("OUT_DIR"), "/gymflow.kisi.v1.serde.rs"));
    }
}
