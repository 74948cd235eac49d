//! `cargo xtask serve`: the set-up, then the server.

use std::env;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::pins::Device;
use crate::process;
use crate::progress;
use crate::setup::{self, Ready};

const DEFAULT_ADDRESS: &str = "127.0.0.1:8000";

/// Sets up, says how to try the server, and becomes it. `arguments` go to `convoy serve`.
///
/// # Errors
/// When the set-up fails or the server cannot be started; it does not return otherwise.
pub(crate) fn serve(device: Device, arguments: &[String]) -> Result<()> {
    let Ready { onnxruntime, models, photo } = setup::setup(device)?;

    let mut server = Command::new(process::convoy());
    server.arg("serve");
    // What the user chose, on the command line, in the environment or in a configuration file, wins.
    let own_models = chosen(arguments, "--model-repository", "CONVOY_MODEL_REPOSITORY")
        || chosen(arguments, "--config", "CONVOY_CONFIG");
    if !own_models {
        server.arg("--model-repository").arg(models);
    }
    server.args(arguments);
    if !chosen(arguments, "--onnxruntime-library", "ORT_DYLIB_PATH") {
        server.env("ORT_DYLIB_PATH", onnxruntime);
    }

    let address = reachable(option(arguments, "--http-address").unwrap_or(DEFAULT_ADDRESS));
    let model = if own_models { "MODEL" } else { "efficientnet-lite0" };
    progress::say(&format!("once the server says that it is ready, open http://{address}/ in a browser, or try"));
    progress::say(&format!("    curl -F image=@{} http://{address}/v1/models/{model}/classify", from_here(&photo)));
    progress::say("Ctrl-C stops the server");
    process::become_process(&mut server)
}

/// Whether the user has set this themselves.
fn chosen(arguments: &[String], name: &str, variable: &str) -> bool {
    option(arguments, name).is_some() || env::var_os(variable).is_some()
}

/// The value of `--name value` or `--name=value`.
fn option<'a>(arguments: &'a [String], name: &str) -> Option<&'a str> {
    arguments.iter().enumerate().find_map(|(index, argument)| {
        if argument == name {
            return arguments.get(index + 1).map(String::as_str);
        }
        argument.strip_prefix(name)?.strip_prefix('=')
    })
}

/// An address to connect to, where the server listens on all interfaces.
fn reachable(listen: &str) -> String {
    for (all, loopback) in [("0.0.0.0:", "127.0.0.1:"), ("[::]:", "[::1]:")] {
        if let Some(port) = listen.strip_prefix(all) {
            return format!("{loopback}{port}");
        }
    }
    listen.to_string()
}

/// The path as short as it can be typed in the folder that the user is in.
fn from_here(path: &Path) -> String {
    let here = env::current_dir().unwrap_or_default();
    path.strip_prefix(here).unwrap_or(path).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_found_in_both_spellings() {
        let arguments = ["--log=debug", "--http-address", "0.0.0.0:9000", "--model-repository=/m"].map(String::from);
        assert_eq!(option(&arguments, "--http-address"), Some("0.0.0.0:9000"));
        assert_eq!(option(&arguments, "--model-repository"), Some("/m"));
        assert_eq!(option(&arguments, "--http"), None);
        assert_eq!(option(&["--http-address".to_string()], "--http-address"), None);
    }

    #[test]
    fn an_address_of_all_interfaces_is_not_one_to_connect_to() {
        assert_eq!(reachable("0.0.0.0:9000"), "127.0.0.1:9000");
        assert_eq!(reachable("[::]:9000"), "[::1]:9000");
        assert_eq!(reachable("10.0.0.0:80"), "10.0.0.0:80");
    }
}
