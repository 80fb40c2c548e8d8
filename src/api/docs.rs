//! The description of all of it: OpenAPI for programs, a page for people.

use axum::http::header;
use axum::response::{Html, IntoResponse, Response};

const OPENAPI: &str = include_str!("openapi.json");
const PAGE: &str = include_str!("docs.html");

pub(super) async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}

pub(super) async fn page() -> Html<&'static str> {
    Html(PAGE)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::api::routes::PATHS;

    #[test]
    fn the_description_names_exactly_the_routes_that_there_are() {
        let description: serde_json::Value = serde_json::from_str(OPENAPI).unwrap();
        let paths = description["paths"].as_object().unwrap();
        let described: BTreeSet<_> = paths
            .iter()
            .flat_map(|(path, methods)| methods.as_object().unwrap().keys().map(move |method| (method.as_str(), path.as_str())))
            .collect();
        assert_eq!(described, BTreeSet::from(PATHS));
    }
}
