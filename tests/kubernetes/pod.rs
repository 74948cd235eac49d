//! A container of the manifests as a process: the real binary with the container's arguments and environment, its volumes in folders of the
//! test's, its ports on free ones of the loopback.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use futures_util::{StreamExt, stream};
use serde_json::Value;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::client::{Answer, send_to};
use crate::manifests::{list, number, text};

/// The server's listeners, as its options and its log call them.
const LISTENERS: [(&str, &str); 3] = [("http", "HTTP"), ("grpc", "gRPC"), ("metrics", "metrics")];

/// A process that ends with the test, however that ends.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // An error says that it has ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A running container.
pub(crate) struct Pod {
    process: Process,
    container: Value,
    /// The address of the port that the server would have in the container.
    addresses: BTreeMap<u64, SocketAddr>,
    _volumes: tempfile::TempDir,
}

impl Pod {
    /// Starts `container`. `files` are the volumes' files by their whole path in the container; the models are the test's.
    pub(crate) fn start(container: &Value, models: (&str, &Path), files: &[(String, String)]) -> Self {
        let volumes = tempfile::tempdir().unwrap();
        let mut places = vec![(models.0.to_owned(), models.1.to_owned())];
        for mount in list(&container["volumeMounts"]) {
            let place = text(&mount["mountPath"]);
            if place != models.0 {
                let real = volumes.path().join(place.trim_start_matches('/'));
                std::fs::create_dir_all(&real).unwrap();
                places.push((place.to_owned(), real));
            }
        }
        let moved = |said: &str| moved(said, &places);
        for (path, content) in files {
            std::fs::write(moved(path), moved(content)).unwrap();
        }
        // What the manifest itself says of addresses goes before this, and is taken to the loopback.
        let mut ports: BTreeMap<&str, u64> = LISTENERS.iter().map(|(name, _)| *name).zip([8000, 8001, 8002]).collect();
        let mut command = Command::new(env!("CARGO_BIN_EXE_convoy"));
        for argument in list(&container["args"]).iter().map(text) {
            let address = argument.strip_prefix("--").and_then(|option| option.split_once("-address=0.0.0.0:"));
            match address {
                Some((listener, port)) => {
                    *ports.get_mut(listener).unwrap() = port.parse().unwrap();
                    command.arg(format!("--{listener}-address=127.0.0.1:0"));
                }
                None => drop(command.arg(moved(argument))),
            }
        }
        for (listener, _) in LISTENERS {
            command.env(format!("CONVOY_{}_ADDRESS", listener.to_uppercase()), "127.0.0.1:0");
        }
        for variable in list(&container["env"]) {
            command.env(text(&variable["name"]), text(&variable["value"]));
        }
        command.env("TMPDIR", moved("/tmp")).env_remove("HOME");
        let mut process = Process(command.stderr(Stdio::piped()).spawn().unwrap());
        let mut log = BufReader::new(process.0.stderr.take().unwrap()).lines();
        let mut addresses = BTreeMap::new();
        let mut said = Vec::new();
        while addresses.len() < LISTENERS.len() {
            let Some(Ok(line)) = log.next() else { panic!("it has ended: {said:#?}") };
            // The manifests want the log as JSON.
            let event: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}, {said:#?}"));
            let message = text(&event["message"]);
            for (listener, name) in LISTENERS {
                if message == format!("{name} listens") || message == format!("{name} listen") {
                    addresses.insert(ports[listener], text(&event["address"]).parse().unwrap());
                }
            }
            said.push(line);
        }
        // A pipe that nobody empties would hold the server up.
        std::thread::spawn(move || log.for_each(drop));
        Self { process, container: container.clone(), addresses, _volumes: volumes }
    }

    /// Where the container's port is, by its number or the name that the container gives it.
    pub(crate) fn address(&self, port: &Value) -> SocketAddr {
        let number = port.as_u64().unwrap_or_else(|| {
            let named = list(&self.container["ports"]).iter().find(|other| other["name"] == *port);
            number(&named.unwrap_or_else(|| panic!("there is no port {port}"))["containerPort"])
        });
        *self.addresses.get(&number).unwrap_or_else(|| panic!("nothing listens on port {number}: {:?}", self.addresses))
    }

    /// What a port answers.
    pub(crate) async fn get(&self, port: impl Into<Value>, path: &str) -> Answer {
        send_to(self.address(&port.into()), "GET", path, &[], "").await
    }

    /// Whether a probe of the container succeeds, as the kubelet counts it.
    pub(crate) async fn probe(&self, name: &str) -> bool {
        let probe = &self.container[name];
        let (http, grpc) = (&probe["httpGet"], &probe["grpc"]);
        if http.is_object() {
            let answer = self.get(http["port"].clone(), text(&http["path"])).await;
            return (200..400).contains(&answer.status.as_u16());
        }
        assert!(grpc.is_object(), "{name}: {probe}");
        let status = self.health(&grpc["port"], text(&grpc["service"])).await;
        status == Some(ServingStatus::Serving)
    }

    async fn channel(&self, port: &Value) -> Channel {
        Endpoint::from_shared(format!("http://{}", self.address(port))).unwrap().connect().await.unwrap()
    }

    /// The names of the gRPC services, by reflection.
    pub(crate) async fn services(&self, port: &Value) -> Vec<String> {
        let mut client = ServerReflectionClient::new(self.channel(port).await);
        let message_request = Some(MessageRequest::ListServices(String::new()));
        let request = ServerReflectionRequest { message_request, ..Default::default() };
        let mut answers = client.server_reflection_info(stream::iter([request])).await.unwrap().into_inner();
        let answer = answers.next().await.unwrap().unwrap().message_response;
        let Some(MessageResponse::ListServicesResponse(services)) = answer else { panic!("{answer:?}") };
        services.service.into_iter().map(|service| service.name).collect()
    }

    /// What gRPC's health service says of a service or a model; `None` of one that it does not know.
    pub(crate) async fn health(&self, port: &Value, service: &str) -> Option<ServingStatus> {
        let mut client = HealthClient::new(self.channel(port).await);
        let answer = client.check(HealthCheckRequest { service: service.into() }).await;
        answer.ok().map(|answer| answer.into_inner().status())
    }

    /// Waits until a probe succeeds.
    pub(crate) async fn until(&self, probe: &str) {
        while !self.probe(probe).await {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    /// Ends the container as the kubelet does, and waits for it.
    pub(crate) fn terminate(mut self) -> ExitStatus {
        let pid = self.process.0.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        self.process.0.wait().unwrap()
    }
}

/// `said` with the paths in the container as those of the test: at the beginning, and behind a quotation mark or an equals sign.
fn moved(said: &str, places: &[(String, PathBuf)]) -> String {
    let pieces = said.split_inclusive(['"', '=']).map(|piece| {
        let place = places.iter().find_map(|(place, real)| Some((piece.strip_prefix(place.as_str())?, real)));
        place.map_or_else(|| piece.to_owned(), |(rest, real)| format!("{}{rest}", real.display()))
    });
    pieces.collect()
}
