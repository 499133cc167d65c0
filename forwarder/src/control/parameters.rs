//! The parameters behind the `?` of a request; what cannot be understood is answered like any other problem.

use axum::extract::{FromRequestParts, Query};
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
