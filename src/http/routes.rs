//! Routes together with what the OpenAPI document says of them, so that neither is there without the other.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::handler::Handler;
use axum::http::{Method, header};
use axum::response::IntoResponse;
use axum::routing::{MethodFilter, Route, get, on};
use tower::{Layer, Service};

use super::App;
use super::openapi::{self, Operation};
use crate::auth::Right;

/// A router in the making.
#[derive(Debug)]
pub(super) struct Routes<S = Arc<App>> {
    router: Router<S>,
    operations: Vec<Described>,
}

/// An operation, and where it is.
#[derive(Debug, Clone)]
pub(super) struct Described {
    pub(super) method: Method,
    /// The path as OpenAPI writes it, which is as axum does.
    pub(super) path: String,
    pub(super) operation: Operation,
    /// What a key must allow, where keys are asked for.
    pub(super) right: Option<Right>,
}

impl<S: Clone + Send + Sync + 'static> Routes<S> {
    pub(super) fn new() -> Self {
        Self::within(Router::new())
    }

    /// Routes that are added to `router`, which has none yet.
    pub(super) fn within(router: Router<S>) -> Self {
        Self { router, operations: Vec::new() }
    }

    /// Has `handler` answer GET, and so HEAD, at `path`.
    pub(super) fn get<H: Handler<T, S>, T: 'static>(self, path: &str, handler: H, operation: Operation) -> Self {
        self.described(Method::GET, path, operation).routed(MethodFilter::GET, path, handler)
    }

    /// Has `handler` answer POST at `path`.
    pub(super) fn post<H: Handler<T, S>, T: 'static>(self, path: &str, handler: H, operation: Operation) -> Self {
        self.described(Method::POST, path, operation).routed(MethodFilter::POST, path, handler)
    }

    /// Has `handler` answer what is posted to `path` with one of the verbs behind a colon. To the router all are one route.
    pub(super) fn verbs<H: Handler<T, S>, T: 'static>(
        self,
        path: &str,
        handler: H,
        verbs: impl IntoIterator<Item = (&'static str, Operation)>,
    ) -> Self {
        let add =
            |routes: Self, (verb, operation)| routes.described(Method::POST, &format!("{path}:{verb}"), operation);
        verbs.into_iter().fold(self, add).routed(MethodFilter::POST, path, handler)
    }

    fn described(mut self, method: Method, path: &str, operation: Operation) -> Self {
        self.operations.push(Described { method, path: path.to_owned(), operation, right: None });
        self
    }

    fn routed<H: Handler<T, S>, T: 'static>(mut self, method: MethodFilter, path: &str, handler: H) -> Self {
        self.router = self.router.route(path, on(method, handler));
        self
    }

    pub(super) fn merge(mut self, other: Self) -> Self {
        self.router = self.router.merge(other.router);
        self.operations.extend(other.operations);
        self
    }

    /// Puts `layer` around the routes that there are.
    pub(super) fn layer<L>(mut self, layer: L) -> Self
    where
        L: Layer<Route> + Clone + Send + Sync + 'static,
        L::Service: Service<axum::extract::Request, Response: IntoResponse, Error: Into<Infallible>, Future: Send>
            + Clone
            + Send
            + Sync
            + 'static,
    {
        self.router = self.router.route_layer(layer);
        self
    }

    /// Says that the operations that there are need a key with this right.
    pub(super) fn needing(mut self, right: Right) -> Self {
        for described in &mut self.operations {
            described.right = Some(right);
        }
        self
    }

    /// Adds `/openapi.json`, the document of these routes and of `others`.
    pub(super) fn with_document(self, others: &Self) -> Self {
        const PATH: &str = "/openapi.json";
        let mut routes = self.described(Method::GET, PATH, openapi::operation());
        let document = openapi::document(routes.operations.iter().chain(&others.operations)).to_string();
        let document = Bytes::from(document);
        let answer = async move || ([(header::CONTENT_TYPE, "application/json")], document.clone());
        routes.router = routes.router.route(PATH, get(answer));
        routes
    }

    pub(super) fn into_router(self) -> Router<S> {
        self.router
    }
}
