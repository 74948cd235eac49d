//! What no schema says: that the objects fit each other, and the server.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::OnceLock;
use std::time::Duration;

use convoy::config::{ServerConfig, ShutdownConfig};
use convoy::engine::Provider;
use convoy::repository::Machine;
use convoy::repository::config::ModelConfig;
use serde_json::Value;

use crate::manifests::{Objects, list, number, render, render_with, root, text};

/// Every rendering with a Deployment in it, made once for all tests.
fn deployments() -> &'static [(String, Objects)] {
    static DEPLOYMENTS: OnceLock<Vec<(String, Objects)>> = OnceLock::new();
    DEPLOYMENTS.get_or_init(render_deployments)
}

fn render_deployments() -> Vec<(String, Objects)> {
    let overlays = ["overlays/cpu", "overlays/gpu", "overlays/production"];
    let components = ["ingress", "models-image", "models-init", "models-s3"];
    let overlays = overlays.into_iter().map(|path| (path.to_owned(), render(path)));
    let components = components.into_iter().map(|name| (name.to_owned(), render_with(name)));
    overlays.chain(components).map(|(name, yaml)| (name, Objects::of(&yaml))).collect()
}

/// The server's configuration as it is deployed.
fn configuration(objects: &Objects) -> ServerConfig {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("convoy.toml");
    std::fs::write(&path, objects.file("config", "convoy.toml")).unwrap();
    let config = ServerConfig::read(&path).unwrap();
    config.validate().unwrap();
    config
}

/// Whether an object with `labels` is what `selector` looks for. A selector is a map of labels, or one with expressions.
fn selects(selector: &Value, labels: &Value) -> bool {
    let is_plain = selector.get("matchLabels").or(selector.get("matchExpressions")).is_none();
    let wanted = if is_plain { selector } else { &selector["matchLabels"] };
    let wanted = wanted.as_object().into_iter().flatten().all(|(label, value)| labels[label] == *value);
    let expressions = list(&selector["matchExpressions"]).iter().all(|expression| {
        assert_eq!(expression["operator"], "NotIn");
        !list(&expression["values"]).contains(&labels[text(&expression["key"])])
    });
    wanted && expressions
}

pub(crate) fn what_is_named_is_there() {
    for (name, objects) in deployments() {
        let pod = &objects.pod()["spec"];
        let volumes: BTreeMap<_, _> =
            list(&pod["volumes"]).iter().map(|volume| (text(&volume["name"]), volume)).collect();
        let containers = list(&pod["containers"]).iter().chain(list(&pod["initContainers"]));
        for mount in containers.flat_map(|container| list(&container["volumeMounts"])) {
            let volume = volumes.get(text(&mount["name"])).unwrap_or_else(|| panic!("{name}: {mount}"));
            if let Some(file) = mount["subPath"].as_str() {
                objects.file(text(&volume["name"]), file);
            }
        }
        // A mount after those that it lies in, or it would be hidden.
        let places: Vec<_> =
            list(&objects.container()["volumeMounts"]).iter().map(|mount| &mount["mountPath"]).map(text).collect();
        for (at, place) in places.iter().enumerate() {
            assert!(
                !places[at + 1..].iter().any(|later| place.starts_with(&format!("{later}/"))),
                "{name}: {places:?}"
            );
        }
        for volume in volumes.values() {
            if let Some(claim) = volume["persistentVolumeClaim"]["claimName"].as_str() {
                objects.get("PersistentVolumeClaim", claim);
            }
            if let Some(map) = volume["configMap"]["name"].as_str() {
                objects.get("ConfigMap", map);
            }
        }
        assert_eq!(
            volumes.values().any(|volume| volume["persistentVolumeClaim"].is_object()),
            objects.kind("PersistentVolumeClaim").count() == 1,
            "{name}: a claim that nobody mounts"
        );
        for scaler in objects.kind("HorizontalPodAutoscaler") {
            let target = &scaler["spec"]["scaleTargetRef"];
            let deployment = objects.get(text(&target["kind"]), text(&target["name"]));
            assert_eq!(deployment["apiVersion"], target["apiVersion"]);
            assert!(deployment["spec"]["replicas"].is_null(), "the count would be set back at each apply");
        }
        let namespaces: Vec<_> = objects.all().iter().filter(|object| object["kind"] != "Namespace").collect();
        assert!(namespaces.iter().all(|object| object["metadata"]["namespace"] == "convoy"), "{name}");
        // The options that are set in the environment are the server's.
        for variable in list(&objects.container()["env"]).iter().map(|variable| text(&variable["name"])) {
            let help =
                std::process::Command::new(env!("CARGO_BIN_EXE_convoy")).args(["serve", "--help"]).output().unwrap();
            let help = String::from_utf8(help.stdout).unwrap();
            assert!(!variable.starts_with("CONVOY_") || help.contains(&format!("[env: {variable}=]")), "{variable}");
        }
    }
}

