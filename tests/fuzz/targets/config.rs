#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| authgate::config::properties::any_text(bytes));
