//! Runs `forwarder_fuzz::control` on what libFuzzer makes up.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| forwarder_fuzz::control(data));
