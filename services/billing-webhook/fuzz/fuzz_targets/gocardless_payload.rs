#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| billing_webhook_fuzz::run("gocardless_payload", input));