pub(crate) fn selectors_find_the_pods() {
    for (name, objects) in deployments() {
        let deployment = &objects.get("Deployment", "convoy")["spec"];
        let labels = &objects.pod()["metadata"]["labels"];
        let spread = list(&objects.pod()["spec"]["topologySpreadConstraints"]);
        assert_eq!(spread.len(), 2, "{name}");
        let selectors = [&deployment["selector"]]
            .into_iter()
            .chain(spread.iter().map(|constraint| &constraint["labelSelector"]))
            .chain(objects.kind("Service").map(|service| &service["spec"]["selector"]))
            .chain(objects.kind("PodDisruptionBudget").map(|budget| &budget["spec"]["selector"]))
            .chain(objects.kind("NetworkPolicy").map(|policy| &policy["spec"]["podSelector"]));
        for selector in selectors {
            let is_empty = selector.as_object().unwrap().is_empty();
            assert!(!is_empty && selects(selector, labels), "{name}: {selector} for {labels}");
        }

        // Every port that is named has that name in the container, and is the one on which the server listens.
        let config = configuration(objects);
        let ports = list(&objects.container()["ports"]);
        let ports: BTreeMap<_, _> =
            ports.iter().map(|port| (text(&port["name"]), number(&port["containerPort"]))).collect();
        for (port, address) in
            [("http", config.http.address), ("grpc", config.grpc.address), ("metrics", config.metrics.address)]
        {
            assert_eq!(ports[port], u64::from(address.port()), "{name}");
        }
        for service in objects.kind("Service").flat_map(|service| list(&service["spec"]["ports"])) {
            assert_eq!(service["name"], service["targetPort"]);
            assert_eq!(ports[text(&service["targetPort"])], number(&service["port"]));
        }
        for rule in objects.kind("NetworkPolicy").flat_map(|policy| list(&policy["spec"]["ingress"])) {
            assert!(list(&rule["ports"]).iter().all(|port| ports.contains_key(text(&port["port"]))), "{name}: {rule}");
        }
        for monitor in objects.kind("ServiceMonitor") {
            let mut services = objects.kind("Service");
            let found = services
                .by_ref()
                .filter(|service| selects(&monitor["spec"]["selector"], &service["metadata"]["labels"]));
            let [service] = found.collect::<Vec<_>>()[..] else { panic!("a pod would be scraped more than once") };
            for endpoint in list(&monitor["spec"]["endpoints"]) {
                let ports = list(&service["spec"]["ports"]);
                assert!(ports.iter().any(|port| port["name"] == endpoint["port"]), "{endpoint}");
            }
        }
    }
}

pub(crate) fn routes_lead_to_the_services() {
    let production = Objects::of(&render("overlays/production"));
    let port_of = |objects: &Objects, backend: &Value, port: &str| {
        let service = objects.get("Service", text(&backend["name"]));
        let port = list(&service["spec"]["ports"]).iter().find(|other| other["name"] == port).unwrap().clone();
        (port["port"].clone(), port["appProtocol"].clone())
    };
    for (kind, port, protocol) in [("HTTPRoute", "http", "http"), ("GRPCRoute", "grpc", "kubernetes.io/h2c")] {
        let route = &production.get(kind, "convoy")["spec"];
        for parent in list(&route["parentRefs"]) {
            let gateway = production.get("Gateway", text(&parent["name"]));
            let listeners = list(&gateway["spec"]["listeners"]);
            let listener = listeners.iter().find(|listener| listener["name"] == parent["sectionName"]).unwrap();
            assert_eq!(list(&route["hostnames"]), std::slice::from_ref(&listener["hostname"]));
        }
        for backend in list(&route["rules"]).iter().flat_map(|rule| list(&rule["backendRefs"])) {
            let (number, spoken) = port_of(&production, backend, port);
            assert_eq!((&backend["port"], &spoken), (&number, &Value::from(protocol)));
        }
    }
    let hosts: Vec<_> = list(&production.get("Gateway", "convoy")["spec"]["listeners"])
        .iter()
        .map(|listener| &listener["hostname"])
        .collect();
    assert_ne!(hosts[0], hosts[1], "two kinds of routes cannot share a host name");

    let ingress = Objects::of(&render_with("ingress"));
    for (name, port) in [("convoy-http", "http"), ("convoy-grpc", "grpc")] {
        let ingress = (&ingress, &ingress.get("Ingress", name)["spec"]);
        for path in list(&ingress.1["rules"]).iter().flat_map(|rule| list(&rule["http"]["paths"])) {
            let backend = &path["backend"]["service"];
            assert_eq!(backend["port"]["name"], port);
            port_of(ingress.0, backend, port);
        }
    }
}

