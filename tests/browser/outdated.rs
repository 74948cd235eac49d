//! Answers of a model that has been loaded again since.

use convoy::server::Server;
use serde_json::json;

use crate::changes::{serve, serve_in};
use crate::client::send;
use crate::server::{Repository, png};
use crate::webdriver::Browser;
use crate::{Page, first_class, graphs};

/// A page with a picture that the first of two models has classified, and why.
async fn open(server: &Server) -> Page {
    let page = Page::open_with_models(server).await;
    let browser = &page.browser;
    page.drop_files(&[("a.png", png([200, 0, 0]))]).await;
    browser.wait_for("a class", &format!("{} === 'class 2'", first_class("a.png"))).await;
    explain(browser).await;
    browser.wait_for("the map", PAINTED).await;
    page
}

/// Whether something is painted over the picture.
const PAINTED: &str = "return document.querySelector('.picture canvas').getAttribute('aria-label') !== 'a.png'";
/// What the card says of its answer's age.
const OUTDATED: &str = "return document.querySelector('.outdated').textContent || null";

async fn explain(browser: &Browser) {
    // By the keyboard, so that the focus is there.
    browser.run("document.querySelector('.explain').focus(); document.activeElement.click()", json!([])).await;
}

/// Loads the first model again, which has `filters` filters now.
async fn load(server: &Server, repository: &Repository, version: &str, filters: usize) {
    let folder = repository.path().join("filters").join(version);
    std::fs::create_dir_all(&folder).unwrap();
    graphs::write(&folder, &graphs::convolutional(8, filters));
    let load = send(server, "POST", "/v2/repository/models/filters/load", &[], "").await;
    assert_eq!(load.status, 200, "{load:?}");
}

pub(crate) async fn an_answer_of_a_model_that_was_loaded_again_says_so() {
    let (server, repository) = serve().await;
    let page = open(&server).await;
    let browser = &page.browser;
    load(&server, &repository, "1", 5).await;
    assert_eq!(browser.wait_for("its age", OUTDATED).await, "The model has been loaded again since this answer.");
    // The old answer stays, with neither a map nor a way to get another model's.
    assert_eq!(browser.run(&first_class("a.png"), json!([])).await, "class 2");
    assert_eq!(browser.run(PAINTED, json!([])).await, false);
    assert_eq!(browser.run("return document.querySelector('.why').checkVisibility()", json!([])).await, false);
    // Whoever was at the button that went is at the one that came.
    let focus = "return document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent";
    assert_eq!(browser.run(focus, json!([])).await, "Classify a.png again");
    page.check_accessibility("an outdated answer").await;
    page.keep_screenshot("outdated").await;

    browser.click(".again").await;
    browser.wait_for("the new class", &format!("{} === 'class 4'", first_class("a.png"))).await;
    assert_eq!(browser.run(OUTDATED, json!([])).await, json!(null));
    assert_eq!(browser.run(focus, json!([])).await, "Why?");
    explain(browser).await;
    browser.wait_for("the new map", PAINTED).await;

    // Another version takes its place.
    load(&server, &repository, "2", 3).await;
    let said = browser.wait_for("its age", OUTDATED).await;
    assert_eq!(said, "filters 1, which gave this answer, is not ready any more.");
    page.close(0).await;
    server.shutdown().await;
}

pub(crate) async fn an_explanation_is_never_of_another_model_than_the_answer() {
    let (server, repository) = serve().await;
    let page = open(&server).await;
    let browser = &page.browser;
    // The page learns nothing of what is loaded from now on.
    let deaf = "const own = window.fetch;
        const models = await (await own('/v1/models')).text();
        window.fetch = (path, options) =>
            path === '/v1/models' ? Promise.resolve(new Response(models)) : own(path, options)";
    browser.run(deaf, json!([])).await;
    load(&server, &repository, "1", 5).await;
    explain(browser).await;
    assert_eq!(browser.wait_for("its age", OUTDATED).await, "The model has been loaded again since this answer.");
    assert_eq!(browser.run(PAINTED, json!([])).await, false);
    page.close(0).await;
    server.shutdown().await;
}

pub(crate) async fn an_answer_of_an_ensemble_says_so_too() {
    let pair = Repository::new();
    std::fs::create_dir(pair.path().join("pair")).unwrap();
    std::fs::write(pair.path().join("pair/config.toml"), "members = ['filters', 'means']").unwrap();
    let (server, repository) = serve_in(pair).await;
    let page = Page::open_with_models(&server).await;
    let browser = &page.browser;
    browser.choose("#model", "pair").await;
    page.drop_files(&[("a.png", png([200, 0, 0]))]).await;
    browser.wait_for("a class", &first_class("a.png")).await;
    assert_eq!(browser.run(OUTDATED, json!([])).await, json!(null));
    // It is not explained, nor has it layers, and is asked for neither.
    let reason = browser.run("return document.querySelector('.reason').textContent", json!([])).await;
    assert_eq!(reason, "Why? An ensemble is not explained. Choose one of its members: filters, means.");
    assert_eq!(browser.run("return document.querySelector('.explain')", json!([])).await, json!(null));
    page.check_accessibility("an ensemble's answer").await;
    browser.click("nav a[href='#network']").await;
    let said = browser.wait_for("what it is", "return document.querySelector('#network-notice').textContent").await;
    assert_eq!(said, "pair is an ensemble and has no layers of its own. Choose one of its members: filters, means.");
    load(&server, &repository, "1", 3).await;
    assert_eq!(browser.wait_for("its age", OUTDATED).await, "The model has been loaded again since this answer.");
    page.close(0).await;
    server.shutdown().await;
}
