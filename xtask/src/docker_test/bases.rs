//! The images that ours are built on and stand beside: pulled where there is a registry, else made from Debian's packages and
//! this machine's Rust.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::daemon::{Daemon, output};
use crate::process;
use crate::progress;

/// Debian's release that the server is built on and for.
const RELEASE: &str = "bookworm";
/// The one whose HAProxy and Prometheus are of the versions that the compose file names.
const OPERATORS_RELEASE: &str = "forky";
/// Beside what every Debian has: what `rust:…-bookworm` has, and what the Dockerfile adds, so that this is fetched once.
const BUILD_PACKAGES: &str = "ca-certificates,gcc,g++,libc6-dev,make,nasm,python3-minimal,python3-pip";
/// What distroless' `cc` is made of.
const RUNTIME_PACKAGES: [&str; 8] =
    ["base-files", "ca-certificates", "libc6", "libgcc-s1", "libssl3", "libstdc++6", "netbase", "tzdata"];

/// Names of images.
#[derive(Debug)]
pub(super) struct Bases {
    pub(super) build: String,
    pub(super) runtime: String,
    pub(super) haproxy: String,
    pub(super) prometheus: String,
}

impl Bases {
    /// Those that the Dockerfile and the compose file name, or stand-ins for those that cannot be pulled.
    ///
    /// # Errors
    /// When one can neither be pulled nor made.
    pub(super) fn ensure(daemon: &Daemon) -> Result<Self> {
        let compose = fs::read_to_string(process::root().join("docker/compose.yaml"))?;
        let named = |variable: &str| {
            let (_, rest) =
                compose.split_once(&format!("${{{variable}:-")).with_context(|| format!("no {variable}"))?;
            rest.split('}').next().map(str::to_owned).with_context(|| format!("{variable} has no end"))
        };
        let pulled_or = |variable: &str, make: &dyn Fn(&str) -> Result<()>| {
            let name = named(variable)?;
            if daemon.has_image(&name) || pull(daemon, &name) {
                return Ok(name);
            }
            let stand_in = format!("convoy-test/{}", variable.to_lowercase().replace("convoy_", "").replace('_', "-"));
            if !daemon.has_image(&stand_in) {
                progress::step(&format!("{name} cannot be pulled: making {stand_in}"), || make(&stand_in))?;
            }
            anyhow::Ok(stand_in)
        };
        Ok(Self {
            build: pulled_or("CONVOY_BUILD_IMAGE", &|name| make_build(daemon, name))?,
            runtime: pulled_or("CONVOY_RUNTIME_IMAGE", &|name| make_runtime(daemon, name))?,
            haproxy: pulled_or("HAPROXY_IMAGE", &|name| {
                make_operator(
                    daemon,
                    name,
                    "haproxy",
                    &[r#"CMD ["haproxy","-W","-db","-f","/usr/local/etc/haproxy/haproxy.cfg"]"#],
                )
            })?,
            prometheus: pulled_or("PROMETHEUS_IMAGE", &|name| {
                make_operator(daemon, name, "prometheus", &[r#"ENTRYPOINT ["prometheus"]"#, "WORKDIR /prometheus"])
            })?,
        })
    }
}

/// Whether the image could be pulled. Nobody waits long for a registry that is not there.
fn pull(daemon: &Daemon, name: &str) -> bool {
    let docker = daemon.docker();
    let mut pull = Command::new("timeout");
    pull.arg("120").arg(docker.get_program()).args(["pull", "--quiet", name]);
    for (variable, value) in docker.get_envs() {
        pull.env(variable, value.unwrap_or_default());
    }
    pull.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// Debian by debootstrap, with this machine's Rust and its certificate authorities, which know the mirrors that it uses.
fn make_build(daemon: &Daemon, name: &str) -> Result<()> {
    let root = Scratch::new("build")?;
    let mut debootstrap = Command::new("debootstrap");
    debootstrap
        .args(["--variant=minbase", &format!("--include={BUILD_PACKAGES}"), RELEASE])
        .arg(&root.0)
        .arg(mirror()?);
    output(&mut debootstrap)?;
    let sysroot = PathBuf::from(output(Command::new("rustc").args(["--print", "sysroot"]))?);
    let rust = root.0.join("usr/local/rust");
    fs::create_dir_all(&rust)?;
    for folder in ["bin", "lib"] {
        process::run(Command::new("cp").arg("-a").arg(sysroot.join(folder)).arg(&rust))?;
    }
    for program in fs::read_dir(rust.join("bin"))? {
        let name = program?.file_name();
        let link = root.0.join("usr/local/bin").join(&name);
        std::os::unix::fs::symlink(Path::new("../rust/bin").join(&name), link)?;
    }
    let authorities = "etc/ssl/certs/ca-certificates.crt";
    if let Ok(own) = fs::read(Path::new("/").join(authorities)) {
        fs::write(root.0.join(authorities), own)?;
    }
    let trust = format!("ENV PIP_CERT=/{authorities} SSL_CERT_FILE=/{authorities}");
    import(daemon, &root.0, &[&trust], name)
}

/// Packages unpacked and nothing else, as distroless images are: no shell, no package manager.
fn make_runtime(daemon: &Daemon, name: &str) -> Result<()> {
    let root = Scratch::new("runtime")?;
    unpack(RELEASE, &RUNTIME_PACKAGES, &root.0)?;
    import(daemon, &root.0, &[], name)
}

/// A Debian with one program of the operator's.
fn make_operator(daemon: &Daemon, name: &str, package: &str, changes: &[&str]) -> Result<()> {
    let root = Scratch::new(package)?;
    unpack(OPERATORS_RELEASE, &["base-files", package], &root.0)?;
    import(daemon, &root.0, changes, name)
}

/// The mirror of Debian that this machine's own packages come from.
fn mirror() -> Result<String> {
    let mut apt = Command::new("apt-get");
    let targets = output(apt.args(["indextargets", "--format", "$(REPO_URI)", "Label: Debian"]))?;
    let mirror = targets
        .lines()
        .next()
        .context("apt knows no mirror of Debian: is this Debian, and was `apt-get update` run?")?;
    Ok(mirror.to_owned())
}

/// Has apt find out what `packages` need in an empty system of this release, fetch it, and unpacks it into `root`.
fn unpack(release: &str, packages: &[&str], root: &Path) -> Result<()> {
    let apt = Scratch::new("apt")?;
    for folder in ["lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(apt.0.join(folder))?;
    }
    fs::write(apt.0.join("status"), "")?;
    let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
    fs::write(apt.0.join("sources.list"), format!("deb [signed-by={keyring}] {} {release} main\n", mirror()?))?;
    let folder = apt.0.display();
    let options = [
        format!("Dir::Etc::sourcelist={folder}/sources.list"),
        "Dir::Etc::sourceparts=/dev/null".to_owned(),
        format!("Dir::State::lists={folder}/lists"),
        format!("Dir::State::status={folder}/status"),
        format!("Dir::Cache={folder}/cache"),
        "APT::Sandbox::User=root".to_owned(),
        "Acquire::Languages=none".to_owned(),
        "Debug::NoLocking=1".to_owned(),
    ];
    let apt_get = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        for option in &options {
            command.args(["-o", option]);
        }
        output(command.arg("-qq").args(arguments))
    };
    apt_get(&["update"])?;
    apt_get(&[&["install", "--yes", "--download-only", "--no-install-recommends"], packages].concat())?;
    let mut archives = Vec::new();
    for file in fs::read_dir(apt.0.join("cache/archives"))? {
        let path = file?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            archives.push(path);
        }
    }
    // base-files has the links that the others' files go through.
    archives
        .sort_by_key(|path| !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("base-files_")));
    for archive in &archives {
        output(Command::new("dpkg-deb").arg("--extract").arg(archive).arg(root))?;
    }
    for folder in ["usr/share/doc", "usr/share/man", "usr/share/locale"] {
        // It is not there where no package has any.
        let _ = fs::remove_dir_all(root.join(folder));
    }
    fs::create_dir_all(root.join("etc"))?;
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/sbin/nologin\nnobody:x:65534:65534::/:/sbin/nologin\n")?;
    Ok(())
}

/// Makes an image of the folder, with these changes (`docker import --change`).
fn import(daemon: &Daemon, root: &Path, changes: &[&str], name: &str) -> Result<()> {
    let mut tar = Command::new("tar").arg("-C").arg(root).args(["-c", "."]).stdout(Stdio::piped()).spawn()?;
    let archive = tar.stdout.take().context("tar has no output")?;
    let mut import = daemon.docker();
    import.arg("import");
    for change in changes {
        import.args(["--change", change]);
    }
    output(import.args(["-", name]).stdin(archive))?;
    if !tar.wait()?.success() {
        bail!("tar could not pack {}", root.display());
    }
    Ok(())
}

/// A folder that is removed when it is dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Result<Self> {
        let folder = process::target().join("docker-test").join(format!("{name}-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        Ok(Self(folder))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
