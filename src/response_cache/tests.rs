use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::telemetry::Metrics;
use crate::tensor::DataType;

fn cache(max_bytes: usize) -> ResponseCache {
    ResponseCache::new(&ResponseCacheConfig { max_bytes }).unwrap()
}

fn open(cache: &ResponseCache, name: &str) -> ModelCache {
    cache.open(Metrics::new().model(name, 1).cache)
}

fn digest(number: usize) -> Digest {
    Digest::of_picture(&number.to_le_bytes())
}

/// An answer that tells which one it is.
fn outputs(number: usize) -> Vec<Tensor> {
    vec![Tensor::from_vec(vec![1, 4], vec![number as f32; 4]).unwrap()]
}

/// What an entry of [`outputs`] takes.
fn size() -> usize {
    entry_bytes(&outputs(0))
}

#[test]
fn a_digest_tells_pictures_tensors_types_and_shapes_apart() {
    let tensor = |data_type, shape: &[usize]| Tensor::new(data_type, shape.to_vec(), vec![1; 12].into()).unwrap();
    let tensors = [
        tensor(DataType::Fp32, &[1, 3]),
        tensor(DataType::Fp32, &[3, 1]),
        tensor(DataType::Fp32, &[3]),
        tensor(DataType::Int32, &[1, 3]),
        tensor(DataType::Int8, &[1, 12]),
    ];
    let mut digests: Vec<Digest> = tensors.iter().map(Digest::of_tensor).collect();
    digests.extend([digest(0), digest(1), Digest::of_picture(&[1; 12]), Digest::of_picture(&[1; 13])]);
    digests.sort();
    digests.dedup();
    assert_eq!(digests.len(), 9);
    // By Python's hashlib: of "P" and the picture; of "T", the type and a zero, the rank, the dimensions and the elements.
    let expected = "9a1c54f55e7cfb1cc2cdad2991525037bc475a509fa37262e123c44e958d2d36";
    assert_eq!(format!("{:?}", Digest::of_picture(b"icture")), expected);
    let expected = "f7d98488ea689ca87359a43c0868639d645e7ca59f5a81f2c59bc0735d871618";
    assert_eq!(format!("{:?}", Digest::of_tensor(&tensors[0])), expected);
}

#[test]
fn what_was_not_used_for_the_longest_time_makes_room() {
    let cache = cache(3 * size());
    let model = open(&cache, "m");
    for number in 0..3 {
        model.insert(digest(number), &outputs(number));
    }
    assert_eq!(cache.bytes(), 3 * size());
    assert_eq!(model.get(digest(0)).unwrap(), outputs(0));
    model.insert(digest(3), &outputs(3));
    assert_eq!(model.get(digest(1)), None, "1 is older than 0, which has been used since");
    for number in [0, 2, 3] {
        assert_eq!(model.get(digest(number)).unwrap(), outputs(number));
    }
    let metrics = &model.owner.metrics;
    assert_eq!((metrics.evictions.get(), metrics.bytes.get()), (1, 3 * size() as i64));
    // A large one takes the room of several, and one that never fits takes nobody's.
    let large = vec![Tensor::zeros(DataType::Uint8, vec![1, 2 * size() - entry_bytes(&outputs(0))]).unwrap()];
    model.insert(digest(4), &large);
    assert!(model.get(digest(4)).is_some() && cache.bytes() <= 3 * size());
    let (bytes, evictions) = (cache.bytes(), metrics.evictions.get());
    model.insert(digest(5), &[Tensor::zeros(DataType::Uint8, vec![1, 3 * size()]).unwrap()]);
    assert_eq!((cache.bytes(), metrics.evictions.get(), model.get(digest(5))), (bytes, evictions, None));
}

#[test]
fn what_is_kept_stays_and_keeps_no_batch_alive() {
    let cache = cache(1 << 20);
    let model = open(&cache, "m");
    let bytes: Vec<u8> = [1f32; 256].iter().flat_map(|value| value.to_le_bytes()).collect();
    let batch = Tensor::new(DataType::Fp32, vec![64, 4], bytes.into()).unwrap();
    model.insert(digest(0), &[batch.rows(3, 1)]);
    model.insert(digest(0), &outputs(7));
    let kept = model.get(digest(0)).unwrap();
    assert_eq!(kept, outputs(1), "the first stays");
    assert!(batch.bytes().is_unique(), "nothing else holds the batch");
    assert_eq!(cache.bytes(), size());
}

#[test]
fn models_share_the_bound_and_nothing_else() {
    let cache = cache(3 * size());
    let (one, other) = (open(&cache, "m"), open(&cache, "m"));
    one.insert(digest(0), &outputs(1));
    assert_eq!(other.get(digest(0)), None, "the same name, loaded again");
    other.insert(digest(0), &outputs(2));
    other.insert(digest(1), &outputs(3));
    other.insert(digest(2), &outputs(4));
    assert_eq!(one.get(digest(0)), None, "evicted by the other");
    assert_eq!((one.owner.metrics.evictions.get(), one.owner.metrics.bytes.get()), (1, 0));
    drop(one);
    assert_eq!(cache.bytes(), 3 * size());
    let metrics = other.owner.metrics.clone();
    drop(other);
    assert_eq!((cache.bytes(), metrics.bytes.get(), metrics.evictions.get()), (0, 0, 0));
    let state = cache.lock();
    assert!(state.uses.is_empty() && state.entries.is_empty());
}

#[test]
fn a_model_with_many_entries_is_emptied_to_the_last() {
    let cache = cache(usize::MAX);
    let (gone, stays) = (open(&cache, "gone"), open(&cache, "stays"));
    for number in 0..2 * DROPPED_AT_ONCE + 7 {
        gone.insert(digest(number), &outputs(number));
    }
    stays.insert(digest(0), &outputs(9));
    drop(gone);
    assert_eq!((cache.bytes(), stays.get(digest(0))), (size(), Some(outputs(9))));
}

#[test]
fn many_threads_get_nothing_but_what_was_put_in_and_stay_within_the_bound() {
    let cache = cache(50 * size());
    let hits = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (cache, hits) = (&cache, &hits);
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(thread);
                // Loaded again now and then, while the others go on.
                for load in 0..10 {
                    let model = open(cache, "m");
                    let of_load = |number| number * 100 + load + 10 * thread as usize;
                    for _ in 0..500 {
                        let number = random.usize(..40);
                        match model.get(digest(number)) {
                            Some(found) => {
                                assert_eq!(found, outputs(of_load(number)));
                                hits.fetch_add(1, Ordering::Relaxed);
                            }
                            None => model.insert(digest(number), &outputs(of_load(number))),
                        }
                        assert!(cache.bytes() <= 50 * size());
                    }
                }
            });
        }
    });
    assert!(hits.into_inner() > 0);
    let state = cache.lock();
    assert!(state.bytes == 0 && state.uses.is_empty() && state.entries.is_empty());
}

#[test]
fn nothing_is_kept_unless_a_size_says_so() {
    assert!(ResponseCache::new(&ResponseCacheConfig::default()).is_none());
}
