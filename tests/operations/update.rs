//! docker/rolling-update.sh against stand-ins for Docker, Compose and HAProxy's page: what it does when something is in its way.
//! That it loses no request is what `cargo xtask docker-test` tries.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docker/rolling-update.sh");
/// What a replica was given.
const SETTINGS: &str =
    "CONVOY_AUTH_KEYS_FILE=/etc/convoy/keys.toml\nCONVOY_LOG_LEVEL=info\n/etc/convoy=bind /srv/convoy false\n";
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
            scene.put(&format!("containers/c{replica}"), SETTINGS);
            scene.put(&format!("slots/c{replica}"), "UP");
        }
        scene.put("next", &replicas.to_string());
        scene.put("log", "");
        scene.put("settings", SETTINGS);
        scene
    }

    fn path(&self) -> &Path {
        self.state.path()
    }

    fn put(&self, file: &str, text: &str) {
        fs::write(self.path().join(file), text).unwrap();
    }

    fn run(&self, environment: &[(&str, &str)]) -> Output {
        self.run_with(&[], environment)
    }

    fn run_with(&self, options: &[&str], environment: &[(&str, &str)]) -> Output {
        self.command(options, environment).output().unwrap()
    }

    fn command(&self, options: &[&str], environment: &[(&str, &str)]) -> Command {
        let path = format!("{}:{}", self.path().join("bin").display(), std::env::var("PATH").unwrap());
        let mut script = Command::new(SCRIPT);
        script
            .args(options)
            .env("TMPDIR", self.path())
            .env("PATH", path)
            .env("STATE", self.path())
            .env("PLACES", self.places.to_string());
        script.env("COMPOSE", "compose").env("PATIENCE_S", "10").envs(environment.iter().copied());
        script
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
    let wrong = Stage::new(3, 64);
    for (variable, value) in [("BATCH", "0"), ("BATCH", "x"), ("PATIENCE_S", "2m"), ("REPLICAS", "-1")] {
        wrong.refused(&[(variable, value)], &format!("{variable} is {value}"));
    }
    wrong.refused(&[("ACCEPT_CHANGES", "0")], "ACCEPT_CHANGES is 0");
    let busy = Stage::new(3, 64);
    let locks = busy.path().join(format!("convoy-rolling-update-{}", fs::metadata(busy.path()).unwrap().uid()));
    fs::create_dir(&locks).unwrap();
    let other = fs::File::create(locks.join("DAEMON-1-convoy")).unwrap();
    other.lock().unwrap();
    busy.refused(&[], "another rolling update");
    let nowhere = Stage::new(3, 64);
    nowhere.put("unknown-image", "");
    nowhere.put("nowhere", "");
    nowhere.refused(&[], "the image convoy:next is neither here nor can it be pulled");
    for stage in [none, full, blind, halved, wrong, busy, nowhere] {
        assert_eq!(stage.log(), "");
    }
}

/// What the old ones were given on a command line is not lost in silence.
pub(crate) fn refuses_replicas_of_other_settings() {
    let stage = Stage::new(3, 64);
    stage.put(
        "settings",
        "CONVOY_LOG_LEVEL=debug\nCONVOY_TRACING_ENDPOINT=secret\n/etc/convoy=bind /srv/convoy false\n",
    );
    let output = stage.refused(&[], "would not be as the old ones are");
    let said = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<_> = said.lines().filter(|line| line.starts_with("  ")).collect();
    let expected = [
        "  they would have CONVOY_TRACING_ENDPOINT",
        "  they would have another CONVOY_LOG_LEVEL",
        "  they would lack CONVOY_AUTH_KEYS_FILE",
    ];
    assert_eq!(lines, expected, "{said}");
    assert!(!said.contains("secret"), "{said}");
    assert_eq!(stage.replicas(), [1, 2, 3]);
    assert!(!stage.log().contains("start"), "one of them served: {}", stage.log());

    // A command may bring keys, too.
    let by_command = Stage::new(3, 64);
    for replica in 1..=3 {
        by_command
            .put(&format!("containers/c{replica}"), &format!("{SETTINGS}command=[\"serve\",\"--auth-keys-file\"]\n"));
    }
    by_command.refused(&[], "  they would lack command");

    let accepted = stage.run(&[("ACCEPT_CHANGES", "1")]);
    assert!(accepted.status.success(), "{}", String::from_utf8_lossy(&accepted.stderr));
    assert_eq!(stage.replicas().len(), 3);
}

/// Ctrl-C while old ones are stopped leaves no half of a batch, and what is left where one cannot be stopped is mended by another run.
pub(crate) fn ends_a_batch_that_is_interrupted() {
    let stage = Stage::new(4, 64);
    stage.put("interrupt-stop", "");
    let output = stage.refused(&[("BATCH", "2")], "2 of 4 replicas are new");
    assert_eq!(output.status.code(), Some(143));
    assert_eq!(stage.replicas(), [3, 4, 5, 6]);

    let stuck = Stage::new(3, 64);
    stuck.put("cannot-stop-c2", "");
    stuck.refused(&[], "REPLICAS=3");
    assert_eq!(stuck.replicas(), [2, 3, 4, 5, 6]);
    fs::remove_file(stuck.path().join("cannot-stop-c2")).unwrap();
    let again = stuck.run(&[("REPLICAS", "3")]);
    assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
    assert_eq!(stuck.replicas(), [7, 8, 9]);
}

/// Nobody may be left who hears of it: the script's output is a pipe that nobody reads.
pub(crate) fn cleans_up_where_nobody_listens() {
    let unheard = |stage: &Stage| {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        stage.command(&[], &[]).stdout(writer.try_clone().unwrap()).stderr(writer).status().unwrap()
    };
    let stage = Stage::new(3, 64);
    stage.put("never-healthy", "");
    stage.put("interrupt", "");
    assert_eq!(unheard(&stage).code(), Some(143));
    assert_eq!(stage.replicas(), [1, 2, 3]);

    let stage = Stage::new(3, 64);
    stage.put("unknown-image", "");
    let status = unheard(&stage);
    assert!(status.success(), "{status}");
    assert_eq!(stage.replicas(), [4, 5, 6]);
    assert!(stage.log().contains("pull convoy:next"), "{}", stage.log());
}

/// What the replicas were started with is what Compose is given again.
pub(crate) fn passes_options_on_to_compose() {
    for (options, passed) in [
        (&["--file", "a.yaml", "--file", "gpu.yaml"][..], "--file a.yaml --file gpu.yaml "),
        (&[], "--file DOCKER/compose.yaml "),
    ] {
        let stage = Stage::new(1, 64);
        let output = stage.run_with(options, &[]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let given = fs::read_to_string(stage.path().join("options")).unwrap();
        assert_eq!(
            given.trim_end_matches('\n'),
            passed.replace("DOCKER", SCRIPT.trim_end_matches("/rolling-update.sh"))
        );
    }
}

/// Where the new ones do not come about, they go again, and no old one has been touched.
pub(crate) fn removes_the_new_ones_when_they_fail() {
    for (failure, words) in [
        ("up-fails", "no memory for another"),
        ("never-healthy", "is not healthy"),
        ("never-healthy", "the model m is missing\nits log ends:\nloading failed"),
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
        assert_eq!(output.status.code() == Some(143), failure == "interrupt");
    }
}
