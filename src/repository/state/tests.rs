//! Loads and unloads of models that are numbers.

use super::Loaded::{Failed, Kept, New};
use super::ModelState::{Loading, Ready, Unavailable, Unloading};
use super::*;

/// An entry that serves `versions`, each by its number.
fn serving(versions: &[u64]) -> Entry<u64> {
    let mut entry = Entry::default();
    load(&mut entry, versions.iter().map(|&number| (number, New(number))).collect());
    entry
}

fn load(entry: &mut Entry<u64>, loaded: Vec<(u64, Loaded<u64>)>) -> Vec<u64> {
    entry.begin_load();
    entry.begin_versions(&loaded.iter().map(|(number, _)| *number).collect::<Vec<_>>());
    entry.finish_load(loaded)
}

fn states(entry: &Entry<u64>) -> Vec<(Option<u64>, ModelState)> {
    entry.rows().into_iter().map(|(number, state, _)| (number, state)).collect()
}

#[test]
fn a_first_load_goes_from_loading_to_ready() {
    let mut entry = Entry::default();
    entry.begin_load();
    assert_eq!((states(&entry), entry.find(None)), (vec![(None, Loading)], Found::Loading));
    entry.begin_versions(&[1]);
    assert_eq!((states(&entry), entry.find(Some(1))), (vec![(Some(1), Loading)], Found::Loading));
    assert_eq!(entry.find(Some(2)), Found::Nothing);
    entry.show_progress(1, "being measured");
    assert_eq!(entry.rows(), [(Some(1), Loading, "being measured".to_owned())]);
    assert!(entry.finish_load(vec![(1, New(10))]).is_empty());
    assert_eq!((states(&entry), entry.find(None)), (vec![(Some(1), Ready)], Found::Serving(&10)));
}

#[test]
fn a_first_load_that_fails_says_why_and_the_other_versions_serve() {
    let mut entry = Entry::default();
    assert!(load(&mut entry, vec![(1, New(1)), (2, Failed("broken".into()))]).is_empty());
    assert_eq!(states(&entry), [(Some(1), Ready), (Some(2), Unavailable)]);
    assert_eq!(entry.find(Some(2)), Found::Unavailable("broken"));
    assert_eq!(entry.find(None), Found::Serving(&1));

    let mut entry: Entry<u64> = Entry::default();
    entry.begin_load();
    entry.fail("no versions");
    assert_eq!(entry.rows(), [(None, Unavailable, "no versions".into())]);
    assert_eq!(entry.find(Some(1)), Found::Unavailable("no versions"));
}

#[test]
fn a_reload_keeps_ready_until_the_swap() {
    let mut entry = serving(&[1]);
    entry.begin_load();
    entry.begin_versions(&[1, 2]);
    assert_eq!(states(&entry), [(Some(1), Ready), (Some(2), Loading)]);
    assert!(entry.rows()[0].2.contains("again"));
    assert_eq!(entry.find(None), Found::Serving(&1));
    assert_eq!(entry.finish_load(vec![(1, New(11)), (2, New(12))]), [1]);
    assert_eq!(states(&entry), [(Some(1), Ready), (Some(2), Ready)]);
    assert_eq!((entry.find(Some(1)), entry.find(None)), (Found::Serving(&11), Found::Serving(&12)));
}

#[test]
fn a_reload_that_fails_changes_nothing_but_the_reason() {
    let mut entry = serving(&[1, 2]);
    assert_eq!(load(&mut entry, vec![(2, New(12)), (3, Failed("broken".into()))]), [12]);
    assert_eq!(states(&entry), [(Some(1), Ready), (Some(2), Ready), (Some(3), Unavailable)]);
    assert_eq!((entry.find(Some(2)), entry.find(None)), (Found::Serving(&2), Found::Serving(&2)));
    assert!(entry.rows()[1].2.contains("version 3"), "{:?}", entry.rows());
    assert_eq!(entry.rows()[2].2, "broken");

    entry.begin_load();
    entry.fail("config.toml");
    assert_eq!(states(&entry), [(Some(1), Ready), (Some(2), Ready)]);
    assert!(entry.rows().iter().all(|(_, _, reason)| reason == "the last load failed: config.toml"));

    assert_eq!(load(&mut entry, vec![(2, New(22))]), [1, 2]);
    assert_eq!(entry.rows(), [(Some(1), Unloading, String::new()), (Some(2), Ready, String::new())]);
}

