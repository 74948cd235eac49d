//! The page in a real browser: Debian's `chromium` and `chromium-driver`, or any Chromium with its driver, on the `PATH`. Where there
//! is none the tests are ignored, and say so; with `CONVOY_BROWSER=required` in the environment that is a failure.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/http.rs"]
#[expect(dead_code, reason = "only what WebDriver needs")]
mod client;
#[path = "support/graphs.rs"]
#[expect(dead_code, reason = "one graph is enough")]
mod graphs;
#[path = "support/server.rs"]
#[expect(dead_code, reason = "the photographs are real")]
mod server;
#[path = "support/webdriver.rs"]
mod webdriver;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use convoy::server::Server;
use libtest_mimic::{Arguments, Trial};
use serde_json::{Value, json};
use server::{PLAIN_RECIPE, Repository, config, start};
use webdriver::Browser;

/// Keys as WebDriver spells them.
const TAB: &str = "\u{e004}";
const ENTER: &str = "\u{e007}";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn photo(name: &str) -> PathBuf {
    let path = root().join("target/photos").join(name);
    assert!(path.exists(), "{} is missing: `cargo xtask test` fetches it", path.display());
    path
}

/// Why there is no browser to test in, if there is none.
fn what_is_missing() -> Option<String> {
    let missing = ["chromium", "chromedriver"].into_iter().filter(|program| {
        let status = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        !status.is_ok_and(|status| status.success())
    });
    let missing: Vec<_> = missing.collect();
    (!missing.is_empty()).then(|| format!("{} cannot be run", missing.join(" and ")))
}

/// A harness of its own, because whether these tests can run is known when they are to.
fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let missing = what_is_missing();
    if let Some(missing) = &missing {
        eprintln!("the page is NOT tested in a browser: {missing}");
        if std::env::var_os("CONVOY_BROWSER").is_some() && !arguments.list {
            return ExitCode::FAILURE;
        }
    }
    let trials = vec![
        trial("a_photograph_is_classified_and_explained", a_photograph_is_classified_and_explained),
        trial("the_network_and_the_server_are_shown", the_network_and_the_server_are_shown),
        trial("a_phone_and_a_keyboard_are_enough", a_phone_and_a_keyboard_are_enough),
        trial("the_documentation_is_drawn", the_documentation_is_drawn),
        trial("a_key_is_asked_for_and_kept_in_the_tab", a_key_is_asked_for_and_kept_in_the_tab),
    ];
    let trials = trials.into_iter().map(|trial| trial.with_ignored_flag(missing.is_some())).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn trial<F: Future<Output = ()>>(name: &str, test: impl FnOnce() -> F + Send + 'static) -> Trial {
    Trial::test(name, || {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(test());
        Ok(())
    })
}

/// The real model, under two names, and one of three classes without labels.
async fn serve() -> (Server, Repository) {
    let repository = Repository::new().with("means", &graphs::channel_means(8, None), PLAIN_RECIPE, "");
    let real = root().join("models/efficientnet-lite0");
    let folder = repository.path().join("efficientnet-lite0");
    std::fs::create_dir_all(folder.join("1")).unwrap();
    for file in ["config.toml", "labels.txt", "1/model.onnx"] {
        let there = real.join(file);
        std::fs::copy(&there, folder.join(file))
            .unwrap_or_else(|error| panic!("{}: {error}; `cargo xtask setup` makes it", there.display()));
    }
    (start(config(&repository)).await, repository)
}

/// A page that is watched from the beginning.
struct Page {
    browser: Browser,
    origin: String,
}

impl Page {
    async fn open(server: &Server, path: &str, width: u32, dark: bool) -> Self {
        let browser = Browser::start(width, 900, dark).await;
        let origin = format!("http://{}", server.http_address());
        browser.open(&format!("{origin}{path}")).await;
        Self { browser, origin }
    }

