//! What the response cache says that it takes is what it takes. In a process of its own: the memory of others would show.

#[path = "support/memory.rs"]
mod memory;

use convoy::response_cache::{Digest, ResponseCache, ResponseCacheConfig};
use convoy::telemetry::Metrics;
use convoy::tensor::Tensor;

const MAX_BYTES: usize = 48 << 20;

#[test]
fn the_bound_holds_for_the_processes_memory_whatever_size_the_answers_have() {
    let cache = ResponseCache::new(&ResponseCacheConfig { max_bytes: MAX_BYTES }).unwrap();
    let model = cache.open(Metrics::new().model("m", 1).cache);
    let before = memory::resident_bytes("self");
    let mut number = 0_u64;
    // Many times over, small ones first: what they took in the maps must not stay beside the large ones.
    for classes in [3, 1000, 40] {
        let outputs = [Tensor::from_vec(vec![1, classes], vec![0.5_f32; classes]).unwrap()];
        for _ in 0..400_000 / classes.max(10) * 10 {
            number += 1;
            let digest = Digest::of_picture(&number.to_le_bytes());
            model.insert(digest, &outputs);
            // A client has it, which costs a buffer its header.
            drop(model.get(digest));
        }
        assert!(cache.bytes() <= MAX_BYTES && cache.bytes() > MAX_BYTES * 8 / 10, "{}", cache.bytes());
        let taken = memory::resident_bytes("self").saturating_sub(before);
        println!("{classes} classes: {taken} bytes resident, {} counted", cache.bytes());
        // What the allocator holds for new answers between the old ones is not the cache's to count.
        assert!(taken < MAX_BYTES as u64 * 13 / 10, "{classes} classes: {taken} bytes");
    }
}