#[test]
fn a_version_that_is_no_longer_wanted_goes_after_the_new_one_is_there() {
    let mut entry = serving(&[1]);
    assert_eq!(load(&mut entry, vec![(2, New(2))]), [1]);
    assert_eq!(states(&entry), [(Some(1), Unloading), (Some(2), Ready)]);
    assert_eq!(entry.find(Some(1)), Found::Unloading);
    entry.finish_drain();
    assert_eq!(states(&entry), [(Some(2), Ready)]);
    assert_eq!(entry.find(Some(1)), Found::Nothing);
}

#[test]
fn a_version_that_is_kept_is_not_drained() {
    let mut entry = serving(&[1]);
    assert!(load(&mut entry, vec![(1, Kept), (2, New(2))]).is_empty());
    assert_eq!(states(&entry), [(Some(1), Ready), (Some(2), Ready)]);
    assert!(load(&mut entry, vec![(1, Kept), (3, Failed("broken".into()))]).is_empty());
    assert_eq!(entry.find(Some(1)), Found::Serving(&1));
}

#[test]
fn an_unloaded_model_stays_known() {
    let mut entry = serving(&[1, 2]);
    assert_eq!(entry.begin_unload(), [1, 2]);
    assert_eq!(states(&entry), [(Some(1), Unloading), (Some(2), Unloading)]);
    assert_eq!(entry.find(None), Found::Unloading);
    entry.finish_drain();
    assert_eq!(states(&entry), [(Some(1), Unavailable), (Some(2), Unavailable)]);
    assert_eq!(entry.find(None), Found::Unavailable("unloaded"));
    assert!(entry.is_unloaded());
    assert!(load(&mut entry, vec![(2, New(3))]).is_empty());
    assert_eq!(states(&entry), [(Some(2), Ready)]);
    assert!(!entry.is_unloaded());
}

#[test]
fn a_broken_version_takes_no_requests_until_it_is_loaded_again() {
    let mut entry = serving(&[1, 2]);
    assert!(!entry.condemn(2, "it fails".into(), |&serving| serving == 7));
    assert_eq!(states(&entry), [(Some(1), Ready), (Some(2), Ready)]);
    assert!(entry.condemn(2, "it fails".into(), |&serving| serving == 2));
    assert_eq!(states(&entry), [(Some(1), Ready), (Some(2), Unavailable)]);
    assert_eq!((entry.find(Some(2)), entry.find(None)), (Found::Unavailable("it fails"), Found::Serving(&1)));
    assert_eq!(entry.serving().count(), 1);
    assert_eq!(load(&mut entry, vec![(1, Kept), (2, New(12))]), [2]);
    assert_eq!(entry.rows(), [(Some(1), Ready, String::new()), (Some(2), Ready, String::new())]);
    assert!(entry.condemn(2, "it fails".into(), |_| true));
    assert_eq!(entry.begin_unload(), [1, 12]);
}

#[test]
fn a_load_that_is_given_up_leaves_no_trace() {
    let mut entry = serving(&[1]);
    let before = entry.rows();
    entry.begin_load();
    entry.begin_versions(&[1, 2]);
    entry.abandon();
    assert_eq!(entry.rows(), before);

    let mut entry: Entry<u64> = Entry::default();
    entry.begin_load();
    entry.begin_versions(&[1]);
    entry.abandon();
    assert_eq!((entry.rows(), entry.find(None)), (vec![], Found::Nothing));
}
