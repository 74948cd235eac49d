//! Many loads in a row under load, every second one of a corrupt file.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use serde_json::json;

use crate::process::Process;
use crate::server::Repository;
use crate::{ask_at, control_at, put, saying, watchdog};

const LOADS: u32 = 100;

#[tokio::test(flavor = "multi_thread")]
async fn no_request_fails_none_is_answered_by_half_a_model_and_memory_returns() {
    let _watchdog = watchdog();
    let repository = Repository::new().with("m", &saying(1.0), "", "");
    let process = Process::start(&repository, &[]);
    let address = process.address;
    let (is_over, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    // What the model may say: what it said before the last load that worked, and what it says from then on.
    let (before, after) = (Arc::new(AtomicU32::new(1)), Arc::new(AtomicU32::new(1)));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (is_over, answers) = (Arc::clone(&is_over), Arc::clone(&answers));
            let (before, after) = (Arc::clone(&before), Arc::clone(&after));
            tokio::spawn(async move {
                while !is_over.load(Ordering::SeqCst) {
                    let oldest = before.load(Ordering::SeqCst);
                    let said = ask_at(address, "m").await;
                    let newest = after.load(Ordering::SeqCst);
                    let said = said.unwrap_or_else(|status| panic!("a request failed with {status}"));
                    assert!(
                        said >= oldest as f32 && said <= newest as f32 && said.fract() == 0.0,
                        "{oldest} {said} {newest}"
                    );
                    answers.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();

    let whole = std::fs::read(repository.path().join("m/1/model.onnx")).unwrap();
    let mut settled = 0;
    for index in 1..=LOADS {
        if index % 2 == 0 {
            // Cut off anywhere, from nothing to all but a byte.
            let length = whole.len() * (index as usize - 2) / LOADS as usize;
            std::fs::write(repository.path().join("m/1/model.onnx"), &whole[..length.min(whole.len() - 1)]).unwrap();
            let (status, error) = control_at(address, "m", "load", &json!(null)).await;
            assert!(status >= 400, "a file of {length} of {} bytes was loaded: {error}", whole.len());
        } else {
            let says = index.div_ceil(2) + 1;
            put(repository.path(), "m/1", &saying(says as f32));
            after.store(says, Ordering::SeqCst);
            assert_eq!(control_at(address, "m", "load", &json!(null)).await, (200, String::new()));
            // The load is answered: whoever asks from now on gets the new one.
            before.store(says, Ordering::SeqCst);
            assert_eq!(ask_at(address, "m").await, Ok(says as f32));
        }
        if index == LOADS / 5 {
            settled = process.resident_bytes();
        }
    }
    is_over.store(true, Ordering::SeqCst);
    for client in clients {
        client.await.unwrap();
    }
    let answers = answers.load(Ordering::SeqCst);
    assert!(answers >= u64::from(LOADS), "{answers} answers are no load");
    let last = process.resident_bytes();
    println!(
        "{answers} answers; {} KiB resident after {} loads, {} KiB after {LOADS}",
        settled >> 10,
        LOADS / 5,
        last >> 10
    );
    assert!(last as f64 <= settled as f64 * 1.05, "{settled} bytes became {last}");
}
