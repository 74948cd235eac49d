//! A server that starts again while a page is open: its models come one after the other, and some not at once.

use serde_json::json;

use crate::changes::{layers, serve};
use crate::server::png;
use crate::{Page, first_class};

/// Has `window.alter` change the list of models before the page sees it. While `window.refuses`, `filters` classifies nothing.
/// `window.asked` has what was asked to classify, and what is asked waits for `window.held`.
const ALTERED: &str = "window.asked = [];
    window.alter = it => it;
    const own = window.fetch;
    window.fetch = async (path, options) => {
        const [, model] = /models\\/(.*?)\\/.*classify/.exec(path) ?? [];
        if (model) window.asked.push(model);
        if (model) await window.held;
        if (model === 'filters' && window.refuses) {
            return new Response(JSON.stringify({error: 'the model filters is loading'}), {status: 503});
        }
        const answer = await own(path, options);
        if (path !== '/v1/models') return answer;
        const list = await answer.json();
        return new Response(JSON.stringify({...list, details: window.alter(list.details)}));
    }";

const CHOICE: &str = "return [document.querySelector('#model').value, document.querySelector('#version').value]";
const ASKED: &str = "return window.asked";

fn notice(words: &str) -> String {
    format!("return document.querySelector('#notice').textContent === '{words}'")
}

/// What stands in a part of a picture's card.
fn part(file: &str, selector: &str) -> String {
    format!(
        "const card = [...document.querySelectorAll('.picture')].find(it => it.querySelector('h2').textContent === '{file}');
         return card.querySelector('{selector}')?.textContent || null"
    )
}

pub(crate) async fn what_was_chosen_is_chosen_again() {
    let (server, _repository) = serve().await;
    let page = Page::open_with_models(&server).await;
    let browser = &page.browser;
    browser.run(ALTERED, json!([])).await;
    let pin = "const it = document.querySelector('#version'); it.value = '1'; it.dispatchEvent(new Event('change'))";
    browser.run(pin, json!([])).await;

    // What is being loaded is not gone.
    let loading = "window.refuses = true;
        window.alter = list => list.map(it => it.name === 'filters' ? {...it, state: 'LOADING', versions: [], loaded_ms: {}} : it)";
    browser.run(loading, json!([])).await;
    browser.wait_for("that it is being loaded", &notice("The model filters is being loaded.")).await;
    assert_eq!(browser.run(CHOICE, json!([])).await, json!(["filters", "1"]));
    page.drop_files(&[("a.png", png([200, 0, 0]))]).await;
    let said = browser.wait_for("the refusal", &part("a.png", ".error")).await;
    assert_eq!(said, "The model filters is loading.");

    // What is not listed is: the newest of another takes its place, which has a version of the same number.
    browser.run("window.alter = list => list.filter(it => it.name !== 'filters')", json!([])).await;
    let gone = notice("The model filters is not ready any more, so means is chosen until it is.");
    browser.wait_for("that it is gone", &gone).await;
    assert_eq!(browser.run(CHOICE, json!([])).await, json!(["means", ""]));
    // It is asked about what it is given, and not about what the other was.
    page.drop_files(&[("b.png", png([200, 0, 0]))]).await;
    browser.wait_for("the other model's class", &first_class("b.png")).await;
    assert_eq!(browser.run(&part("a.png", ".error"), json!([])).await, "The model filters is loading.");
    assert_eq!(browser.run(ASKED, json!([])).await, json!(["filters", "means"]));

    // It is back, and so is the choice: what it was asked is asked again, and nothing else.
    browser.run("window.refuses = false; window.alter = it => it", json!([])).await;
    browser.wait_for("the class", &format!("{} === 'class 2'", first_class("a.png"))).await;
    assert_eq!(browser.run(CHOICE, json!([])).await, json!(["filters", "1"]));
    assert_eq!(browser.run("return document.querySelector('#notice').hidden", json!([])).await, true);
    let whose = browser.wait_for("whose it is", &part("b.png", ".outdated")).await;
    assert_eq!(whose, "filters is chosen now. This answer is means’s.");
    assert_eq!(browser.run(ASKED, json!([])).await, json!(["filters", "means", "filters"]));

    // Whoever chooses the other meanwhile keeps it.
    browser.run("window.alter = list => list.filter(it => it.name !== 'filters')", json!([])).await;
    browser.wait_for("that it is gone", &gone).await;
    browser.run(pin, json!([])).await;
    browser.run("window.alter = it => it", json!([])).await;
    browser.wait_for("both", "return document.querySelector('#model').options.length === 2").await;
    assert_eq!(browser.run(CHOICE, json!([])).await, json!(["means", "1"]));
    page.close(0).await;
    server.shutdown().await;
}

