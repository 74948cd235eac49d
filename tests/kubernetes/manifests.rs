//! The manifests as objects.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// The oldest Kubernetes that the manifests are for.
pub(crate) const OLDEST: &str = "1.30";
/// The newest one whose schemas are known.
pub(crate) const NEWEST: &str = "1.37";

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The folder of the manifests.
pub(crate) fn folder() -> PathBuf {
    root().join("docker/kubernetes")
}

/// The kubectl that was fetched, else the one on the `PATH`; `None` where neither can be run.
pub(crate) fn kubectl() -> Option<PathBuf> {
    let fetched = root().join("target/tools/kubectl/kubectl");
    let program = if fetched.exists() { fetched } else { "kubectl".into() };
    let output = Command::new(&program).args(["version", "--client"]).stderr(Stdio::null()).output();
    output.is_ok_and(|output| output.status.success()).then_some(program)
}

/// What the program prints, or what it complains of.
fn run(command: &mut Command, input: &str) -> Result<String, String> {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("{command:?}: {error}"))?;
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        // Beside the reading, since either end may wait for the other.
        scope.spawn(move || drop(stdin.write_all(input.as_bytes())));
        let output = child.wait_with_output().unwrap();
        if output.status.success() {
            Ok(String::from_utf8(output.stdout).unwrap())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    })
}

/// The YAML that kustomize makes of a folder under `docker/kubernetes`.
pub(crate) fn render(path: &str) -> String {
    let mut kubectl = Command::new(kubectl().unwrap());
    run(kubectl.arg("kustomize").arg(folder().join(path)), "").unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The YAML of the overlay for CPUs with a component.
pub(crate) fn render_with(component: &str) -> String {
    // kustomize reads nothing from absolute paths, and nothing outside but other kustomizations.
    let overlay = tempfile::Builder::new().prefix(".test-").tempdir_in(folder().join("overlays")).unwrap();
    let text = format!("namespace: convoy\nresources: [../cpu]\ncomponents: [../../components/{component}]\n");
    std::fs::write(overlay.path().join("kustomization.yaml"), text).unwrap();
    render(overlay.path().strip_prefix(folder()).unwrap().to_str().unwrap())
}

/// What the script that makes a `PrometheusRule` of the alerts prints.
pub(crate) fn alerts() -> String {
    run(Command::new("sh").arg(folder().join("prometheus-rule.sh")), "").unwrap()
}

fn python() -> Command {
    let python = root().join("target/venv/bin/python");
    assert!(python.exists(), "{} is missing: `cargo xtask test` makes it", python.display());
    Command::new(python)
}

/// The objects in `yaml`, when all are valid by the schemas of this version of Kubernetes; else every mistake.
pub(crate) fn validate(yaml: &str, version: &str) -> Result<Vec<Value>, String> {
    let schemas = root().join("target/tools/kubernetes-schemas");
    assert!(schemas.exists(), "{} is missing: `cargo xtask test` fetches it", schemas.display());
    let mut python = python();
    let said = run(python.arg(root().join("tests/kubernetes/validate.py")).arg(schemas).arg(version), yaml)?;
    Ok(serde_json::from_str(&said).unwrap())
}

/// A YAML file that is no Kubernetes object.
pub(crate) fn read_yaml(path: &str) -> Value {
    let code = "import json, sys, yaml; json.dump(yaml.safe_load(sys.stdin), sys.stdout)";
    let text = std::fs::read_to_string(folder().join(path)).unwrap();
    serde_json::from_str(&run(python().args(["-c", code]), &text).unwrap()).unwrap()
}

/// The objects of one rendering.
#[derive(Debug)]
pub(crate) struct Objects(Vec<Value>);

impl Objects {
    pub(crate) fn of(yaml: &str) -> Self {
        Self(validate(yaml, NEWEST).unwrap())
    }

    pub(crate) fn all(&self) -> &[Value] {
        &self.0
    }

    /// The objects of this kind.
    pub(crate) fn kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.0.iter().filter(move |object| object["kind"] == kind)
    }

    /// The object of this kind and name.
    pub(crate) fn get(&self, kind: &str, name: &str) -> &Value {
        let mut objects = self.0.iter();
        let found = objects.find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
        found.unwrap_or_else(|| panic!("there is no {kind} {name}"))
    }

    /// The deployed pod.
    pub(crate) fn pod(&self) -> &Value {
        &self.get("Deployment", "convoy")["spec"]["template"]
    }

    /// The deployed container.
    pub(crate) fn container(&self) -> &Value {
        &self.pod()["spec"]["containers"][0]
    }

    /// The text of a file in a `ConfigMap` that the pod mounts as the volume called `volume`.
    pub(crate) fn file(&self, volume: &str, file: &str) -> &str {
        let volume = list(&self.pod()["spec"]["volumes"]).iter().find(|other| other["name"] == volume).unwrap();
        self.get("ConfigMap", text(&volume["configMap"]["name"]))["data"][file].as_str().unwrap()
    }
}

/// The elements of a list; none where there is no list.
pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A string that must be there.
pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no string"))
}

/// A number that must be there.
pub(crate) fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}