    /// Asks axe whether everybody can use what is shown now.
    async fn check_accessibility(&self, what: &str) {
        let file = root().join("target/tools/axe/axe.min.js");
        let axe = std::fs::read_to_string(&file)
            .unwrap_or_else(|error| panic!("{}: {error}; `cargo xtask test` fetches it", file.display()));
        self.browser.run(&axe, json!([])).await;
        let found = self.browser.run("return axe.run().then(it => it)", json!([])).await;
        assert!(found["passes"].as_array().unwrap().len() > 10, "axe looked at nothing: {found}");
        let serious: Vec<_> = found["violations"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|it| it["impact"] == "serious" || it["impact"] == "critical")
            .map(|it| {
                let nodes =
                    it["nodes"].as_array().unwrap().iter().map(|node| (&node["target"], &node["failureSummary"]));
                format!("{}: {:?}", it["id"], nodes.collect::<Vec<_>>())
            })
            .collect();
        assert!(serious.is_empty(), "{what}: {serious:#?}");
    }

    async fn keep_screenshot(&self, name: &str) {
        self.browser.keep_screenshot(&root().join("target/browser").join(format!("{name}.png"))).await;
    }

    /// Ends the browser, and checks that nothing went wrong unseen. `refused` is how many answers were meant to be refusals.
    async fn close(self, refused: usize) {
        let console = self.browser.console().await;
        // The browser itself lists answers that are refusals; what they are is the page's to say.
        let (network, others): (Vec<&Value>, Vec<&Value>) =
            console.iter().partition(|entry| entry["source"] == "network");
        assert!(others.is_empty(), "the console has {others:?}");
        assert_eq!(network.len(), refused, "{network:?}");
        let requests = self.browser.requests().await;
        assert!(requests.len() > 5, "{requests:?}");
        for url in requests {
            let own = [self.origin.as_str(), "blob:", "data:"].iter().any(|start| url.starts_with(start));
            assert!(own, "the page asked {url}");
        }
        self.browser.end().await;
    }
}

/// The first class of the picture whose card has the file's name in it.
fn first_class(file: &str) -> String {
    format!(
        "const card = [...document.querySelectorAll('.picture')].find(it => it.querySelector('h2').textContent === '{file}');
         return card?.querySelector('.classes .label')?.textContent"
    )
}

