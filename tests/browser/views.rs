//! The other views, narrow windows and the keyboard, and the documentation.

use serde_json::json;

use crate::server::{PLAIN_RECIPE, Repository, config, png, start};
use crate::{ENTER, Page, TAB, first_class, graphs, photo, serve};

pub(crate) async fn the_network_and_the_server_are_shown() {
    let (server, _repository) = serve().await;
    let page = Page::open(&server, "/", 1280, true).await;
    let browser = &page.browser;
    browser.type_into("#files", photo("cats/tabby-cat.jpg").to_str().unwrap()).await;
    browser.wait_for("the class of the cat", &first_class("tabby-cat.jpg")).await;

    browser.click(".why .explain").await;
    let said = "return document.querySelector('.why .said').textContent.includes('Strongest')";
    browser.wait_for("the heatmap", said).await;
    page.check_accessibility("an explained picture in the dark").await;
    page.keep_screenshot("classified-dark").await;

    browser.click("nav a[href='#network']").await;
    browser.wait_for("the filters", "return document.querySelector('#filters img')?.naturalWidth > 0").await;
    let totals = browser.run("return document.querySelector('#network-totals').innerText", json!([])).await;
    // Of the published network: 4.65 million parameters with batch norms, which are folded here.
    assert!(totals.as_str().unwrap().contains("4.63 M"), "{totals}");
    let rows = browser.run("return document.querySelectorAll('#layers tbody tr').length", json!([])).await;
    assert!(rows.as_u64().unwrap() > 90, "{rows}");
    browser.click("#layers tbody tr:nth-child(2) button").await;
    browser.wait_for("the feature maps", "return document.querySelector('#features img')?.naturalWidth > 0").await;
    let channels = browser.run("return document.querySelectorAll('.channels tbody tr').length", json!([])).await;
    assert_eq!(channels, 32);
    page.check_accessibility("the network").await;
    page.keep_screenshot("network-dark").await;

    browser.click("nav a[href='#server']").await;
    browser.wait_for("the models", "return document.querySelectorAll('#models tbody tr').length === 2").await;
    // Two readings make a rate: the second has the pictures in it that are classified in between.
    let throughput = "return /answered 0\\b/.test(document.querySelector('.chart').innerText.replace('\\n', ' '))";
    browser.wait_for("a first rate", throughput).await;
    browser.run("document.querySelector('#again').click()", json!([])).await;
    let risen = "const it = /answered ([\\d.]+)/.exec(document.querySelector('.chart svg').getAttribute('aria-label'));
        return it && Number(it[1]) > 0";
    browser.wait_for("a throughput", risen).await;
    // What Prometheus' `histogram_quantile` says of 10 values up to 1, 10 more up to 2, and one beyond; and of a restart.
    let quantiles = "const it = await import('/page/metrics.js');
        const series = it.parse('a_bucket{le=\"1\",model=\"m\"} 10\\na_bucket{le=\"2\",model=\"m\"} 20\\na_bucket{le=\"+Inf\",model=\"m\"} 21\\n');
        const all = it.buckets(series, 'a', 'm');
        const anew = it.between([[1, 15], [2, 30], [Infinity, 31]], all);
        return [it.quantile(all, 5 / 21), it.quantile(all, 15 / 21), it.quantile(all, 1), it.quantile([], 0.5), anew[1][1]]";
    let quantiles = browser.run(quantiles, json!([])).await;
    let values: Vec<_> = quantiles.as_array().unwrap().iter().map(|it| it.as_f64().unwrap_or(-1.0)).collect();
    for (value, expected) in values.iter().zip([0.5, 1.5, 2.0, -1.0, 20.0]) {
        assert!((value - expected).abs() < 1e-9, "{values:?}");
    }
    page.check_accessibility("the server").await;
    page.keep_screenshot("server-dark").await;
    page.close(0).await;
    server.shutdown().await;
}

