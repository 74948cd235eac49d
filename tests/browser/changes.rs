//! A page that stays open while pictures, models and the server come and go.

use convoy::repository::ModelControlMode;
use convoy::server::Server;
use serde_json::{Value, json};

use crate::client::send;
use crate::server::{PLAIN_RECIPE, Repository, config, png, start};
use crate::webdriver::Browser;
use crate::{Page, first_class, graphs};

/// Two small models, which are loaded and unloaded by API. Filter k of the first adds k to a pixel's colours.
pub(crate) async fn serve() -> (Server, Repository) {
    serve_in(Repository::new()).await
}

/// As [`serve`], beside what is in `repository`.
pub(crate) async fn serve_in(repository: Repository) -> (Server, Repository) {
    let recipe = format!("{PLAIN_RECIPE}resize = 8\n");
    let repository = repository.with("filters", &graphs::convolutional(8, 3), &recipe, "").with(
        "means",
        &graphs::channel_means(8, None),
        &recipe,
        "",
    );
    let mut config = config(&repository);
    config.model_control.mode = ModelControlMode::Explicit;
    config.model_control.load = vec!["*".into()];
    (start(config).await, repository)
}

/// A page with two pictures of which the second is the brighter, and a layer that is looked at.
async fn open(server: &Server) -> Page {
    let page = Page::open_with_models(server).await;
    let browser = &page.browser;
    page.drop_files(&[("dim.png", png([10, 0, 0])), ("bright.png", png([200, 0, 0]))]).await;
    browser.wait_for("a class", &first_class("bright.png")).await;
    browser.click("nav a[href='#network']").await;
    browser.wait_for("the layers", &layers("3 × 8 × 8")).await;
    browser
        .run(
            "[...document.querySelectorAll('#layers button')].find(it => it.textContent === 'rectified').click()",
            json!([]),
        )
        .await;
    page
}

/// Whether the convolution's output is shown so.
pub(crate) fn layers(shape: &str) -> String {
    format!("return document.querySelector('#layers tbody td:nth-child(3)')?.textContent === '{shape}'")
}

/// Waits for the maps of a picture, of so many channels.
async fn maps(browser: &Browser, name: &str, channels: usize) {
    let shown = format!(
        "return document.querySelector('#features img')?.alt.startsWith('rectified for {name}:')
            && document.querySelectorAll('.channels tbody tr').length === {channels}"
    );
    browser.wait_for("the maps", &shown).await;
}

pub(crate) async fn what_excites_a_unit_is_shown() {
    let (server, repository) = serve().await;
    let page = open(&server).await;
    let browser = &page.browser;
    // What is no picture is left out.
    let text = repository.path().join("text.png");
    std::fs::write(&text, "no picture").unwrap();
    browser.type_into("#files", text.to_str().unwrap()).await;
    browser.wait_for("the error", "return document.querySelector('.picture .error')?.textContent").await;
    browser.click("nav a[href='#network']").await;
    // The file is none of those that are looked at, nor among those whose maps can be seen.
    let among = "return document.querySelector('#exciting').textContent === 'Among the 2 pictures on this page.'";
    browser.wait_for("what is looked at", among).await;
    let offered = "return [...document.querySelector('#feature-picture').options].map(it => it.textContent)";
    assert_eq!(browser.run(offered, json!([])).await, json!(["dim.png", "bright.png"]));
    browser.click("#exciting-button").await;
    let found = "const it = [...document.querySelectorAll('#exciting li bdi')].map(it => it.textContent);
        return it.length > 0 && it";
    assert_eq!(browser.wait_for("what excites unit 0", found).await, json!(["bright.png", "dim.png"]));
    let drawn = "return document.querySelector('#exciting img').naturalWidth > 100";
    browser.wait_for("the picture of it", drawn).await;
    page.check_accessibility("what excites a unit").await;
    page.keep_screenshot("exciting").await;

    // A unit that there is not is refused by the form; another layer forgets what was found.
    assert_eq!(browser.run("return document.querySelector('#exciting-unit').max", json!([])).await, "2");
    browser.run("document.querySelector('#layers button').click()", json!([])).await;
    assert_eq!(browser.run("return document.querySelector('#exciting img')", json!([])).await, json!(null));
    page.close(1).await;
    server.shutdown().await;
}

pub(crate) async fn what_excites_a_unit_is_looked_for_among_pictures() {
    let (server, _repository) = serve().await;
    let page = Page::open_with_models(&server).await;
    let browser = &page.browser;
    browser.click("nav a[href='#network']").await;
    let said = |words: &str| format!("return document.querySelector('#exciting').textContent === '{words}'");
    browser.wait_for("that there is none", &said("Add pictures in the view Classify first.")).await;
    page.drop_files(&[("text.png", b"no picture".to_vec())]).await;
    let none = "The server can read none of the files on this page. Add pictures in the view Classify.";
    browser.wait_for("that none can be read", &said(none)).await;
    let names: Vec<_> = (0..66).map(|number| format!("{number}.png")).collect();
    let files: Vec<_> = names.iter().zip(0u8..).map(|(name, level)| (name.as_str(), png([level, 0, 0]))).collect();
    page.drop_files(&files).await;
    browser.wait_for("all answers", "return document.querySelectorAll('.picture .why').length === 66").await;
    browser.click("nav a[href='#network']").await;
    browser.wait_for("the layers", &layers("3 × 8 × 8")).await;
    browser.run("document.querySelector('#layers button').click()", json!([])).await;
    let first = "Among the first 64 of the 66 pictures on this page, which is as many as are looked at at once.";
    browser.wait_for("how many are looked at", &said(first)).await;
    browser.click("#exciting-button").await;
    let found = "return document.querySelector('#exciting li bdi')?.textContent";
    assert_eq!(browser.wait_for("what excites unit 0", found).await, "63.png");
    page.close(1).await;
    server.shutdown().await;
}

