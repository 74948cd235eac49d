//! A browser over the WebDriver protocol, which is JSON over HTTP: chromedriver and a Chromium without a window.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::client::send_to;

/// The key of an element's reference.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// How long anything may take that the page does.
const PATIENCE: Duration = Duration::from_mins(1);

/// A browser with one page. Both programs end with it.
pub(crate) struct Browser {
    driver: Child,
    address: SocketAddr,
    session: String,
}

impl Browser {
    /// Starts the browser with a window of this size, in dark colours where that is asked for.
    pub(crate) async fn start(width: u32, height: u32, dark: bool) -> Self {
        let mut command = Command::new("chromedriver");
        let mut driver = command.arg("--port=0").stdout(Stdio::piped()).spawn().expect("chromedriver starts");
        let lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let said = lines.map_while(Result::ok).find_map(|line| {
            let (_, port) = line.split_once("started successfully on port ")?;
            port.trim_end_matches('.').parse().ok()
        });
        let port: u16 = said.expect("chromedriver says its port");
        let mut browser = Self { driver, address: SocketAddr::from(([127, 0, 0, 1], port)), session: String::new() };
        let arguments = [
            "--headless=new".to_owned(),
            // As root, as in a container, Chromium has no sandbox; and what it shows here is our own.
            "--no-sandbox".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            format!("--window-size={width},{height}"),
            // What Chromium asks its maker for is none of the page's doing.
            "--disable-background-networking".to_owned(),
            "--disable-component-update".to_owned(),
        ];
        let capabilities = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": {"args": arguments},
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }}});
        let session = browser.call("POST", "/session", &capabilities).await;
        browser.session = format!("/session/{}", session["sessionId"].as_str().unwrap());
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        browser.devtools("Emulation.setDeviceMetricsOverride", size).await;
        let colours = json!({"name": "prefers-color-scheme", "value": if dark { "dark" } else { "light" }});
        browser.devtools("Emulation.setEmulatedMedia", json!({ "features": [colours] })).await;
        browser
    }

    async fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        self.try_call(method, path, body).await.unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// The value of the answer, or of the driver's error.
    async fn try_call(&self, method: &str, path: &str, body: &Value) -> Result<Value, Value> {
        let body = if method == "POST" { body.to_string() } else { String::new() };
        let headers = [("content-type", "application/json")];
        let answer = send_to(self.address, method, path, &headers, body).await;
        let value = answer.json()["value"].take();
        if answer.status == 200 { Ok(value) } else { Err(value) }
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        self.call("POST", &format!("{}{path}", self.session), &body).await
    }

    async fn devtools(&self, command: &str, parameters: Value) -> Value {
        self.post("/goog/cdp/execute", json!({"cmd": command, "params": parameters})).await
    }

    pub(crate) async fn open(&self, url: &str) {
        self.post("/url", json!({ "url": url })).await;
    }

    /// Runs a script in the page: the body of a function, which may be waited for. `arguments` are its arguments.
    pub(crate) async fn run(&self, script: &str, arguments: Value) -> Value {
        let script = format!("return (async function() {{ {script} }}).apply(null, arguments)");
        self.post("/execute/sync", json!({"script": script, "args": arguments})).await
    }

    /// Waits until the script's value is something.
    pub(crate) async fn wait_for(&self, what: &str, script: &str) -> Value {
        let started = Instant::now();
        loop {
            let value = self.run(script, json!([])).await;
            if !matches!(value, Value::Null | Value::Bool(false)) {
                return value;
            }
            assert!(started.elapsed() < PATIENCE, "{what} has not come. The page says: {}", self.text().await);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// What can be read on the page.
    pub(crate) async fn text(&self) -> String {
        self.run("return document.body.innerText", json!([])).await.as_str().unwrap().to_owned()
    }

    /// Does something to an element. One that the page has just put another in the place of is looked for again, as a person would.
    async fn act(&self, selector: &str, action: &str, body: Value) {
        let started = Instant::now();
        loop {
            let found = self.post("/element", json!({"using": "css selector", "value": selector})).await;
            let element = found[ELEMENT].as_str().unwrap_or_else(|| panic!("{selector} is not on the page"));
            let path = format!("{}/element/{element}/{action}", self.session);
            let Err(error) = self.try_call("POST", &path, &body).await else { return };
            let is_replaced = error["error"] == "stale element reference";
            assert!(is_replaced && started.elapsed() < PATIENCE, "{action} on {selector}: {error}");
        }
    }

    /// Clicks as a mouse does, which fails on what is covered or hidden.
    pub(crate) async fn click(&self, selector: &str) {
        self.act(selector, "click", json!({})).await;
    }

    /// Types into an element; into one for files, their paths.
    pub(crate) async fn type_into(&self, selector: &str, text: &str) {
        self.act(selector, "value", json!({ "text": text })).await;
    }

    /// Chooses an option as a person does who has the keyboard.
    pub(crate) async fn choose(&self, selector: &str, text: &str) {
        self.type_into(selector, text).await;
    }

    /// Presses keys wherever the focus is.
    pub(crate) async fn press(&self, keys: &str) {
        let actions: Vec<_> = keys
            .chars()
            .flat_map(|key| ["keyDown", "keyUp"].map(|kind| json!({"type": kind, "value": key.to_string()})))
            .collect();
        self.post("/actions", json!({"actions": [{"type": "key", "id": "keys", "actions": actions}]})).await;
    }

    /// Keeps a picture of the whole page, however long it is.
    pub(crate) async fn keep_screenshot(&self, file: &Path) {
        let clip = self
            .run("const it = document.documentElement; return {x: 0, y: 0, width: it.clientWidth, height: it.scrollHeight, scale: 1}", json!([]))
            .await;
        let parameters = json!({"captureBeyondViewport": true, "clip": clip});
        let picture = self.devtools("Page.captureScreenshot", parameters).await;
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, STANDARD.decode(picture["data"].as_str().unwrap()).unwrap()).unwrap();
    }

    /// What the console has, each entry once: what scripts say, and what the browser holds against the page.
    pub(crate) async fn console(&self) -> Vec<Value> {
        self.post("/se/log", json!({"type": "browser"})).await.as_array().unwrap().clone()
    }

    /// The addresses that the page has asked for, each entry once.
    pub(crate) async fn requests(&self) -> Vec<String> {
        let log = self.post("/se/log", json!({"type": "performance"})).await;
        let events = log
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| -> Value { serde_json::from_str(entry["message"].as_str().unwrap()).unwrap() });
        let asked = events.filter(|event| event["message"]["method"] == "Network.requestWillBeSent");
        asked.map(|event| event["message"]["params"]["request"]["url"].as_str().unwrap().to_owned()).collect()
    }

    pub(crate) async fn end(mut self) {
        self.call("DELETE", &self.session, &Value::Null).await;
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // A test that failed leaves none behind either: chromedriver takes its browsers along.
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
