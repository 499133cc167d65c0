//! TCP options.

use forwarder_common::tcp::{NO_SCALE, OptionBytes, SynOptions};

/// The option block of a SYN: an end in bounded time, values in range, nothing
/// read outside of what may be asked for.
pub fn options(data: &[u8]) {
    struct Block<'a>(&'a [u8]);

    impl OptionBytes for Block<'_> {
        fn byte(&self, at: u32) -> u8 {
            assert!(at <= 43);
            self.0.get(at as usize).copied().unwrap_or(0xff)
        }
    }

    let block = &data[..data.len().min(40)];
    let mut read = SynOptions::START;
    let mut steps = 0;
    while read.step(&Block(block), block.len() as u32) {
        steps += 1;
        assert!(steps <= block.len());
    }
    assert!((1..=0xffff).contains(&read.mss));
    assert!(read.scale <= 14 || read.scale == NO_SCALE);
    assert!(read.sack <= 1);
}
