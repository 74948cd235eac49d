//! Imports between the modules of `src/` point down only.
//!
//! The scan knows Rust's comments, literals, `use` trees and inline modules, but no macros and no name resolution: what it
//! sees is every path that is written out. Re-exports that hide a module behind another would fool it, so there are none.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use scan::Import;

#[path = "imports/scan.rs"]
mod scan;

/// The modules from the top to the bottom. A module may import those of lower layers, and none of its own layer.
const LAYERS: &[&[&str]] = &[
    &["cli"],
    &["server"],
    &["config"],
    &["http", "grpc"],
    &["inference", "explain"],
    &["repository"],
    &["scheduler", "preprocess", "postprocess", "response_cache", "store", "zoo"],
    &["engine"],
    &["onnx", "triton"],
    &["telemetry", "net", "auth"],
    &["cache_folder", "reload", "sha256", "toml_file"],
    &["serde_words", "tensor"],
    &["error"],
];

/// Imports that point down and are forbidden all the same: these compute on tensors and never run a model.
const FORBIDDEN: &[(&str, &str)] = &[("preprocess", "engine"), ("postprocess", "engine"), ("zoo", "engine")];

/// Crates that belong to the modules named and to no other.
const OWNED_CRATES: &[(&str, &[&str])] = &[
    ("ort", &["engine"]),
    ("axum", &["http", "server"]),
    ("tonic", &["grpc"]),
    ("mozjpeg", &["preprocess"]),
    ("rustls", &["net"]),
    ("notify", &["repository"]),
    ("opentelemetry", &["telemetry"]),
    ("opentelemetry_http", &["telemetry"]),
    ("opentelemetry_sdk", &["telemetry"]),
    ("opentelemetry_otlp", &["telemetry"]),
    ("object_store", &["store"]),
    ("tar", &["store"]),
];

/// Crates that the module must not know.
const FORBIDDEN_CRATES: &[(&str, &str)] = &[
    ("preprocess", "tokio"),
    ("postprocess", "tokio"),
    ("zoo", "tokio"),
    ("scheduler", "image"),
    ("engine", "image"),
    ("tensor", "image"),
];

/// What is wrong with `module` importing `import`, if anything.
fn violation(module: &str, import: &Import) -> Option<String> {
    match import {
        Import::Module(other) => {
            let layer = |name: &str| LAYERS.iter().position(|layer| layer.contains(&name));
            let (Some(from), Some(to)) = (layer(module), layer(other)) else {
                return Some(format!("{module} -> {other}: a module that LAYERS does not place"));
            };
            if from >= to && module != other {
                return Some(format!("{module} -> {other} does not point down"));
            }
            FORBIDDEN.contains(&(module, other)).then(|| format!("{module} -> {other}: {module} never runs a model"))
        }
        Import::Crate(name) => {
            let owners = OWNED_CRATES.iter().find(|(owned, _)| owned == name).map(|(_, owners)| *owners);
            if let Some(owners) = owners.filter(|owners| !owners.contains(&module)) {
                return Some(format!("{module} uses the crate {name}, which belongs to {}", owners.join(" and ")));
            }
            FORBIDDEN_CRATES
                .contains(&(module, name))
                .then(|| format!("{module} uses the crate {name}, which it must not know"))
        }
    }
}

/// Every Rust file below `folder`.
fn rust_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(files)
}

/// The module of a file, relative to `src/`: `http/v2.rs` is `http`, `v2`.
fn module_of(relative: &Path) -> Vec<String> {
    let path = relative.with_extension("");
    let mut module: Vec<String> = path.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if module.last().is_some_and(|last| last == "mod") {
        module.pop();
    }
    module
}

#[test]
fn imports_point_down_only() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut violations = BTreeSet::new();
    let mut edges = BTreeSet::new();
    for file in rust_files(&source).unwrap() {
        let relative = file.strip_prefix(&source).unwrap();
        let module = module_of(relative);
        // The crate's two roots only declare modules and call `cli`.
        if module == ["lib"] || module == ["main"] {
            continue;
        }
        for import in scan::imports(&fs::read_to_string(&file).unwrap(), &module) {
            if let Some(violation) = violation(&module[0], &import) {
                violations.insert(format!("src/{}: {violation}", relative.display()));
            }
            edges.insert((module[0].clone(), import));
        }
    }
    assert!(
        edges.contains(&("tensor".to_string(), Import::Module("error".to_string()))),
        "the scan missed an import that is known to be there"
    );
    assert!(violations.is_empty(), "{}", violations.into_iter().collect::<Vec<_>>().join("\n"));
}

#[test]
fn every_module_has_its_place() {
    let root = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let modules: Vec<&str> = root.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    assert!(modules.contains(&"tensor"), "no modules found in src/lib.rs");
    for module in modules {
        assert!(LAYERS.concat().contains(&module), "LAYERS does not place {module}");
    }
}

#[test]
fn the_rules_refuse_what_they_should() {
    let module = |name: &str| Import::Module(name.to_string());
    let external = |name: &str| Import::Crate(name.to_string());
    for (importer, import) in [
        ("engine", module("scheduler")),
        ("http", module("grpc")),
        ("grpc", module("http")),
        ("scheduler", module("preprocess")),
        ("preprocess", module("engine")),
        ("inference", module("config")),
        ("error", module("tensor")),
        ("http", module("unheard_of")),
        ("inference", external("ort")),
        ("grpc", external("axum")),
        ("server", external("tonic")),
        ("preprocess", external("tokio")),
        ("scheduler", external("image")),
    ] {
        assert!(violation(importer, &import).is_some(), "{importer} -> {import:?}");
    }
    for (importer, import) in [
        ("http", module("http")),
        ("http", module("inference")),
        ("repository", module("preprocess")),
        ("zoo", module("onnx")),
        ("config", module("http")),
        ("error", external("std")),
        ("engine", external("ort")),
        ("server", external("axum")),
        ("scheduler", external("tokio")),
    ] {
        assert_eq!(violation(importer, &import), None, "{importer} -> {import:?}");
    }
}
