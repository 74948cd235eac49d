//! What goes wrong beside the page: the server, the network and the files.

use serde_json::{Value, json};

use crate::changes::{layers, serve};
use crate::server::png;
use crate::{Page, first_class};

const NOTICE: &str = "return document.querySelector('#notice').textContent";

/// Has the page's requests for `path` answered by `answer`, a script in which `options` are those of `fetch`.
fn answered(path: &str, answer: &str) -> String {
    format!(
        "const own = window.own = window.own ?? window.fetch;
         window.fetch = (path, options) => String(path).endsWith('{path}') ? {answer} : own(path, options)"
    )
}

const AS_IT_IS: &str = "window.fetch = window.own";

pub(crate) async fn a_server_that_hangs_is_said_not_to_answer_until_it_does() {
    let (server, _repository) = serve().await;
    let page = Page::open(&server, "/#server", 1280, false).await;
    let browser = &page.browser;
    let states = |states: &str| {
        format!(
            "return [...document.querySelectorAll('#models .state')].map(it => it.textContent).join() === '{states}'"
        )
    };
    browser.wait_for("the states", &states("ready,ready")).await;
    let never =
        "new Promise((_, reject) => options.signal.addEventListener('abort', () => reject(options.signal.reason)))";
    browser.run(&answered("/v1/models", never), json!([])).await;
    browser.wait_for("the notice", &format!("{NOTICE} === 'The server does not answer.'")).await;
    browser.wait_for("the states to be unknown", &states("not known,not known")).await;
    // It answers again, and nothing is left of the notice.
    browser.run(AS_IT_IS, json!([])).await;
    browser.wait_for("the states", &states("ready,ready")).await;
    assert_eq!(browser.run("return document.querySelector('#notice').hidden", json!([])).await, true);
    assert_eq!(browser.run(NOTICE, json!([])).await, "");
    page.close(0).await;
    server.shutdown().await;
}

pub(crate) async fn what_was_refused_is_asked_for_again() {
    let (server, _repository) = serve().await;
    let page = Page::open_with_models(&server).await;
    let browser = &page.browser;
    let refusal = "Promise.resolve(new Response(JSON.stringify({error: 'come again'}), {status: 503}))";
    browser.run(&answered("/architecture", refusal), json!([])).await;
    browser.click("nav a[href='#network']").await;
    let said = "return document.querySelector('#network-notice').textContent === 'Come again.'";
    browser.wait_for("the refusal", said).await;
    browser.run(AS_IT_IS, json!([])).await;
    browser.click("nav a[href='#classify']").await;
    browser.click("nav a[href='#network']").await;
    browser.wait_for("the layers", &layers("3 × 8 × 8")).await;
    assert_eq!(browser.run("return document.querySelector('#network-notice').hidden", json!([])).await, true);
    page.close(0).await;
    server.shutdown().await;
}

pub(crate) async fn a_file_that_was_deleted_is_said_to_be_gone() {
    let (server, repository) = serve().await;
    let page = Page::open_with_models(&server).await;
    let browser = &page.browser;
    let file = repository.path().join("short-lived.png");
    std::fs::write(&file, png([200, 0, 0])).unwrap();
    browser.type_into("#files", file.to_str().unwrap()).await;
    browser.wait_for("a class", &first_class("short-lived.png")).await;
    std::fs::remove_file(&file).unwrap();
    browser.click("#again").await;
    let said = browser.wait_for("the error", "return document.querySelector('.picture .error')?.textContent").await;
    assert_eq!(said, "The file cannot be read any more: was it changed, moved or deleted?");
    // Nothing of the answer is left that this picture once had.
    assert_eq!(browser.run("return document.querySelector('.classes').children.length", json!([])).await, 0);
    let listed = page.end().await;
    let of_the_browser = |entry: &Value| entry["message"].as_str().unwrap().contains("net::ERR_");
    assert!(listed.iter().all(of_the_browser), "{listed:?}");
    server.shutdown().await;
}

/// Has the page's requests whose path has `part` in it answered by `answer`, a script in which `options` are those of `fetch`.
fn answered_in(part: &str, answer: &str) -> String {
    answered("", answer).replace("String(path).endsWith('')", &format!("String(path).includes('{part}')"))
}

/// Whether a card offers to ask again.
const AGAIN: &str = "return document.querySelector('.again').checkVisibility()";

pub(crate) async fn what_failed_can_be_asked_for_again() {
    let (server, repository) = serve().await;
    let page = Page::open_with_models(&server).await;
    let browser = &page.browser;
    browser.run(&answered_in("/classify", "Promise.reject(new TypeError('Failed to fetch'))"), json!([])).await;
    page.drop_files(&[("a.png", png([200, 0, 0]))]).await;
    let said = "return document.querySelector('.picture .error')?.textContent";
    assert_eq!(browser.wait_for("the error", said).await, "The server does not answer.");
    assert_eq!(browser.run(AGAIN, json!([])).await, true);
    page.check_accessibility("a card without an answer").await;
    browser.run(AS_IT_IS, json!([])).await;
    browser.click(".again").await;
    browser.wait_for("a class", &first_class("a.png")).await;
    assert_eq!(browser.run(AGAIN, json!([])).await, false);
    // What is no picture will not be one.
    browser.click("#clear").await;
    let text = repository.path().join("text.png");
    std::fs::write(&text, "no picture").unwrap();
    browser.type_into("#files", text.to_str().unwrap()).await;
    browser.wait_for("the error", said).await;
    assert_eq!(browser.run(AGAIN, json!([])).await, false);
    page.close(1).await;
    server.shutdown().await;
}

pub(crate) async fn nothing_is_waited_for_without_end() {
    let (server, _repository) = serve().await;
    let page = Page::open_with_models(&server).await;
    let browser = &page.browser;
    // Minutes pass in no time.
    let hurry = "const own = AbortSignal.timeout.bind(AbortSignal);
        AbortSignal.timeout = (ms) => own(ms >= 60_000 ? 300 : ms)";
    browser.run(hurry, json!([])).await;
    let never =
        "new Promise((_, reject) => options.signal.addEventListener('abort', () => reject(options.signal.reason)))";
    browser.run(&answered_in("/classify", never), json!([])).await;
    page.drop_files(&[("a.png", png([200, 0, 0]))]).await;
    let said = "return document.querySelector('.picture .error')?.textContent";
    assert_eq!(browser.wait_for("the error", said).await, "The server has not answered for 120 seconds.");
    // Nor where the answer begins and does not end.
    let endless = "Promise.resolve(new Response(new ReadableStream({ start: (it) =>
        options.signal.addEventListener('abort', () => it.error(options.signal.reason)) })))";
    browser.run(AS_IT_IS, json!([])).await;
    browser.click(".again").await;
    browser.wait_for("a class", &first_class("a.png")).await;
    browser.run(&answered_in("/explain", endless), json!([])).await;
    browser.click(".explain").await;
    let said = "return document.querySelector('.why .said.error')?.textContent";
    assert_eq!(browser.wait_for("the error", said).await, "The server has not answered for 300 seconds.");
    page.close(0).await;
    server.shutdown().await;
}
