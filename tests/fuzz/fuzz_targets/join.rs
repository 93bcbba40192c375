#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kubeedge_tests::fuzz::join(bytes));
