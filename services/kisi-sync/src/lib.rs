//! kisi-sync
