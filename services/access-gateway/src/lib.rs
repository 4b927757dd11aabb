//! access-gateway
