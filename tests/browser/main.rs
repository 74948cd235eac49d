//! The page in a real browser: Debian's `chromium` and `chromium-driver`, or any Chromium with its driver, on the `PATH`. Where there
//! is none the tests are ignored, and say so; with `CONVOY_BROWSER=required` in the environment that is a failure.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/http.rs"]
#[expect(dead_code, reason = "only what is needed here")]
mod client;
#[path = "../support/graphs.rs"]
mod graphs;
#[path = "../support/server.rs"]
#[expect(dead_code, reason = "the photographs are real")]
mod server;
#[path = "../support/webdriver.rs"]
mod webdriver;

mod changes;
mod explanations;
mod failures;
mod key;
mod outdated;
mod pictures;
mod restarts;
mod versions;
mod views;

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
        trial("a_photograph_is_classified_and_explained", pictures::a_photograph_is_classified_and_explained),
        trial("the_network_and_the_server_are_shown", views::the_network_and_the_server_are_shown),
        trial("a_phone_and_a_keyboard_are_enough", views::a_phone_and_a_keyboard_are_enough),
        trial("the_documentation_is_drawn", views::the_documentation_is_drawn),
        trial("a_key_is_asked_for_and_kept_in_the_tab", key::a_key_is_asked_for_and_kept_in_the_tab),
        trial("what_nobody_waits_for_is_stopped", explanations::what_nobody_waits_for_is_stopped),
        trial("explanations_leave_room_for_classification", explanations::explanations_leave_room_for_classification),
        trial("what_excites_a_unit_is_shown", changes::what_excites_a_unit_is_shown),
        trial("what_changes_is_not_shown_as_it_was", changes::what_changes_is_not_shown_as_it_was),
        trial(
            "what_excites_a_unit_is_looked_for_among_pictures",
            changes::what_excites_a_unit_is_looked_for_among_pictures,
        ),
        trial("the_keyboard_stays_where_it_was", changes::the_keyboard_stays_where_it_was),
        trial(
            "an_answer_of_a_model_that_was_loaded_again_says_so",
            outdated::an_answer_of_a_model_that_was_loaded_again_says_so,
        ),
        trial(
            "an_explanation_is_never_of_another_model_than_the_answer",
            outdated::an_explanation_is_never_of_another_model_than_the_answer,
        ),
        trial("an_answer_of_an_ensemble_says_so_too", outdated::an_answer_of_an_ensemble_says_so_too),
        trial("no_answer_becomes_another_versions_unasked", versions::no_answer_becomes_another_versions_unasked),
        trial("what_failed_can_be_asked_for_again", failures::what_failed_can_be_asked_for_again),
        trial("nothing_is_waited_for_without_end", failures::nothing_is_waited_for_without_end),
        trial("what_the_network_sees_is_never_a_speck", pictures::what_the_network_sees_is_never_a_speck),
        trial("pictures_are_drawn_as_they_are_classified", pictures::pictures_are_drawn_as_they_are_classified),
        trial("long_labels_leave_the_page_its_shape", views::long_labels_leave_the_page_its_shape),
        trial(
            "a_server_that_hangs_is_said_not_to_answer_until_it_does",
            failures::a_server_that_hangs_is_said_not_to_answer_until_it_does,
        ),
        trial("what_was_refused_is_asked_for_again", failures::what_was_refused_is_asked_for_again),
        trial("what_was_chosen_is_chosen_again", restarts::what_was_chosen_is_chosen_again),
        trial("what_waits_is_not_asked_of_another_model", restarts::what_waits_is_not_asked_of_another_model),
        trial(
            "what_the_network_view_missed_comes_with_the_server",
            restarts::what_the_network_view_missed_comes_with_the_server,
        ),
        trial("explanations_are_put_in_words", pictures::explanations_are_put_in_words),
        trial(
            "what_the_browser_cannot_show_is_explained_by_the_server",
            pictures::what_the_browser_cannot_show_is_explained_by_the_server,
        ),
        trial(
            "what_excites_a_unit_is_sent_as_far_as_a_request_holds_it",
            changes::what_excites_a_unit_is_sent_as_far_as_a_request_holds_it,
        ),
        trial("a_file_that_was_deleted_is_said_to_be_gone", failures::a_file_that_was_deleted_is_said_to_be_gone),
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

    /// Opens the page and waits until it offers the models, of which `filters` is the first.
    async fn open_with_models(server: &Server) -> Self {
        let page = Self::open(server, "/", 1280, false).await;
        let listed = "return document.querySelector('#model').value === 'filters'";
        page.browser.wait_for("the list of models", listed).await;
        page
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

    /// Drops files with these names and contents on the page.
    async fn drop_files(&self, files: &[(&str, Vec<u8>)]) {
        let files: Vec<_> = files.iter().map(|(name, bytes)| json!([name, STANDARD.encode(bytes)])).collect();
        let drop = "const data = new DataTransfer();
            for (const [name, text] of arguments[0]) {
                const bytes = Uint8Array.from(atob(text), it => it.charCodeAt(0));
                data.items.add(new File([bytes], name, {type: 'image/png'}));
            }
            const event = new DragEvent('drop', {dataTransfer: data, bubbles: true, cancelable: true});
            document.querySelector('#drop').dispatchEvent(event)";
        self.browser.run(drop, json!([files])).await;
    }

    /// Ends the browser, and checks that nothing went wrong unseen. `refused` is how many answers were meant to be refusals.
    async fn close(self, refused: usize) {
        let network = self.end().await;
        assert_eq!(network.len(), refused, "{network:?}");
    }

    /// Ends the browser, and checks that nothing went wrong unseen. Returns what the browser itself has listed: refusals.
    async fn end(self) -> Vec<Value> {
        let console = self.browser.console().await;
        // The browser itself lists answers that are refusals; what they are is the page's to say.
        let (network, others): (Vec<Value>, Vec<Value>) =
            console.into_iter().partition(|entry| entry["source"] == "network");
        assert!(others.is_empty(), "the console has {others:?}");
        let requests = self.browser.requests().await;
        assert!(requests.len() > 5, "{requests:?}");
        for url in requests {
            let own = [self.origin.as_str(), "blob:", "data:"].iter().any(|start| url.starts_with(start));
            assert!(own, "the page asked {url}");
        }
        self.browser.end().await;
        network
    }
}

/// The first class of the picture whose card has the file's name in it.
fn first_class(file: &str) -> String {
    format!(
        "const card = [...document.querySelectorAll('.picture')].find(it => it.querySelector('h2').textContent === '{file}');
         return card?.querySelector('.classes .label')?.textContent"
    )
}
