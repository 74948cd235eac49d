//! docker/rolling-update.sh against stand-ins for Docker, Compose and HAProxy's page: what it does when something is in its way.
//! That it loses no request is what `cargo xtask docker-test` tries.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docker/rolling-update.sh");
const STUB: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/operations/stub.sh");

/// Replicas that run, as the stub has them.
struct Stage {
    state: TempDir,
    places: usize,
}

impl Stage {
    fn new(replicas: usize, places: usize) -> Self {
        let state = TempDir::new().unwrap();
        for folder in ["containers", "slots", "bin"] {
            fs::create_dir(state.path().join(folder)).unwrap();
        }
        for program in ["docker", "compose", "curl", "sleep"] {
            symlink(STUB, state.path().join("bin").join(program)).unwrap();
        }
        let scene = Self { state, places };
        for replica in 1..=replicas {
            scene.put(&format!("containers/c{replica}"), "");
            scene.put(&format!("slots/c{replica}"), "UP");
        }
        scene.put("next", &replicas.to_string());
        scene.put("log", "");
        scene
    }

    fn path(&self) -> &Path {
        self.state.path()
    }

    fn put(&self, file: &str, text: &str) {
        fs::write(self.path().join(file), text).unwrap();
    }

    fn run(&self, environment: &[(&str, &str)]) -> Output {
        let path = format!("{}:{}", self.path().join("bin").display(), std::env::var("PATH").unwrap());
        let mut script = Command::new(SCRIPT);
        script.env("PATH", path).env("STATE", self.path()).env("PLACES", self.places.to_string());
        script.env("COMPOSE", "compose").env("PATIENCE_S", "10").envs(environment.iter().copied());
        script.output().unwrap()
    }

    /// Runs the script, which must refuse and say so.
    fn refused(&self, environment: &[(&str, &str)], words: &str) -> Output {
        let output = self.run(environment);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(words), "{}: {said}", output.status);
        output
    }

    fn replicas(&self) -> Vec<usize> {
        let number = |file: fs::DirEntry| file.file_name().to_str().unwrap()[1..].parse().unwrap();
        let mut replicas: Vec<usize> =
            fs::read_dir(self.path().join("containers")).unwrap().map(|file| number(file.unwrap())).collect();
        replicas.sort_unstable();
        replicas
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path().join("log")).unwrap()
    }
}

/// There are never fewer replicas that HAProxy uses than there were, however few places it has.
pub(crate) fn replaces_all_and_never_lacks_one() {
    for (replicas, places, batch) in [(3, 64, "99"), (3, 64, "1"), (10, 16, "99"), (5, 6, "99")] {
        let stage = Stage::new(replicas, places);
        let output = stage.run(&[("BATCH", batch)]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(stage.replicas(), (replicas + 1..=2 * replicas).collect::<Vec<_>>());
        let log = stage.log();
        let left: Vec<usize> =
            log.lines().filter_map(|line| line.split_once(" leaves ")).map(|(_, left)| left.parse().unwrap()).collect();
        assert_eq!(left.len(), replicas, "{log}");
        assert!(left.iter().all(|&left| left >= replicas), "{log}");
    }
}

/// What cannot be done is refused before anything is touched.
pub(crate) fn refuses_what_cannot_be_done() {
    let none = Stage::new(0, 64);
    none.refused(&[], "no replica runs");
    let full = Stage::new(4, 4);
    full.refused(&[], "no free place");
    let blind = Stage::new(3, 64);
    blind.put("haproxy-is-away", "");
    blind.refused(&[], "HAProxy cannot be asked");
    let halved = Stage::new(3, 64);
    halved.put("containers/c2", "stopped");
    halved.refused(&[], "c2 does not run");
    let nothing = Stage::new(3, 64);
    nothing.refused(&[("BATCH", "0")], "BATCH is 0");
    for stage in [none, full, blind, halved, nothing] {
        assert_eq!(stage.log(), "");
    }
}

/// Where the new ones do not come about, they go again, and no old one has been touched.
pub(crate) fn removes_the_new_ones_when_they_fail() {
    for (failure, words) in [
        ("up-fails", "no memory for another"),
        ("never-healthy", "is not healthy"),
        ("interrupt", "0 of 3 replicas are new; the old ones serve on"),
    ] {
        let stage = Stage::new(3, 64);
        stage.put(failure, "");
        if failure == "interrupt" {
            stage.put("never-healthy", "");
        }
        let output = stage.refused(&[], words);
        assert_eq!(stage.replicas(), [1, 2, 3], "{failure}");
        let log = stage.log();
        assert!(log.contains("create c4") && log.contains("stop c4") && !log.contains("stop c1"), "{failure}: {log}");
        assert_eq!(output.status.code() == Some(130), failure == "interrupt");
    }
}
