//! Times in reports: whole seconds since 1970.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::expiry::unix;

/// Writes a time.
pub fn to_unix<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_i64(unix(*time))
}

/// Reads one.
pub fn from_unix<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SystemTime, D::Error> {
    let seconds = u64::deserialize(deserializer)?;
    // A number that no clock shows means nothing.
    let time = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
    Ok(time.unwrap_or(SystemTime::UNIX_EPOCH))
}

/// Writes a time that may be unknown.
pub fn some_to_unix<S: Serializer>(time: &Option<SystemTime>, to: S) -> Result<S::Ok, S::Error> {
    time.map(unix).serialize(to)
}

/// Reads one.
pub fn some_from_unix<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SystemTime>, D::Error> {
    let seconds = Option::<u64>::deserialize(from)?;
    Ok(seconds.and_then(|own| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(own))))
}
