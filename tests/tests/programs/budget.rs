//! No program comes near the verifier's limit.

use forwarder_tests::programs::budget::Costs;
use forwarder_tests::programs::kernel::Kernel;

#[test]
fn every_program_is_far_from_the_limit() {
    let kernel = Kernel::load(&[]).unwrap_or_else(|error| panic!("{error:?}"));
    let costs = Costs::of(&kernel).unwrap();
    println!("{costs}");
    assert_eq!(costs.0.len(), 6 + forwarder_common::abi::stage::ALL.len());
    assert!(
        costs
            .0
            .iter()
            .all(|cost| cost.verified > 0 && cost.translated > 0)
    );
    assert_eq!(costs.excessive().count(), 0, "{costs}");
}
