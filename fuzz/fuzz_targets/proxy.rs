//! Runs `forwarder_fuzz::proxy` on what libFuzzer makes up.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| forwarder_fuzz::proxy(data));
