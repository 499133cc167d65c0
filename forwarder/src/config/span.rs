//! Where in the configuration something stands.

use std::ops::Range;

/// Byte range within the configuration, counted through all its files (see [`super::Sources`]).
pub type Span = Range<usize>;