async fn a_photograph_is_classified_and_explained() {
    let (server, repository) = serve().await;
    let page = Page::open(&server, "/", 1280, false).await;
    let browser = &page.browser;
    browser.wait_for("the list of models", "return document.querySelector('#model').options.length === 2").await;
    page.check_accessibility("before anything").await;

    // A file is chosen, another is dropped.
    let siamese = photo("cats/siamese-cat.jpg");
    browser.type_into("#files", siamese.to_str().unwrap()).await;
    let label = browser.wait_for("the class of the cat", &first_class("siamese-cat.jpg")).await;
    assert_eq!(label, "Siamese cat, Siamese");
    let bytes = STANDARD.encode(std::fs::read(photo("scikit-image/coffee.png")).unwrap());
    let drop = "const bytes = Uint8Array.from(atob(arguments[0]), it => it.charCodeAt(0));
        const data = new DataTransfer();
        data.items.add(new File([bytes], 'coffee.png', {type: 'image/png'}));
        document.querySelector('#drop').dispatchEvent(new DragEvent('drop', {dataTransfer: data, bubbles: true, cancelable: true}))";
    browser.run(drop, json!([bytes])).await;
    assert_eq!(browser.wait_for("the class of the coffee", &first_class("coffee.png")).await, "espresso");
    let timing = "return document.querySelector('.timing').innerText";
    let timing = browser.run(timing, json!([])).await.as_str().unwrap().to_owned();
    for part in ["decode", "queue", "batch", "compute", "round trip"] {
        assert!(timing.contains(part), "{timing}");
    }

    // Why: what is painted over the picture changes it, where the network has looked.
    let pixels = "const url = document.querySelector('.picture canvas').toDataURL();
        return [...url].reduce((sum, letter) => (31 * sum + letter.charCodeAt()) % 4294967291, 0)";
    let before = browser.run(pixels, json!([])).await;
    let said = "const it = document.querySelector('.why .said').textContent; return it.includes('Strongest') && it";
    browser.click(".why .explain").await;
    let words = browser.wait_for("the heatmap", said).await;
    assert!(words.as_str().unwrap().starts_with("cam, “Siamese cat, Siamese”"), "{words}");
    let heated = browser.run(pixels, json!([])).await;
    assert_ne!(before, heated);
    let opacity = "const it = document.querySelector('.why input[type=range]'); it.value = 0;
        it.dispatchEvent(new Event('input'))";
    browser.run(opacity, json!([])).await;
    assert_eq!(browser.run(pixels, json!([])).await, before, "nothing is left at no opacity");
    page.keep_screenshot("explained").await;

    // A projection of a unit of a layer.
    browser.choose(".why .method", "DeconvNet").await;
    browser.wait_for("the layers", "return document.querySelector('.why .layer').options.length > 10").await;
    browser.choose(".why .layer", "_blocks.2._relu1").await;
    browser.click(".why .explain").await;
    let words = browser.wait_for("the projection", &said.replace("'Strongest'", "'deconvnet'")).await;
    assert!(words.as_str().unwrap().contains("of _blocks.2._relu1"), "{words}");
    assert_ne!(browser.run(pixels, json!([])).await, before);

    // What is no picture is refused in words.
    let text = repository.path().join("<img src=x onerror=alert(1)>.txt");
    std::fs::write(&text, "no picture").unwrap();
    browser.type_into("#files", text.to_str().unwrap()).await;
    let said = browser.wait_for("the error", "return document.querySelector('.picture .error')?.textContent").await;
    assert!(said.as_str().unwrap().starts_with("The bytes are not a picture"), "{said}");
    let names = browser.run("return document.querySelector('.picture:last-child h2').textContent", json!([])).await;
    assert_eq!(names, "<img src=x onerror=alert(1)>.txt");
    page.check_accessibility("with pictures").await;
    page.keep_screenshot("classified").await;

    // Another model answers anew.
    browser.choose("#model", "means").await;
    let other = format!("{}?.match(/^class [012]$/)?.[0]", first_class("coffee.png"));
    assert_eq!(browser.wait_for("the other model's class", &other).await, "class 0");
    page.close(2).await;
    server.shutdown().await;
}

async fn the_network_and_the_server_are_shown() {
    let (server, _repository) = serve().await;
    let page = Page::open(&server, "/", 1280, true).await;
    let browser = &page.browser;
    browser.type_into("#files", photo("cats/tabby-cat.jpg").to_str().unwrap()).await;
    browser.wait_for("the class of the cat", &first_class("tabby-cat.jpg")).await;

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

async fn a_phone_and_a_keyboard_are_enough() {
    let (server, _repository) = serve().await;
    let page = Page::open(&server, "/", 390, false).await;
    let browser = &page.browser;
    browser.wait_for("the list of models", "return document.querySelector('#model').options.length === 2").await;
    browser.type_into("#files", photo("cats/persian-cat.jpg").to_str().unwrap()).await;
    assert_eq!(browser.wait_for("the class of the cat", &first_class("persian-cat.jpg")).await, "Persian cat");
    let overflow = "return document.documentElement.scrollWidth - document.documentElement.clientWidth";
    for view in ["#classify", "#network", "#server"] {
        browser.open(&format!("{}/{view}", page.origin)).await;
        browser.wait_for("the view", &format!("return !document.querySelector('#view-{}').hidden", &view[1..])).await;
        assert_eq!(browser.run(overflow, json!([])).await, 0, "{view} is wider than the phone");
    }
    browser.open(&format!("{}/#classify", page.origin)).await;
    page.keep_screenshot("phone").await;

    // From the top: past the link to the content to that of the next view, by keys alone.
    browser.run("document.activeElement.blur(); document.querySelector('.skip').focus()", json!([])).await;
    browser.press(&format!("{TAB}{TAB}{ENTER}")).await;
    browser.wait_for("the view", "return !document.querySelector('#view-network').hidden").await;
    assert_eq!(browser.run("return document.activeElement.id", json!([])).await, "main");
    page.close(0).await;
    server.shutdown().await;
}

async fn the_documentation_is_drawn() {
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

async fn a_key_is_asked_for_and_kept_in_the_tab() {
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
