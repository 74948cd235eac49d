//! That nobody is told of what runs here.

use std::process::Command;

use crate::server::png;

/// Official builds of ONNX Runtime keep an identifier of the device in the home folder and report to their makers, unless they are kept
/// from it before they are loaded.
#[test]
fn onnx_runtime_keeps_and_reports_nothing() {
    let repository = crate::repository();
    let home = tempfile::tempdir().unwrap();
    let picture = repository.path().join("picture.png");
    std::fs::write(&picture, png([0; 3])).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_convoy"));
    // Nothing of this environment: ONNX Runtime reports nothing where it sees that it is tested, either.
    command.env_clear().env("HOME", home.path());
    for name in ["PATH", "ORT_DYLIB_PATH", "LD_LIBRARY_PATH"] {
        command.envs(std::env::var_os(name).map(|value| (name, value)));
    }
    command.args(["classify", "--model-repository"]).arg(repository.path()).arg(&picture);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let kept: Vec<_> = std::fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(kept.is_empty(), "{kept:?}");
}
