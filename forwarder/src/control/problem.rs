//! Why a request was not met: a status, a message, and what to do about it.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::edit::EditError;
use crate::config::persist::PersistError;
use crate::config::replacement::ReplaceError;
use crate::instance::error::chain;
use crate::reconcile::refused::Refused;

/// The body of an answer that is not a success, below `error`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Problem {
    /// HTTP status.
    pub status: u16,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
    /// The findings about a configuration, as `forwarder check --json` writes them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report: Option<Value>,
    /// The same for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rendered: Option<String>,
}

impl Problem {
    /// A problem with this HTTP status.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status: status.as_u16(),
            message: message.into(),
            fix: None,
            report: None,
            rendered: None,
        }
    }

    /// Adds what to do about it.
    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    /// The request cannot be understood.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// Something failed that should not have; the whole chain of causes is told.
    pub fn internal(error: &dyn std::error::Error) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, chain(error))
    }

    /// A configuration with errors.
    pub fn invalid(message: impl Into<String>, report: &crate::config::Report) -> Self {
        Self {
            report: Some(report.to_json()),
            rendered: Some(report.render(false)),
            ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, message)
        }
    }
}

impl From<EditError> for Problem {
    fn from(error: EditError) -> Self {
        let status = match &error {
            EditError::Unknown { .. } => StatusCode::NOT_FOUND,
            EditError::Listed { .. } => StatusCode::CONFLICT,
            EditError::BadName { .. } | EditError::Empty(_) | EditError::Weight => {
                StatusCode::BAD_REQUEST
            }
        };
        let problem = Self::new(status, error.to_string());
        match error.fix() {
            Some(fix) => problem.fix(fix),
            None => problem,
        }
    }
}

impl From<PersistError> for Problem {
    fn from(error: PersistError) -> Self {
        match &error {
            PersistError::Invalid(report) => Self::invalid(error.to_string(), report),
            PersistError::Absent { .. } => Self::new(StatusCode::CONFLICT, chain(&error))
                .fix("the file was changed since it was read: `forwarder reload` first"),
            PersistError::NoKey | PersistError::NoWeight => Self::new(StatusCode::BAD_REQUEST, error.to_string())
                .fix("leave --persist out; to take a node out for good, remove it from its pools"),
            PersistError::Otherwise { source, .. } => {
                let fix = source.fix().unwrap_or_default();
                Self::new(StatusCode::CONFLICT, error.to_string())
                    .fix(format!("`forwarder reload` first, or edit the file; {fix}"))
            }
            PersistError::Layout { .. } => Self::new(StatusCode::CONFLICT, error.to_string())
                .fix("edit the file by hand and `forwarder reload`"),
            PersistError::Syntax { .. } => Self::new(StatusCode::CONFLICT, chain(&error))
                .fix("`forwarder check` shows what is wrong with it"),
            PersistError::Replace(ReplaceError::Changed { .. }) => {
                Self::new(StatusCode::CONFLICT, chain(&error))
                    .fix("nothing was written; `forwarder reload`, then try again")
            }
            PersistError::Replace(ReplaceError::Io { .. }) => Self::internal(&error).fix(
                "is the file system writable, also for the service (`ReadWritePaths=` of its unit)?",
            ),
        }
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let (message, fix) = (refused.message(), refused.fix());
        let status = match refused {
            Refused::Edit(error) => return error.into(),
            Refused::Persist(error) => return error.into(),
            Refused::NotWritten(error) => {
                let problem = Self::from(error);
                let message = format!("in use, but not written: {}", problem.message);
                return Self { message, ..problem };
            }
            Refused::Invalid(report) => {
                return Self::invalid(message, &report).fix(fix.unwrap_or_default());
            }
            Refused::Stopping => StatusCode::SERVICE_UNAVAILABLE,
            Refused::Unreadable(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Refused::NotApplied { .. } => StatusCode::CONFLICT,
            Refused::Flows(_) | Refused::Lost(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let problem = Self::new(status, message);
        match fix {
            Some(fix) => problem.fix(fix),
            None => problem,
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(serde_json::json!({ "error": self }))).into_response()
    }
}
