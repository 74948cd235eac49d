//! Explanations that are under way: what ends them, and what they leave to others.

use std::time::Duration;

use convoy::server::Server;
use serde_json::{Value, json};

use crate::client::get;
use crate::server::within_a_minute;
use crate::webdriver::Browser;
use crate::{Page, first_class, photo, serve};

/// Chooses occlusion for the picture on a card, which takes the server a while, and waits until that is at it.
async fn begin(browser: &Browser, card: &str) {
    let begin = format!(
        "const method = document.querySelector('{card} .method');
         method.value = 'occlusion';
         method.dispatchEvent(new Event('change'));
         document.querySelector('{card} .explain').click()"
    );
    browser.run(&begin, json!([])).await;
    let looks = format!("return document.querySelector('{card} .said').textContent === 'Looking…'");
    browser.wait_for("the beginning of an explanation", &looks).await;
}

/// Waits until the server has given up so many explanations.
async fn given_up(server: &Server, count: usize) {
    within_a_minute(async {
        loop {
            let page = get(server, "/metrics").await;
            let text = std::str::from_utf8(&page.body).unwrap();
            let lines = text.lines().filter(|line| line.starts_with("convoy_explain_requests_total"));
            let canceled = lines.filter(|line| line.contains("outcome=\"canceled\""));
            if canceled.map(|line| line.rsplit(' ').next().unwrap().parse::<usize>().unwrap()).sum::<usize>() == count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

pub(crate) async fn what_nobody_waits_for_is_stopped() {
    let (server, _repository) = serve().await;
    let page = Page::open(&server, "/", 1280, false).await;
    let browser = &page.browser;
    browser.wait_for("the list of models", "return document.querySelector('#model').options.length === 2").await;
    for name in ["cats/siamese-cat.jpg", "cats/tabby-cat.jpg"] {
        browser.type_into("#files", photo(name).to_str().unwrap()).await;
    }
    let [first, second] = ["#pictures > :nth-child(1)", "#pictures > :nth-child(2)"];
    browser.wait_for("the other cat's class", &first_class("tabby-cat.jpg")).await;
    let siamese = format!("{} === 'Siamese cat, Siamese'", first_class("siamese-cat.jpg"));
    browser.wait_for("the cat's class", &siamese).await;

    // Another model is chosen: what the first would have said is not painted over the other's answer.
    begin(browser, first).await;
    browser.choose("#model", "means").await;
    let other = format!("{}?.match(/^class [012]$/)?.[0]", first_class("siamese-cat.jpg"));
    browser.wait_for("the other model's class", &other).await;
    given_up(&server, 1).await;
    let shown = format!(
        "return [document.querySelector('{first} .said').textContent, document.querySelector('{first} canvas').getAttribute('aria-label')]"
    );
    assert_eq!(browser.run(&shown, json!([])).await, json!(["", "siamese-cat.jpg"]));
    // The way of asking is still the one that was chosen.
    let method = format!("return document.querySelector('{first} .method').value");
    assert_eq!(browser.run(&method, json!([])).await, "occlusion");

    // A layer and a unit are kept where the next model has them.
    // Not by typing: what was typed a moment ago would be taken for the beginning of the name.
    let back = "const it = document.querySelector('#model');
        it.value = 'efficientnet-lite0';
        it.dispatchEvent(new Event('change'))";
    browser.run(back, json!([])).await;
    browser.wait_for("the cat's class", &siamese).await;
    browser.choose(&format!("{first} .method"), "DeconvNet").await;
    let layers = |count| format!("return document.querySelector('{first} .layer')?.options.length {count}");
    browser.wait_for("the layers", &layers("> 10")).await;
    browser.choose(&format!("{first} .layer"), "_blocks.2._relu1").await;
    browser.type_into(&format!("{first} .unit"), "7").await;
    browser.click("#again").await;
    browser.wait_for("the layers anew", &layers("> 10")).await;
    let kept =
        format!("return ['.method', '.layer', '.unit'].map(it => document.querySelector('{first} ' + it)?.value)");
    let expected = json!(["deconvnet", "_blocks.2._relu1", "7"]);
    browser
        .wait_for(
            "what was chosen",
            &format!("{} && JSON.stringify(await (async () => {{ {kept} }})()) === '{expected}'", layers("> 10")),
        )
        .await;

    // "Stop" stops.
    begin(browser, second).await;
    browser.click(&format!("{second} .explain")).await;
    let said = format!("return document.querySelector('{second} .said').textContent");
    assert_eq!(browser.run(&said, json!([])).await, "Stopped.");
    given_up(&server, 2).await;

    // A picture that is removed takes its explanation along, and the focus goes on to the next.
    begin(browser, first).await;
    browser.click(&format!("{first} .remove")).await;
    given_up(&server, 3).await;
    let focus = "return document.activeElement.getAttribute('aria-label') ?? document.activeElement.id";
    assert_eq!(browser.run(focus, json!([])).await, "Remove tabby-cat.jpg");
    browser.click(&format!("{first} .remove")).await;
    assert_eq!(browser.run(focus, json!([])).await, "files");
    page.close(0).await;
    server.shutdown().await;
}

pub(crate) async fn explanations_leave_room_for_classification() {
    const COUNT: usize = 12;
    let (server, _repository) = serve().await;
    let page = Page::open(&server, "/", 1280, false).await;
    let browser = &page.browser;
    browser.wait_for("the list of models", "return document.querySelector('#model').options.length === 2").await;
    let bytes = std::fs::read(photo("cats/siamese-cat.jpg")).unwrap();
    let names: Vec<_> = (0..COUNT).map(|number| format!("{number}.jpg")).collect();
    let files: Vec<_> = names.iter().map(|name| (name.as_str(), bytes.clone())).collect();
    page.drop_files(&files).await;
    let panels = format!("return document.querySelectorAll('.picture .why').length === {COUNT}");
    browser.wait_for("all classes", &panels).await;

    // Every picture is explained at once, as far as the page lets them.
    let count = "window.asked = 0; window.most = 0;
        const own = window.fetch;
        window.fetch = async (path, options) => {
            const isOne = String(path).includes('/explain');
            window.asked += isOne;
            window.most = Math.max(window.most, window.asked);
            try { return await own(path, options); } finally { window.asked -= isOne; }
        };
        for (const it of document.querySelectorAll('.why .method')) it.value = 'occlusion';
        for (const it of document.querySelectorAll('.why .explain')) it.click()";
    browser.run(count, json!([])).await;
    page.drop_files(&[("another.jpg", bytes)]).await;
    browser.wait_for("the other picture's class", &first_class("another.jpg")).await;
    let waiting =
        "return [...document.querySelectorAll('.why .said')].filter(it => it.textContent === 'Waiting…').length";
    let Value::Number(waiting) = browser.run(waiting, json!([])).await else { panic!("it is a number") };
    assert!(waiting.as_u64().unwrap() > 3, "the other picture waited until only {waiting} explanations did");
    assert_eq!(browser.run("return window.most", json!([])).await, 1);

    browser.click("#clear").await;
    given_up(&server, 1).await;
    page.close(0).await;
    server.shutdown().await;
}