pub(crate) async fn what_excites_a_unit_is_sent_as_far_as_a_request_holds_it() {
    let (server, _repository) = serve().await;
    let page = Page::open_with_models(&server).await;
    let browser = &page.browser;
    // Their sizes are made up.
    let size = "Object.defineProperty(File.prototype, 'size', {get: () => 30 * 2 ** 20})";
    browser.run(size, json!([])).await;
    page.drop_files(&["a.png", "b.png", "c.png"].map(|name| (name, png([200, 0, 0])))).await;
    browser.wait_for("all answers", "return document.querySelectorAll('.picture .why').length === 3").await;
    browser.click("nav a[href='#network']").await;
    browser.wait_for("the layers", &layers("3 × 8 × 8")).await;
    browser.run("document.querySelector('#layers button').click()", json!([])).await;
    let among = "return document.querySelector('#exciting').textContent === 'Among the first 2 of the 3 pictures on this page, which is as many as one request holds, since some are large.'";
    browser.wait_for("how many are looked at", among).await;
    browser.click("#exciting-button").await;
    browser.wait_for("what excites unit 0", "return document.querySelectorAll('#exciting li').length === 2").await;

    // A server that takes less says so, and the page what to do.
    let refusal = "window.fetch = () =>
        Promise.resolve(new Response(JSON.stringify({error: 'the body is too large'}), {status: 413}))";
    browser.run(refusal, json!([])).await;
    browser.click("#exciting-button").await;
    let said = "return document.querySelector('#exciting .error')?.textContent";
    let words = "The body is too large. Remove some of the large pictures in the view Classify.";
    assert_eq!(browser.wait_for("the refusal", said).await, words);
    page.close(0).await;
    server.shutdown().await;
}

pub(crate) async fn the_keyboard_stays_where_it_was() {
    let (server, repository) = serve().await;
    let page = open(&server).await;
    let browser = &page.browser;
    maps(browser, "dim.png", 3).await;
    let at_layer =
        "[...document.querySelectorAll('#layers button')].find(it => it.textContent === 'rectified').focus()";
    browser.run(at_layer, json!([])).await;
    let load = async |filters| {
        graphs::write(&repository.path().join("filters/1"), &graphs::convolutional(8, filters));
        let load = send(&server, "POST", "/v2/repository/models/filters/load", &[], "").await;
        assert_eq!(load.status, 200, "{load:?}");
        browser.wait_for("the new layers", &layers(&format!("{filters} × 8 × 8"))).await;
        maps(browser, "dim.png", filters).await;
    };
    load(5).await;
    let focus = "return document.activeElement.textContent";
    assert_eq!(browser.run(focus, json!([])).await, "rectified");
    browser.run("document.querySelector('.channels').focus()", json!([])).await;
    load(4).await;
    assert_eq!(browser.run("return document.activeElement.className", json!([])).await, "channels");
    page.close(0).await;
    server.shutdown().await;
}

pub(crate) async fn what_changes_is_not_shown_as_it_was() {
    let (server, repository) = serve().await;
    let page = open(&server).await;
    let browser = &page.browser;
    maps(browser, "dim.png", 3).await;

    // The picture whose maps are shown goes.
    browser.click("nav a[href='#classify']").await;
    browser.click("#pictures > :nth-child(1) .remove").await;
    browser.click("nav a[href='#network']").await;
    maps(browser, "bright.png", 3).await;

    // The model is loaded again, with other layers.
    graphs::write(&repository.path().join("filters/1"), &graphs::convolutional(8, 5));
    let load = send(&server, "POST", "/v2/repository/models/filters/load", &[], "").await;
    assert_eq!(load.status, 200, "{load:?}");
    browser.wait_for("the new layers", &layers("5 × 8 × 8")).await;
    maps(browser, "bright.png", 5).await;
    let filters = "return document.querySelector('#filters p')?.textContent.startsWith('5 filters')";
    browser.wait_for("the new filters", filters).await;

    // It is unloaded: it can be chosen no more, and what is chosen in its place is said.
    let unload = send(&server, "POST", "/v2/repository/models/filters/unload", &[], "").await;
    assert_eq!(unload.status, 200, "{unload:?}");
    let notice = "return document.querySelector('#notice').textContent || null";
    let said = browser.wait_for("a notice", notice).await;
    assert_eq!(said, "The model filters is not ready any more, so means is chosen until it is.");
    let choice = "return [...document.querySelector('#model').options].map(it => it.value)";
    assert_eq!(browser.run(choice, json!([])).await, json!(["means"]));

    // The server goes: what it last said of its models is not shown as if it were so.
    browser.click("nav a[href='#server']").await;
    let states = |states: &str| {
        format!(
            "return [...document.querySelectorAll('#models .state')].map(it => it.textContent).join() === '{states}'"
        )
    };
    browser.wait_for("the states", &states("unavailable,ready")).await;
    server.shutdown().await;
    browser.wait_for("the states to be unknown", &states("not known,not known")).await;
    assert_eq!(browser.run(notice, json!([])).await, "The server does not answer.");
    let refused = page.end().await;
    let of_the_browser = |entry: &&Value| entry["message"].as_str().unwrap().contains("net::ERR_");
    let (gone, refusals): (Vec<_>, Vec<_>) = refused.iter().partition(of_the_browser);
    assert!(!gone.is_empty());
    // Only the filters of the model that has none.
    assert!(
        matches!(refusals[..], [only] if only["message"].as_str().unwrap().contains("/means/filters")),
        "{refusals:?}"
    );
}
