//! The page of a server that asks for keys.

use crate::server::{PLAIN_RECIPE, Repository, config, start};
use crate::{ENTER, Page, graphs};

pub(crate) async fn a_key_is_asked_for_and_kept_in_the_tab() {
    let repository = Repository::new().with("means", &graphs::channel_means(8, None), PLAIN_RECIPE, "");
    let keys = repository.path().join("keys.toml");
    // What `printf a-key-for-the-page | sha256sum` says.
    let hash = "2f92085f7f38eaeeb8bd0200a566fea904ef8033019fb69e050e480fbd6f7d15";
    std::fs::write(&keys, format!("[[keys]]\nsha256 = \"{hash}\"\nright = \"infer\"\n")).unwrap();
    let mut config = config(&repository);
    config.auth.keys_file = Some(keys);
    let server = start(config).await;
    let page = Page::open(&server, "/", 1280, false).await;
    let browser = &page.browser;
    browser.wait_for("the question for a key", "return document.querySelector('#key-dialog').open").await;
    page.check_accessibility("the question for a key").await;
    // A key that no header can hold is refused in our own words, and nothing is asked with it.
    browser.type_into("#key", &format!("schlüssel-鍵{ENTER}")).await;
    let notice =
        "return document.querySelector('#notice').textContent.startsWith('The API key has characters that no key has')";
    browser.wait_for("what is wrong with the key", notice).await;
    browser.click("#key-button").await;
    browser.type_into("#key", &format!("a-key-for-the-page{ENTER}")).await;
    browser.wait_for("the list of models", "return document.querySelector('#model').value === 'means'").await;
    browser.open(&format!("{}/docs", page.origin)).await;
    browser.open(&page.origin).await;
    browser.wait_for("the list of models", "return document.querySelector('#model').value === 'means'").await;
    browser.click("#key-button").await;
    browser.click("#key-dialog button[value=forget]").await;
    browser.wait_for("the question for a key", "return document.querySelector('#key-dialog').open").await;
    // Two lists and two versions were asked for without a key.
    page.close(4).await;
    server.shutdown().await;
}
