//! Runs `forwarder_fuzz::talk` on what libFuzzer makes up.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| forwarder_fuzz::talk(data));
