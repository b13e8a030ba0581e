#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| authgate::gateway::reach::reach(bytes));