pub(crate) async fn a_phone_and_a_keyboard_are_enough() {
    let (server, _repository) = serve().await;
    for (dark, colours) in [(false, "light"), (true, "dark")] {
        let page = Page::open(&server, "/", 390, dark).await;
        let browser = &page.browser;
        browser.wait_for("the list of models", "return document.querySelector('#model').options.length === 2").await;
        browser.type_into("#files", photo("cats/persian-cat.jpg").to_str().unwrap()).await;
        assert_eq!(browser.wait_for("the class of the cat", &first_class("persian-cat.jpg")).await, "Persian cat");
        browser.click(".why .explain").await;
        let said = "return document.querySelector('.why .said').textContent.includes('Strongest')";
        browser.wait_for("the heatmap", said).await;
        browser.click("nav a[href='#network']").await;
        browser.wait_for("the filters", "return document.querySelector('#filters img')?.naturalWidth > 0").await;
        browser.click("#layers tbody tr:nth-child(2) button").await;
        browser.wait_for("the feature maps", "return document.querySelector('#features img')?.naturalWidth > 0").await;
        browser.click("nav a[href='#server']").await;
        browser.wait_for("the models", "return document.querySelectorAll('#models tbody tr').length === 2").await;
        let overflow = "return document.documentElement.scrollWidth - document.documentElement.clientWidth";
        for view in ["classify", "network", "server"] {
            browser.click(&format!("nav a[href='#{view}']")).await;
            browser.wait_for("the view", &format!("return !document.querySelector('#view-{view}').hidden")).await;
            assert_eq!(browser.run(overflow, json!([])).await, 0, "{view} is wider than the phone");
            page.check_accessibility(&format!("{view} on a phone, {colours}")).await;
            page.keep_screenshot(&format!("phone-{view}-{colours}")).await;
        }

        // From the top: past the link to the content to that of the next view, by keys alone.
        browser.run("document.activeElement.blur(); document.querySelector('.skip').focus()", json!([])).await;
        browser.press(&format!("{TAB}{TAB}{ENTER}")).await;
        browser.wait_for("the view", "return !document.querySelector('#view-network').hidden").await;
        assert_eq!(browser.run("return document.activeElement.id", json!([])).await, "main");

        browser.open(&format!("{}/docs#explain", page.origin)).await;
        browser.wait_for("the operation", "return document.querySelector('#explain[open] .body')").await;
        assert_eq!(browser.run(overflow, json!([])).await, 0, "the documentation is wider than the phone");
        page.check_accessibility(&format!("the documentation on a phone, {colours}")).await;
        page.close(0).await;
    }
    server.shutdown().await;
}

pub(crate) async fn long_labels_leave_the_page_its_shape() {
    let labels = ["x".repeat(400), "long words ".repeat(40), "short".to_owned()].join("\n");
    let recipe = format!("{PLAIN_RECIPE}resize = 8\n");
    let repository = Repository::new().with("long", &graphs::convolutional(8, 3), &recipe, &labels);
    let server = start(config(&repository)).await;
    for width in [1280, 390] {
        let page = Page::open(&server, "/", width, false).await;
        let browser = &page.browser;
        browser.wait_for("the list of models", "return document.querySelector('#model').value === 'long'").await;
        page.drop_files(&[("a.png", png([200, 0, 0]))]).await;
        browser.wait_for("its class", &first_class("a.png")).await;
        let about =
            "const it = document.querySelector('.why .about'); it.value = '0'; it.dispatchEvent(new Event('change'))";
        browser.run(about, json!([])).await;
        browser.click(".explain").await;
        let said = "return document.querySelector('.why .said').textContent.includes('Strongest')";
        browser.wait_for("the map", said).await;
        let overflow = "return document.documentElement.scrollWidth - document.documentElement.clientWidth";
        assert_eq!(browser.run(overflow, json!([])).await, 0, "at {width}");
        let wider = "const card = document.querySelector('.picture').getBoundingClientRect().right;
            return [...document.querySelectorAll('.picture *')].filter(it => it.getBoundingClientRect().right > card)
                .map(it => it.className)";
        assert_eq!(browser.run(wider, json!([])).await, json!([]), "at {width}");
        // Two lines of each, and the rest in its title.
        let heights = "return Math.max(...[...document.querySelectorAll('.classes li')].map(it => it.offsetHeight))";
        assert!(browser.run(heights, json!([])).await.as_u64().unwrap() < 60, "at {width}");
        let cut = "const it = document.querySelector('.classes li:last-child .label');
            return it.scrollHeight > it.clientHeight && getComputedStyle(it).overflowY";
        assert_eq!(browser.run(cut, json!([])).await, "hidden", "at {width}");
        let title = "return document.querySelector('.classes li:last-child .label').title.length";
        assert_eq!(browser.run(title, json!([])).await, 400, "at {width}");
        page.keep_screenshot(&format!("long-labels-{width}")).await;
        page.close(0).await;
    }
    server.shutdown().await;
}

pub(crate) async fn the_documentation_is_drawn() {
    let (server, _repository) = serve().await;
    let page = Page::open(&server, "/docs#classify", 1280, false).await;
    let browser = &page.browser;
    browser.wait_for("the operation", "return document.querySelector('#classify[open] .body')").await;
    let text = browser.text().await;
    for part in ["/v1/models/{model}/classify", "top_k", "timeout_ms", "predictions", "decode_ms", "curl --data-binary"]
    {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    page.check_accessibility("the documentation").await;
    page.keep_screenshot("docs").await;
    browser.type_into("#find", "unload").await;
    browser.wait_for("what is found", "return document.querySelector('#found').textContent === '1 operations'").await;
    page.close(0).await;
    server.shutdown().await;
}