/// Whether one of the policies lets something out to this address and port.
fn lets_out(objects: &Objects, address: IpAddr, port: u64) -> bool {
    let policies = objects.kind("NetworkPolicy");
    let mut rules = policies.flat_map(|policy| list(&policy["spec"]["egress"]));
    rules.any(|rule| {
        let has_port = list(&rule["ports"]).iter().any(|open| open["port"] == port);
        let mut blocks = list(&rule["to"]).iter().map(|peer| &peer["ipBlock"]).filter(|block| block.is_object());
        has_port
            && blocks.any(|block| {
                let except = block["except"].as_array().into_iter().flatten();
                contains(text(&block["cidr"]), address) && !except.into_iter().any(|cidr| contains(text(cidr), address))
            })
    })
}

fn contains(cidr: &str, address: IpAddr) -> bool {
    let (network, length) = cidr.split_once('/').unwrap();
    let length: u32 = length.parse().unwrap();
    match (network.parse().unwrap(), address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            (u32::from(network) ^ u32::from(address)).checked_shr(32 - length).unwrap_or(0) == 0
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => {
            (u128::from(network) ^ u128::from(address)).checked_shr(128 - length).unwrap_or(0) == 0
        }
        _ => false,
    }
}

pub(crate) fn a_bucket_is_reached_and_no_machines_credentials() {
    let objects = Objects::of(&render_with("models-s3"));
    for (address, port, is_let_out) in [
        ("52.218.0.1", 443, true),
        ("52.218.0.1", 80, false),
        // EKS Pod Identity.
        ("169.254.170.23", 80, true),
        ("169.254.170.23", 443, false),
        ("fd00:ec2::23", 80, true),
        ("fd00:ec2::254", 80, false),
        // The node's own role.
        ("169.254.169.254", 80, false),
        ("169.254.169.254", 443, false),
        ("10.0.0.1", 443, false),
        ("2600:1f18::1", 443, true),
        ("2600:1f18::1", 80, false),
        ("fd00:ec2::254", 443, false),
        ("fe80::1", 443, false),
    ] {
        assert_eq!(lets_out(&objects, address.parse().unwrap(), port), is_let_out, "{address}:{port}");
    }
    let policies = objects.kind("NetworkPolicy");
    let storage = policies.flat_map(|policy| list(&policy["spec"]["egress"])).find(|rule| {
        list(&rule["to"]).iter().any(|peer| peer["namespaceSelector"]["matchLabels"]["convoy/storage"] == "allowed")
    });
    assert_eq!(storage.unwrap()["ports"][0]["port"], 9000);
}

pub(crate) fn nothing_is_cut_off_at_the_end() {
    for (name, objects) in deployments() {
        let config = configuration(objects);
        let pod = &objects.pod()["spec"];
        let stop = number(&objects.container()["lifecycle"]["preStop"]["sleep"]["seconds"]);
        let grace = number(&pod["terminationGracePeriodSeconds"]);
        // With time left for the process to end, and for the kubelet.
        assert!(Duration::from_secs(stop + 2) + config.shutdown.longest() <= Duration::from_secs(grace), "{name}");
        assert!(config.shutdown.grace_ms < config.shutdown.timeout_ms);

        let probe = |name: &str| &objects.container()[name];
        let lasts = |name: &str| number(&probe(name)["periodSeconds"]) * number(&probe(name)["failureThreshold"]);
        let deployment = &objects.get("Deployment", "convoy")["spec"];
        assert!(lasts("startupProbe") < number(&deployment["progressDeadlineSeconds"]), "{name}");
        // The Service lets go of a pod before the kubelet restarts it.
        assert!(lasts("readinessProbe") < lasts("livenessProbe"), "{name}");
    }
    // KServe's pods have Kubernetes' default, and no preStop.
    let kserve = Objects::of(&render("kserve"));
    for runtime in kserve.kind("ClusterServingRuntime") {
        let arguments = list(&runtime["spec"]["containers"][0]["args"]);
        let value = |option: &str| arguments.iter().find_map(|argument| text(argument).strip_prefix(option)).unwrap();
        let milliseconds = |option: &str| value(option).parse::<u64>().unwrap();
        let timeout_ms = milliseconds("--shutdown-timeout-ms=");
        let grace_ms = milliseconds("--shutdown-grace-ms=");
        assert!(grace_ms >= 5_000);
        let shutdown = ShutdownConfig { grace_ms, timeout_ms };
        assert!(shutdown.longest() + Duration::from_secs(3) <= Duration::from_secs(30));
    }
}

