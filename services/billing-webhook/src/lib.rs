//! billing-webhook
