#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| authgate::gateway::properties::answer(bytes));
