//! Errors in one line.

/// An error and its causes in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(own) = cause {
        let own_text = own.to_string();
        if !text.ends_with(&own_text) {
            text = format!("{text}: {own_text}");
        }
        cause = own.source();
    }
    text
}
