//! The manifests in `docker/kubernetes`: rendered by the real kustomize, validated against the published schemas, held together, and
//! run: the real binary is started as they say, and asked what they ask it.
//!
//! kustomize is in kubectl, which `cargo xtask test` fetches on Linux on `x86_64`. Elsewhere the one on the `PATH` is taken, and where there
//! is none the tests are ignored, and say so.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/http.rs"]
#[expect(dead_code, reason = "the server is another process")]
mod client;
#[path = "../support/graphs.rs"]
#[expect(dead_code, reason = "one graph is enough")]
mod graphs;
#[path = "../support/server.rs"]
#[expect(dead_code, reason = "the server is another process")]
mod server;

mod manifests;
mod objects;
mod pod;
mod serving;
mod wiring;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

/// A harness of its own, because whether these tests can run is known when they are to.
fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let is_missing = manifests::kubectl().is_none();
    if is_missing {
        eprintln!("the Kubernetes manifests are NOT tested: there is no kubectl");
    }
    let tests: &[(&str, fn())] = &[
        ("every_object_is_valid", objects::every_object_is_valid),
        ("the_validation_notices_mistakes", objects::the_validation_notices_mistakes),
        ("the_alerts_become_a_valid_rule", objects::the_alerts_become_a_valid_rule),
        ("what_is_named_is_there", wiring::what_is_named_is_there),
        ("selectors_find_the_pods", wiring::selectors_find_the_pods),
        ("routes_lead_to_the_services", wiring::routes_lead_to_the_services),
        ("a_bucket_is_reached_and_no_machines_credentials", wiring::a_bucket_is_reached_and_no_machines_credentials),
        ("nothing_is_cut_off_at_the_end", wiring::nothing_is_cut_off_at_the_end),
        ("containers_have_no_rights", wiring::containers_have_no_rights),
        ("instances_have_a_core_each", wiring::instances_have_a_core_each),
        ("the_gpu_overlay_asks_for_cuda", wiring::the_gpu_overlay_asks_for_cuda),
        ("the_deployment_serves_and_ends", serving::the_deployment_serves_and_ends),
        ("a_model_that_cannot_be_loaded_stops_a_rollout", serving::a_model_that_cannot_be_loaded_stops_a_rollout),
        ("kserve_serves_a_model_in_either_layout", serving::kserve_serves_a_model_in_either_layout),
        ("kserve_serves_a_repository", serving::kserve_serves_a_repository),
    ];
    let trials = tests.iter().map(|&(name, test)| {
        let trial = Trial::test(name, move || {
            test();
            Ok(())
        });
        trial.with_ignored_flag(is_missing)
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}