pub(crate) async fn what_waits_is_not_asked_of_another_model() {
    let (server, _repository) = serve().await;
    let page = Page::open_with_models(&server).await;
    let browser = &page.browser;
    browser.run(ALTERED, json!([])).await;
    browser.run("window.held = new Promise(it => window.release = it)", json!([])).await;
    page.drop_files(&["a.png", "b.png", "c.png", "d.png", "e.png"].map(|name| (name, png([200, 0, 0])))).await;
    browser.wait_for("four requests", "return window.asked.length === 4").await;
    browser.run("window.alter = list => list.filter(it => it.name !== 'filters')", json!([])).await;
    let gone = notice("The model filters is not ready any more, so means is chosen until it is.");
    browser.wait_for("that it is gone", &gone).await;
    browser.run("window.release()", json!([])).await;
    browser.wait_for("the last class", &first_class("e.png")).await;
    assert_eq!(browser.run(ASKED, json!([])).await, json!(vec!["filters"; 5]));
    page.close(0).await;
    server.shutdown().await;
}

pub(crate) async fn what_the_network_view_missed_comes_with_the_server() {
    let (server, _repository) = serve().await;
    let page = Page::open_with_models(&server).await;
    let browser = &page.browser;
    page.drop_files(&[("a.png", png([200, 0, 0]))]).await;
    browser.wait_for("a class", &first_class("a.png")).await;
    let away = "window.away = /\\/features\\?|\\/filters$/;
        const own = window.fetch;
        window.fetch = (path, options) =>
            window.away?.test(path) ? Promise.reject(new TypeError('Failed to fetch')) : own(path, options)";
    browser.run(away, json!([])).await;
    browser.click("nav a[href='#network']").await;
    browser.wait_for("the layers", &layers("3 × 8 × 8")).await;
    browser.run("document.querySelector('#layers button').click()", json!([])).await;
    for place in ["filters", "features"] {
        let said = format!("return document.querySelector('#{place}').textContent === 'The server does not answer.'");
        browser.wait_for("the failure", &said).await;
    }
    browser.run("window.away = /./", json!([])).await;
    browser.wait_for("the notice", &notice("The server does not answer.")).await;
    browser.run("window.away = null", json!([])).await;
    for place in ["filters", "features"] {
        browser.wait_for(place, &format!("return document.querySelector('#{place} img')?.naturalWidth > 0")).await;
    }

    // The caption says what maps are scaled by: those of one value, by each other.
    let caption = |words: &str| format!("return document.querySelector('#features p')?.textContent === '{words}'");
    let own = "3 maps of 8 × 8, each from its own lowest value (black) to its highest.";
    browser.wait_for("the caption", &caption(own)).await;
    let pooled = "[...document.querySelectorAll('#layers button')].find(it => it.textContent === 'pooled').click()";
    browser.run(pooled, json!([])).await;
    let all = "3 values, from the lowest of all (black) to the highest.";
    browser.wait_for("the other caption", &caption(all)).await;
    page.close(0).await;
    server.shutdown().await;
}
