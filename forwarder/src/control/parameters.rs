//! What a request's address says beside the path itself; what cannot be understood is answered like any other problem.

use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::problem::Problem;

/// Parameters of a request.
#[derive(Clone, Copy, Debug)]
pub struct Parameters<T>(pub T);

impl<S: Sync, T: DeserializeOwned> FromRequestParts<S> for Parameters<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        match Query::try_from_uri(&parts.uri) {
            Ok(Query(own)) => Ok(Self(own)),
            Err(error) => Err(Problem::bad_request(error.body_text())
                .fix("docs/control.md lists the parameters of each request")),
        }
    }
}

/// The part of a request's path that names something.
#[derive(Clone, Debug)]
pub struct Named(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(own)) => Ok(Self(own)),
            Err(error) => Err(Problem::bad_request(error.body_text())
                .fix("write bytes of other alphabets as %XX, in UTF-8")),
        }
    }
}
