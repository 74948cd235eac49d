//! What there is to choose from.

use serde::{Deserialize, Serialize};

use crate::repository::warm_up::powers_of_two;

/// The largest batch of the grid, and of the full sweep. A CPU saves nothing beyond 4 to 8 (docs/benchmarks.md); the sweep looks
/// further, so that it can tell where that is not so.
const LARGEST_ON_CPU: [usize; 2] = [8, 32];
const LARGEST_ON_GPU: [usize; 2] = [64, 128];
/// The most instances on a GPU: what more of them could overlap is overlapped already.
const MOST_INSTANCES_ON_GPU: usize = 4;

/// One way to run a model. The order is that of preference between equals: a smaller batch has the lower latency, and fewer
/// threads and instances take less of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Setup {
    /// The most rows in a batch.
    pub max_batch_size: usize,
    /// Threads inside one run.
    pub intra_op_threads: usize,
    /// Instances on each device.
    pub instances: usize,
}

/// The setups that are possible: each number is settled, or open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Space {
    pub(super) max_batch_size: Option<usize>,
    pub(super) intra_op_threads: Option<usize>,
    pub(super) instances: Option<usize>,
    /// The most rows whose input can be allocated.
    pub(super) largest_batch: usize,
    pub(super) cores: usize,
    pub(super) is_gpu: bool,
}

impl Space {
    /// Whether there is anything to choose.
    pub(super) fn is_open(&self) -> bool {
        self.max_batch_size.is_none() || self.intra_op_threads.is_none() || self.instances.is_none()
    }

    /// The setups worth measuring, ascending: powers of two, and on a CPU as many instances as keep all cores busy, or half of
    /// them, which may do as well where two cores are one with two names or memory is what runs out.
    pub(super) fn grid(&self) -> Vec<Setup> {
        self.setups(self.largest(0), &powers_of_two(self.cores), |most| {
            if self.is_gpu { powers_of_two(most) } else { vec![(most / 2).max(1), most] }
        })
    }

    /// All setups up to larger batches, ascending.
    pub(super) fn all(&self) -> Vec<Setup> {
        let threads: Vec<_> = (1..=self.cores).collect();
        self.setups(self.largest(1), &threads, |most| (1..=most).collect())
    }

    fn largest(&self, which: usize) -> usize {
        (if self.is_gpu { LARGEST_ON_GPU } else { LARGEST_ON_CPU })[which].min(self.largest_batch).max(1)
    }

    /// `instances` gives the numbers of instances to try, of which there can be `most`.
    fn setups(&self, largest: usize, threads: &[usize], instances: impl Fn(usize) -> Vec<usize>) -> Vec<Setup> {
        let batches = self.max_batch_size.map_or_else(|| powers_of_two(largest), |settled| vec![settled]);
        let threads = match self.intra_op_threads {
            Some(settled) => vec![settled],
            // A GPU's kernels have no threads of ours.
            None if self.is_gpu => vec![1],
            // More threads than cores only wait for each other.
            None => {
                let most = (self.cores / self.instances.unwrap_or(1)).max(1);
                threads.iter().copied().filter(|&threads| threads <= most).collect()
            }
        };
        let mut setups = Vec::new();
        for &intra_op_threads in &threads {
            let most = if self.is_gpu { MOST_INSTANCES_ON_GPU } else { (self.cores / intra_op_threads).max(1) };
            for instances in self.instances.map_or_else(|| instances(most), |settled| vec![settled]) {
                setups.extend(batches.iter().map(|&max_batch_size| Setup {
                    max_batch_size,
                    intra_op_threads,
                    instances,
                }));
            }
        }
        setups.sort_unstable();
        setups.dedup();
        setups
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(cores: usize, is_gpu: bool) -> Space {
        let largest_batch = 1000;
        Space { max_batch_size: None, intra_op_threads: None, instances: None, largest_batch, cores, is_gpu }
    }

    /// Threads and instances, without the batches.
    fn parallel(setups: &[Setup]) -> Vec<(usize, usize)> {
        let mut pairs: Vec<_> = setups.iter().map(|setup| (setup.intra_op_threads, setup.instances)).collect();
        pairs.sort_unstable();
        pairs.dedup();
        pairs
    }

    fn batches(setups: &[Setup]) -> Vec<usize> {
        let mut batches: Vec<_> = setups.iter().map(|setup| setup.max_batch_size).collect();
        batches.dedup();
        batches
    }

    #[test]
    fn a_cpu_is_kept_busy_and_never_crowded() {
        for (cores, expected) in
            [(1, &[(1, 1)][..]), (2, &[(1, 1), (1, 2), (2, 1)]), (6, &[(1, 3), (1, 6), (2, 1), (2, 3), (4, 1), (6, 1)])]
        {
            let space = open(cores, false);
            assert_eq!(parallel(&space.grid()), expected);
            assert_eq!(batches(&space.grid()), [1, 2, 4, 8]);
            assert!(space.all().iter().all(|setup| setup.instances * setup.intra_op_threads <= cores));
        }
        assert_eq!(parallel(&open(3, false).all()), [(1, 1), (1, 2), (1, 3), (2, 1), (3, 1)]);
        // A server of 64 cores must not take an hour to start.
        assert!(open(64, false).grid().len() < 64);
    }

    #[test]
    fn a_gpu_has_no_threads_of_ours_and_larger_batches() {
        let space = open(64, true);
        assert_eq!(parallel(&space.grid()), [(1, 1), (1, 2), (1, 4)]);
        assert_eq!(batches(&space.grid()), [1, 2, 4, 8, 16, 32, 64]);
    }

    #[test]
    fn what_is_settled_stands_and_what_cannot_be_allocated_is_left_out() {
        let space = Space { instances: Some(3), max_batch_size: Some(5), ..open(2, false) };
        assert_eq!(space.grid(), [Setup { max_batch_size: 5, intra_op_threads: 1, instances: 3 }]);
        let space = Space { instances: Some(2), ..open(8, false) };
        assert_eq!(parallel(&space.grid()), [(1, 2), (2, 2), (4, 2)]);
        let space = Space { intra_op_threads: Some(4), ..open(2, false) };
        assert_eq!(parallel(&space.grid()), [(4, 1)]);
        let space = Space { largest_batch: 3, ..open(1, false) };
        assert_eq!(batches(&space.grid()), [1, 2, 3]);
        assert!(open(1, false).is_open());
        let settled =
            Space { max_batch_size: Some(1), intra_op_threads: Some(1), instances: Some(1), ..open(1, false) };
        assert!(!settled.is_open());
    }

    #[test]
    fn the_full_sweep_has_the_whole_grid() {
        for space in [open(1, false), open(6, false), open(16, false), open(4, true)] {
            let all = space.all();
            assert!(space.grid().iter().all(|setup| all.contains(setup)), "{space:?}");
        }
    }
}
