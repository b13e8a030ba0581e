#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| authgate::policy::explain::reach::reach(bytes));
