//! Versions that come and go while a page has answers of them.

use convoy::repository::ModelControlMode;
use convoy::server::Server;
use serde_json::json;

use crate::client::send;
use crate::server::{PLAIN_RECIPE, Repository, config, png, start};
use crate::webdriver::Browser;
use crate::{Page, first_class, graphs};

const OUTDATED: &str = "return document.querySelector('.outdated').textContent || null";
const NOTICE: &str = "return document.querySelector('#notice').textContent || null";
/// How many pictures the page has had classified.
const COUNT: &str = "return window.count";

async fn control(server: &Server, verb: &str) {
    let answer = send(server, "POST", &format!("/v2/repository/models/filters/{verb}"), &[], "").await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

fn put(repository: &Repository, version: &str, filters: usize) {
    let folder = repository.path().join("filters").join(version);
    std::fs::create_dir_all(&folder).unwrap();
    graphs::write(&folder, &graphs::convolutional(8, filters));
}

async fn wait_for_class(browser: &Browser, class: usize) {
    browser.wait_for("a class", &format!("{} === 'class {class}'", first_class("a.png"))).await;
}

pub(crate) async fn no_answer_becomes_another_versions_unasked() {
    let recipe = format!("versions = 'all'\n{PLAIN_RECIPE}resize = 8\n");
    let repository = Repository::new().with("filters", &graphs::convolutional(8, 3), &recipe, "").with(
        "means",
        &graphs::channel_means(8, None),
        &recipe,
        "",
    );
    put(&repository, "2", 4);
    let mut config = config(&repository);
    config.model_control.mode = ModelControlMode::Explicit;
    config.model_control.load = vec!["*".into()];
    let server = start(config).await;
    let page = Page::open_with_models(&server).await;
    let browser = &page.browser;
    let count = "window.count = 0;
        const own = window.fetch;
        window.fetch = (path, options) => {
            window.count += String(path).includes('/classify');
            return own(path, options);
        }";
    browser.run(count, json!([])).await;
    page.drop_files(&[("a.png", png([200, 0, 0]))]).await;
    wait_for_class(browser, 3).await;

    put(&repository, "3", 5);
    control(&server, "load").await;
    let said = browser.wait_for("its age", OUTDATED).await;
    assert_eq!(said, "Version 3 is the newest now. This answer is version 2’s.");
    wait_for_class(browser, 3).await;

    // The version is chosen, and goes.
    browser
        .run(
            "const it = document.querySelector('#version'); it.value = '2'; it.dispatchEvent(new Event('change'))",
            json!([]),
        )
        .await;
    browser
        .wait_for("the second answer", "return window.count === 2 && !document.querySelector('.outdated').textContent")
        .await;
    wait_for_class(browser, 3).await;
    std::fs::remove_dir_all(repository.path().join("filters/2")).unwrap();
    control(&server, "load").await;
    let said = browser.wait_for("a notice", NOTICE).await;
    assert_eq!(said, "Version 2 of filters is not ready any more, so its newest is chosen until it is.");
    let gone = |version| format!("filters {version}, which gave this answer, is not ready any more.");
    assert_eq!(browser.wait_for("its age", OUTDATED).await, gone(2));
    wait_for_class(browser, 3).await;
    assert_eq!(browser.run(COUNT, json!([])).await, 2);
    browser.click(".again").await;
    wait_for_class(browser, 4).await;

    // Nor does it become another model's, when its own goes; when that comes back, it is chosen again.
    control(&server, "unload").await;
    let gone_model = "return document.querySelector('#notice').textContent === 'The model filters is not ready any more, so means is chosen until it is.'";
    browser.wait_for("a notice", gone_model).await;
    assert_eq!(browser.wait_for("its age", OUTDATED).await, gone(3));
    control(&server, "load").await;
    let again = "return document.querySelector('.outdated').textContent === 'The model has been loaded again since this answer.'
        && document.querySelector('#model').value === 'filters'";
    browser.wait_for("the model", again).await;
    wait_for_class(browser, 4).await;
    assert_eq!(browser.run(COUNT, json!([])).await, 3);
    page.close(0).await;
    server.shutdown().await;
}
