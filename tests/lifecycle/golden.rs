//! The picture whose class is known.

use crate::server::{PLAIN_RECIPE, Repository, png, start};
use crate::{ask, biased_means, explicit_all, graphs, load, put, states};

/// A red picture, and a model that must see it as red.
fn repository(golden: &str) -> Repository {
    let config = format!("{PLAIN_RECIPE}[golden]\npicture = \"red.png\"\n{golden}");
    let repository = Repository::new().with("m", &graphs::channel_means(2, None), &config, "red\ngreen\nblue");
    std::fs::write(repository.path().join("m/red.png"), png([255, 0, 0])).unwrap();
    repository
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_sees_it_serves() {
    // e / (e + 2) = 0.576 for means of 1, 0 and 0.
    for golden in ["class = 0", "class = \"red\"", "class = 0\nmin_score = 0.576"] {
        let repository = repository(golden);
        let server = start(explicit_all(&repository)).await;
        assert_eq!(ask(&server, "m").await, Ok(0.0), "{golden}: {:?}", states(&server, "m").await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_does_not_is_not_loaded() {
    for (golden, said) in [
        ("class = 1", "golden.class"),
        ("class = \"green\"", "golden.class"),
        ("class = \"purple\"", "purple"),
        ("class = 7", "golden.class"),
        ("class = 0\nmin_score = 0.577", "golden.min_score"),
    ] {
        let repository = repository(golden);
        let server = start(explicit_all(&repository)).await;
        let rows = states(&server, "m").await;
        assert!(rows[0].1 == "UNAVAILABLE" && rows[0].2.contains(said), "{golden}: {rows:?}");
    }
    let repository = repository("class = 0");
    std::fs::write(repository.path().join("m/red.png"), "no picture").unwrap();
    let server = start(explicit_all(&repository)).await;
    assert!(states(&server, "m").await[0].2.contains("golden.picture"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_no_longer_does_leaves_the_old_one_in_place() {
    let repository = repository("class = \"red\"");
    let server = start(explicit_all(&repository)).await;
    put(repository.path(), "m/1", &biased_means([0.0, 5.0, 0.0]));
    let (status, error) = load(&server, "m").await;
    assert!(status == 400 && error.contains("golden.class") && error.contains("class 0"), "{status} {error}");
    assert_eq!(ask(&server, "m").await, Ok(0.0));
    let rows = states(&server, "m").await;
    assert!(rows[0].1 == "READY" && rows[0].2.contains("the last load failed"), "{rows:?}");

    put(repository.path(), "m/1", &biased_means([1.0; 3]));
    assert_eq!(load(&server, "m").await.0, 200);
    assert_eq!(ask(&server, "m").await, Ok(1.0));
    assert_eq!(states(&server, "m").await[0].2, "");
}
