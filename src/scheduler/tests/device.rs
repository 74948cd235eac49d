use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::super::device::{Device, Share};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Waits until `count` threads wait for a turn.
fn until_waiting(device: &Device, count: usize) {
    while device.waiting() != count {
        thread::yield_now();
    }
}

/// The names of those who got a turn, in their order, when each of `asking` asks behind the one before, and uses it for as long
/// as it says.
fn turns(device: &Arc<Device>, asking: &[(&'static str, &Share, u64)]) -> Vec<&'static str> {
    let (sender, turns) = mpsc::channel();
    let blocker = Share::new(device, usize::MAX, Duration::ZERO);
    let all = blocker.try_take().unwrap();
    thread::scope(|scope| {
        for (index, &(name, share, took)) in asking.iter().enumerate() {
            let sender = sender.clone();
            scope.spawn(move || {
                let mut turn = share.take();
                sender.send(name).unwrap();
                turn.charge(ms(took));
            });
            until_waiting(device, index + 1);
        }
        drop(all);
    });
    turns.try_iter().collect()
}

#[test]
fn a_turn_goes_to_the_model_that_has_used_the_least() {
    let device = Arc::new(Device::new(1));
    let (quick, slow) = (Share::new(&device, 1, ms(10)), Share::new(&device, 1, ms(30)));
    let asking = [
        ("slow", &slow, 30),
        ("slow", &slow, 30),
        ("slow", &slow, 30),
        ("quick", &quick, 10),
        ("quick", &quick, 10),
        ("quick", &quick, 10),
        ("quick", &quick, 10),
    ];
    // Each has 30 ms before the other has more than that.
    assert_eq!(turns(&device, &asking), ["slow", "quick", "quick", "quick", "slow", "quick", "slow"]);
}

#[test]
fn a_model_that_was_idle_has_saved_nothing() {
    let device = Arc::new(Device::new(1));
    let (busy, idle) = (Share::new(&device, 1, ms(10)), Share::new(&device, 1, ms(10)));
    for _ in 0..100 {
        busy.try_take().unwrap().charge(ms(10));
    }
    let asking =
        [("busy", &busy, 10), ("busy", &busy, 10), ("idle", &idle, 10), ("idle", &idle, 10), ("idle", &idle, 10)];
    // It has none of the 1000 ms ahead of the other: they alternate.
    assert_eq!(turns(&device, &asking), ["busy", "idle", "busy", "idle", "idle"]);
}

#[test]
fn what_is_expected_is_paid_in_advance() {
    let device = Arc::new(Device::new(2));
    let (other, long, short) =
        (Share::new(&device, 1, ms(1)), Share::new(&device, 1, ms(100)), Share::new(&device, 1, ms(10)));
    let blocker = other.try_take().unwrap();
    let running = long.try_take().unwrap();
    let (sender, turns) = mpsc::channel();
    thread::scope(|scope| {
        for (index, (name, share)) in [("long", &long), ("short", &short)].into_iter().enumerate() {
            let sender = sender.clone();
            scope.spawn(move || {
                let _turn = share.take();
                sender.send(name).unwrap();
            });
            until_waiting(&device, index + 1);
        }
        // The long run has not ended, but it counts.
        drop(blocker);
        assert_eq!(turns.recv().unwrap(), "short");
    });
    drop(running);
}

#[test]
fn a_wide_run_is_waited_for_and_counts_by_its_threads() {
    let device = Arc::new(Device::new(2));
    let (wide, narrow) = (Share::new(&device, 2, ms(10)), Share::new(&device, 1, ms(10)));
    assert_eq!((device.runs(1), device.runs(2), device.runs(64)), (2, 1, 1));
    let first = narrow.try_take().unwrap();
    assert_eq!(first.sharers(), 2);
    assert!(wide.try_take().is_none());
    thread::scope(|scope| {
        scope.spawn(|| drop(wide.take()));
        until_waiting(&device, 1);
        // There is a core, but the wide one would never come if others took it.
        assert!(narrow.try_take().is_none());
        drop(first);
    });
    let asking = [
        ("wide", &wide, 10),
        ("wide", &wide, 10),
        ("narrow", &narrow, 10),
        ("narrow", &narrow, 10),
        ("narrow", &narrow, 10),
    ];
    // Two narrow turns cost what one wide one does.
    assert_eq!(turns(&device, &asking), ["wide", "narrow", "narrow", "wide", "narrow"]);
}

#[test]
fn a_device_that_grows_lets_in_who_waits() {
    let device = Arc::new(Device::new(1));
    let share = Share::new(&device, 1, ms(10));
    let first = share.try_take().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| drop(share.take()));
        until_waiting(&device, 1);
        device.grow(2);
    });
    drop(first);
}
