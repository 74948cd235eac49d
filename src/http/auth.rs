//! What right a route needs.

use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;

use super::error::HttpResult;
use super::routes::Routes;
use crate::auth::{Keys, Right};

/// Lets only those use `routes` who have one of `keys` with the right that is `needed`.
pub(super) fn protect(routes: Routes, keys: &Keys, needed: Right) -> Routes {
    if !keys.are_needed() {
        return routes;
    }
    // Before the handler, and so before the body is read.
    routes.layer(from_fn_with_state((keys.clone(), needed), check)).needing(needed)
}

async fn check(State((keys, needed)): State<(Keys, Right)>, request: Request, next: Next) -> HttpResult<Response> {
    keys.check(request.headers().get(header::AUTHORIZATION).map(HeaderValue::as_bytes), needed)?;
    Ok(next.run(request).await)
}