/// Every pod, as its specification and the containers of it that are convoy.
fn pods() -> Vec<(String, Value)> {
    let kserve = Objects::of(&render("kserve"));
    let runtimes = kserve
        .kind("ClusterServingRuntime")
        .map(|runtime| (runtime["metadata"]["name"].to_string(), runtime["spec"].clone()));
    let runtimes: Vec<_> = runtimes.collect();
    let deployed = deployments().iter().map(|(name, objects)| (name.clone(), objects.pod()["spec"].clone()));
    deployed.chain(runtimes).collect()
}

pub(crate) fn containers_have_no_rights() {
    for (name, pod) in pods() {
        for container in list(&pod["containers"]).iter().chain(list(&pod["initContainers"])) {
            let own = &container["securityContext"];
            let either = |key: &str| if own[key].is_null() { &pod["securityContext"][key] } else { &own[key] };
            assert_eq!(either("runAsNonRoot"), true, "{name}");
            // The user of the image.
            assert_eq!(either("runAsUser"), 65532, "{name}");
            assert_eq!(either("seccompProfile")["type"], "RuntimeDefault", "{name}");
            assert_eq!(own["allowPrivilegeEscalation"], false, "{name}");
            assert_eq!(own["readOnlyRootFilesystem"], true, "{name}");
            assert_eq!(own["capabilities"]["drop"], serde_json::json!(["ALL"]), "{name}");
        }
        // What the server writes, the optimised graphs, goes to /tmp, which must not be the root file system.
        let mounts = list(&pod["containers"][0]["volumeMounts"]);
        let writable: Vec<_> =
            mounts.iter().filter(|mount| mount["readOnly"] != true).map(|mount| &mount["mountPath"]).collect();
        assert_eq!(writable, ["/tmp"], "{name}");
        let volume = list(&pod["volumes"]).iter().find(|volume| volume["name"] == "tmp").unwrap();
        assert!(volume["emptyDir"]["sizeLimit"].is_string(), "{name}");
    }
}

pub(crate) fn instances_have_a_core_each() {
    for (name, pod) in pods() {
        // The server counts the cores of the limit, rounded down: a fraction would be wasted, and a request below it not there.
        let resources = &pod["containers"][0]["resources"];
        assert_eq!(resources["requests"]["cpu"], resources["limits"]["cpu"], "{name}");
        assert!(text(&resources["limits"]["cpu"]).parse::<u32>().unwrap() >= 1, "{name}");
        assert!(resources["limits"]["memory"].is_string(), "{name}");
    }
}

pub(crate) fn the_gpu_overlay_asks_for_cuda() {
    let objects = Objects::of(&render("overlays/gpu"));
    let resources = &objects.container()["resources"];
    assert_eq!(resources["limits"]["nvidia.com/gpu"], "1");
    assert!(text(&objects.container()["image"]).ends_with("-cuda"));

    let read = |text: &str| {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.toml"), text).unwrap();
        ModelConfig::read(folder.path(), Machine { cores: 4, offers_cuda: true }).unwrap()
    };
    let with_gpu = read(objects.file("model-config", "config.toml"));
    let providers: Vec<_> = with_gpu.providers.iter().map(Provider::as_str).collect();
    assert_eq!(providers, ["cuda"]);
    // It lies over the model's own configuration, so it must say all that this says.
    let own = std::fs::read_to_string(root().join("models/efficientnet-lite0/config.toml")).unwrap();
    let own = read(&own);
    assert_eq!((with_gpu.preprocess, with_gpu.labels), (own.preprocess, own.labels));
}
