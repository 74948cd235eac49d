//! The binary, serving: for what a server in the test's own process cannot show.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::memory::resident_bytes;
use crate::server::Repository;

/// A running `convoy serve` in the mode explicit, with everything loaded. Killed when dropped.
pub(crate) struct Process {
    child: Child,
    pub(crate) address: SocketAddr,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Process {
    pub(crate) fn start(repository: &Repository, environment: &[(&str, &Path)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_convoy"));
        command.args(["serve", "--log-format", "json", "--log-level", "info"]);
        command.args(["--model-control-mode", "explicit", "--model-control-load", "*", "--model-repository"]);
        command.arg(repository.path());
        for listener in ["http", "grpc", "metrics"] {
            command.args([format!("--{listener}-address"), "127.0.0.1:0".into()]);
        }
        let mut child = command.envs(environment.iter().copied()).stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut event = |message: &str| {
            let events = log.by_ref().map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
            events.into_iter().find(|event| event["message"] == message).unwrap()
        };
        let address = event("HTTP listens")["address"].as_str().unwrap().parse().unwrap();
        event("ready");
        // A pipe that nobody empties would hold the server up.
        let lines = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&lines);
        std::thread::spawn(move || log.for_each(|line| kept.lock().unwrap().push(line.unwrap())));
        Self { child, address, lines }
    }

    /// What it has logged since it was ready.
    pub(crate) fn log(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// The memory that is resident now, in bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        resident_bytes(&self.child.id().to_string())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // An error says that it has ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
