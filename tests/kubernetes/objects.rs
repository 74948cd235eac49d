//! Every object against the published schemas.

use crate::manifests::{NEWEST, OLDEST, alerts, folder, render, render_with, root, validate};

/// What there is to apply, as YAML, with the oldest Kubernetes that it is for.
fn everything() -> Vec<(String, String, &'static str)> {
    let mut everything = Vec::new();
    for path in ["overlays/cpu", "overlays/gpu", "overlays/production", "kserve"] {
        everything.push((path.to_owned(), render(path), OLDEST));
    }
    for entry in std::fs::read_dir(folder().join("components")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        // Volumes out of images came with 1.31.
        let oldest = if name == "models-image" { NEWEST } else { OLDEST };
        everything.push((format!("components/{name}"), render_with(&name), oldest));
    }
    for entry in std::fs::read_dir(folder().join("kserve")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.starts_with("inference-service") {
            everything.push((format!("kserve/{name}"), std::fs::read_to_string(&path).unwrap(), OLDEST));
        }
    }
    everything
}

pub(crate) fn every_object_is_valid() {
    let everything = everything();
    assert!(everything.len() > 12, "{}", everything.len());
    for (name, yaml, oldest) in everything {
        for version in [oldest, NEWEST] {
            let objects = validate(&yaml, version).unwrap_or_else(|mistakes| panic!("{name}, {version}:\n{mistakes}"));
            assert!(!objects.is_empty(), "{name}");
        }
    }
}

/// One mistake of each kind, in a kind out of each source of schemas.
pub(crate) fn the_validation_notices_mistakes() {
    let production = render("overlays/production");
    let kserve = render("kserve");
    for (yaml, right, wrong, said) in [
        (&production, "maxSurge: 1", "maxSurges: 1", "maxSurges"),
        (&production, "memory: 2Gi", "memory: 2GB", "2GB"),
        (&production, "periodSeconds: 10", "periodSeconds: ten", "ten"),
        (&production, "apiVersion: policy/v1\n", "apiVersion: policy/v1beta1\n", "PodDisruptionBudget"),
        (&production, "name: convoy-models\n", "name: Convoy_Models\n", "is no name"),
        (&production, "app.kubernetes.io/part-of: convoy", "app.kubernetes.io/part-of: a convoy", "is no label"),
        (&production, "type: PathPrefix", "type: Prefix", "HTTPRoute"),
        (&production, "service: grpc.health.v1.Health", "services: grpc.health.v1.Health", "GRPCRoute"),
        (&production, "gatewayClassName", "gatewayClass", "Gateway convoy"),
        (&production, "scrapeTimeout: 10s", "scrapeTimeout: long", "ServiceMonitor"),
        (&kserve, "protocolVersions", "protocolVersion", "protocolVersion"),
        (&kserve, "autoSelect: false", "autoSelect: 0", "autoSelect"),
        (&kserve, "runAsNonRoot: true", "runAsNonRoot: true\n      root: false", "root"),
        (&kserve, "  containers:", "  container:", "containers is required"),
    ] {
        let broken = yaml.replace(right, wrong);
        assert_ne!(&broken, yaml, "there is no `{right}`");
        let mistakes = validate(&broken, NEWEST).expect_err(wrong);
        assert!(mistakes.contains(said), "{wrong}: {mistakes}");
    }
    let twice = validate("kind: Namespace\napiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n", NEWEST);
    assert!(twice.unwrap_err().contains("there twice"));
}

pub(crate) fn the_alerts_become_a_valid_rule() {
    let rule = validate(&alerts(), NEWEST).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let [rule] = rule.as_slice() else { panic!("{rule:?}") };
    // Nothing has been lost on the way.
    let file = std::fs::read_to_string(root().join("docker/prometheus/alerts.yml")).unwrap();
    let groups = rule["spec"]["groups"].as_array().unwrap();
    let rules = groups.iter().flat_map(|group| group["rules"].as_array().unwrap());
    let alerts: Vec<_> = rules.filter_map(|rule| rule["alert"].as_str()).collect();
    // But what is about HAProxy, which is not there.
    let wanted = file.lines().filter_map(|line| line.trim_start().strip_prefix("- alert: "));
    assert_eq!(alerts, wanted.filter(|alert| !alert.starts_with("ConvoyBalancer")).collect::<Vec<_>>());
    assert!(alerts.len() > 10);
}
