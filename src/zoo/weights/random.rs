//! Untrained weights from a seed, for demonstrations, benchmarks and tests.
//!
//! Every value depends only on the seed, the tensor's key, its shape and the element's index, through integer arithmetic and
//! correctly rounded floating point, so that a script in any language makes the same weights bit for bit
//! (`tests/reference/zoo.py` does). The rule:
//! 1. `start = splitmix64(fnv1a64(key) + seed * GAMMA)`, then the element `i` draws `word = splitmix64(start + (i + 1) * GAMMA)`,
//!    all modulo 2^64.
//! 2. `z`, nearly normal with mean 0 and variance 1, is the sum of the word's four 16-bit parts less its mean 131070, times
//!    [`UNIT`].
//! 3. A kernel (two dimensions or more) is `z * sqrt(1.5 / fan_in)`, where `fan_in` is the product of all dimensions but the
//!    first. A batch norm's `weight` and `running_var` are `1 + 0.1 z`, every other vector is `0.1 z`. Computed in FP64,
//!    rounded to FP32 once.
//!
//! He initialisation has 2 in place of 1.5. It keeps the scale of a plain network, but multiplies that of a residual network
//! block by block. With 1.5 the logits' standard deviation is 0.5 for VGG-16 (4 with 2), 50 for ResNet-50 (1,800) and 4e5 for
//! ResNet-152 (1e10): finite and spread, though the deepest networks leave FP16's range.

/// The increment of splitmix64: 2^64 divided by the golden ratio.
const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// One over the standard deviation of the sum of four uniform 16-bit integers: `sqrt(3 / (2^32 - 1))`.
pub const UNIT: f64 = 2.642_899_792_130_301_8e-5;

/// The values of the tensor `key` of `shape`, row-major.
pub fn values(seed: u64, key: &str, shape: &[usize]) -> Vec<f32> {
    let (offset, scale) = match shape {
        [_, kernel @ ..] if !kernel.is_empty() => (0.0, (1.5 / kernel.iter().product::<usize>() as f64).sqrt()),
        _ if key.ends_with(".weight") || key.ends_with(".running_var") => (1.0, 0.1),
        _ => (0.0, 0.1),
    };
    normal(seed, key).take(shape.iter().product()).map(|z| (offset + scale * z) as f32).collect()
}

/// The nearly normal numbers of `key`, mean 0 and variance 1.
pub fn normal(seed: u64, key: &str) -> impl Iterator<Item = f64> {
    let start = splitmix64(fnv1a64(key).wrapping_add(seed.wrapping_mul(GAMMA)));
    (1..).map(move |index: u64| {
        let word = splitmix64(start.wrapping_add(index.wrapping_mul(GAMMA)));
        let sum: i64 = [0, 16, 32, 48].iter().map(|shift| (word >> shift & 0xffff) as i64).sum();
        (sum - 131_070) as f64 * UNIT
    })
}

/// Vigna's finaliser of splitmix64, <https://prng.di.unimi.it/splitmix64.c>.
fn splitmix64(mut word: u64) -> u64 {
    word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ word >> 31
}

/// The 64-bit FNV-1a hash, RFC 9923.
fn fnv1a64(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
