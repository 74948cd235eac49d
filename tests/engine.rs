//! The engine with the real ONNX Runtime: numbers, shared weights, and providers that cannot run.

mod support;

use std::path::Path;

use convoy::engine::{CudaOptions, Graph, GraphOptimization, GraphOptions, Provider, Runtime, TensorRtOptions};
use convoy::error::Error;
use convoy::tensor::Tensor;
use support::graphs;

fn runtime() -> Runtime {
    Runtime::load(None).expect("`cargo xtask setup` has put ONNX Runtime under target/")
}

fn load(path: &Path, providers: Vec<Provider>) -> Result<Graph, Error> {
    Graph::load(
        &runtime(),
        path,
        &GraphOptions { providers, intra_op_threads: 1, optimization: GraphOptimization::All },
    )
    .map(|(graph, _)| graph)
}

/// A picture whose every pixel of channel c is `values[c]`: its channel means are those values.
fn flat(values: [f32; 3], side: usize) -> Tensor {
    let elements = values.iter().flat_map(|&value| std::iter::repeat_n(value, side * side)).collect();
    Tensor::from_vec(vec![1, 3, side, side], elements).expect("the shape fits the elements")
}

#[test]
fn a_batch_is_put_together_run_and_padded() {
    let folder = tempfile::tempdir().unwrap();
    let path = graphs::write(folder.path(), &graphs::channel_means(8, None));
    let graph = load(&path, Vec::new()).unwrap();
    assert_eq!(graph.provider(), &Provider::Cpu {});
    let mut session = graph.session(0).unwrap();
    assert_eq!(session.input().shape, [-1, 3, 8, 8]);
    assert_eq!(session.outputs()[0].shape, [-1, 3]);

    let parts = [flat([1.0, 2.0, 3.0], 8), flat([4.0, 5.0, 6.0], 8)];
    let (outputs, _) = session.run(&parts, 3).unwrap();
    assert_eq!(outputs[0].shape(), [3, 3]);
    assert_eq!(*outputs[0].to_slice::<f32>().unwrap(), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 0.0, 0.0, 0.0]);
    // What a larger batch left in the buffer must not show in a smaller one's padding.
    let (outputs, _) = session.run(&parts[..1], 2).unwrap();
    assert_eq!(*outputs[0].to_slice::<f32>().unwrap(), [1.0, 2.0, 3.0, 0.0, 0.0, 0.0]);
}

#[test]
fn sessions_with_shared_weights_agree_and_run_side_by_side() {
    let folder = tempfile::tempdir().unwrap();
    let path = graphs::write(folder.path(), &graphs::convolutional(16, 64));
    let graph = load(&path, Vec::new()).unwrap();
    let picture = flat([0.25, -0.5, 1.0], 16);
    let expected = graph.session(0).unwrap().run(std::slice::from_ref(&picture), 1).unwrap().0;
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut session = graph.session(0).unwrap();
                for _ in 0..20 {
                    assert_eq!(session.run(std::slice::from_ref(&picture), 1).unwrap().0, expected);
                }
            });
        }
    });
    // The bias of every filter is its index, its weights are ones over the centre tap: worked out by hand, filter k gives
    // max(0.25 - 0.5 + 1.0 + k, 0) everywhere.
    let values = expected[0].to_slice::<f32>().unwrap();
    for (index, &value) in values.iter().enumerate() {
        assert!((value - (0.75 + index as f32)).abs() < 1e-4, "{index}: {value}");
    }
}

#[test]
fn a_gpu_provider_that_cannot_run_is_an_error_with_onnx_runtimes_reason() {
    let folder = tempfile::tempdir().unwrap();
    let path = graphs::write(folder.path(), &graphs::channel_means(8, None));
    for provider in [Provider::Cuda(CudaOptions::default()), Provider::TensorRt(TensorRtOptions::default())] {
        let name = provider.as_str();
        let error = load(&path, vec![provider]).expect_err("this library has no GPU provider");
        assert!(error.message().contains(name), "{error}");
        assert!(
            error.chain().len() > error.message().len() + 10,
            "ONNX Runtime's reason is missing: {}",
            error.chain()
        );
    }
}

#[test]
fn only_a_list_that_says_so_falls_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = graphs::write(folder.path(), &graphs::channel_means(8, None));
    let graph = load(&path, vec![Provider::Cuda(CudaOptions::default()), Provider::Cpu {}]).unwrap();
    assert_eq!(graph.provider().as_str(), "cpu", "what really runs is what is named");
}

#[test]
fn what_is_not_a_model_is_refused_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in [("empty", &b""[..]), ("text", b"not a model"), ("truncated", &[0x08, 0x08, 0x3a, 0xff])] {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let error = load(&path, Vec::new()).unwrap_err();
        assert!(error.chain().contains(name), "{}", error.chain());
    }
    assert!(load(&folder.path().join("nowhere"), Vec::new()).is_err());
}
