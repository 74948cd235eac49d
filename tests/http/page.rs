//! The page's files and their headers; what the page does is tested in a browser, in `tests/browser`.

use std::collections::BTreeSet;

use convoy::server::Server;

use crate::client::{get, send};
use crate::graphs;
use crate::server::{PLAIN_RECIPE, Repository, config, start};

async fn server(health_route: Option<&str>) -> (Server, Repository) {
    let repository = Repository::new().with("means", &graphs::channel_means(8, None), PLAIN_RECIPE, "");
    let mut config = config(&repository);
    config.http.health_route = health_route.map(ToOwned::to_owned);
    config.http.predict_route = Some("/".to_owned());
    (start(config).await, repository)
}

/// The paths of this server that stand between quotes in a file.
fn paths_in(text: &str) -> impl Iterator<Item = &str> {
    text.split('"').filter(|part| part.starts_with("/page/") && !part.contains(char::is_whitespace))
}

#[tokio::test]
async fn files_are_whole_harmless_and_known_again() {
    let (server, _repository) = server(None).await;
    let mut seen = BTreeSet::new();
    let mut next = vec!["/".to_owned(), "/docs".to_owned()];
    while let Some(path) = next.pop() {
        if !seen.insert(path.clone()) {
            continue;
        }
        let answer = get(&server, &path).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        let media_type = match path.rsplit('.').next().unwrap() {
            "js" => "text/javascript; charset=utf-8",
            "css" => "text/css; charset=utf-8",
            "svg" => "image/svg+xml; charset=utf-8",
            _ => "text/html; charset=utf-8",
        };
        assert_eq!(answer.headers["content-type"], media_type, "{path}");
        assert_eq!(answer.headers["x-content-type-options"], "nosniff");
        assert_eq!(answer.headers["cache-control"], "no-cache");
        let policy = answer.headers["content-security-policy"].to_str().unwrap();
        for part in [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self' blob: data:",
            "connect-src 'self'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
            "form-action 'none'",
        ] {
            assert!(policy.split("; ").any(|it| it == part), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");

        let tag = answer.headers["etag"].to_str().unwrap();
        let again = send(&server, "GET", &path, &[("if-none-match", tag)], "").await;
        assert_eq!((again.status.as_u16(), again.body.len()), (304, 0), "{path}");
        assert_eq!(again.headers["etag"], tag);
        let changed = send(&server, "GET", &path, &[("if-none-match", "\"another\"")], "").await;
        assert_eq!(changed.status, 200);

        let text = std::str::from_utf8(&answer.body).unwrap();
        let elsewhere = text.replace("http://www.w3.org/2000/svg", "");
        assert!(!elsewhere.contains("http://") && !elsewhere.contains("https://"), "{path} names another address");
        for markup in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", " style=\"", " onclick="] {
            assert!(!text.contains(markup), "{path} has {markup}");
        }
        next.extend(paths_in(text).map(ToOwned::to_owned));
    }
    assert!(seen.len() > 10, "{seen:?}");
    let answer = get(&server, "/page/none.js").await;
    assert_eq!((answer.status.as_u16(), answer.error()), (404, "there is nothing at /page/none.js".to_owned()));
}

#[tokio::test]
async fn a_platform_that_chose_the_pages_path_has_it() {
    let (server, _repository) = server(Some("/")).await;
    let answer = get(&server, "/").await;
    assert_eq!(answer.json(), serde_json::json!({"ready": true}));
    assert_eq!(get(&server, "/docs").await.status, 200);
    let (server, _repository) = self::server(None).await;
    assert_eq!(get(&server, "/").await.headers["content-type"], "text/html; charset=utf-8");
    // To post is another method, so that both have their way.
    let png = crate::server::png([1, 2, 3]);
    assert_eq!(send(&server, "POST", "/", &[], png).await.status, 200);
}

#[tokio::test]
async fn the_page_can_read_the_metrics_where_it_is() {
    let (server, _repository) = server(None).await;
    let answer = get(&server, "/metrics").await;
    assert_eq!(answer.status, 200);
    assert!(std::str::from_utf8(&answer.body).unwrap().contains("convoy_instances{model=\"means\""));
}
