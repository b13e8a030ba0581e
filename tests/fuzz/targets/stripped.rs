#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| authgate::proxy::properties::stripped(bytes));
