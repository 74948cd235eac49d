"""Makes the goldens of tests/explain with PyTorch's autograd.

Needs what zoo.py needs:

    python3 tests/reference/explain.py [network …]

The networks and their seeded weights are zoo.py's. The rule at a rectifier is that of a function whose backward step is replaced; all
else is autograd's own. A picture of noise is searched for which FP32, FP64 and FP64 with a millionth of noise on the input agree: where
they don't, a rectifier or a maximum lies so near to a tie that rounding decides it, and two right implementations may differ by as
much as they like. From the class scores of the deep networks, millions of rectifiers lie on the way through a picture of 224x224, and one
of them is near a tie in any; their pictures are smaller there, the networks the same.

A golden maps each method to the picture and its size, to the unit that was projected, or the class, and to values of the result by index:
some at regular distances and the largest. A class activation map is there as a whole.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
import zoo
from torch.nn import functional as F

FIXTURES = Path(__file__).parent.parent / "fixtures" / "explain"
MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32).reshape(3, 1, 1)
STD = np.array([0.229, 0.224, 0.225], dtype=np.float32).reshape(3, 1, 1)
RULE = "gradient"
RECTIFIED = []
# How far the runs may be from each other, as a share of the largest value.
STEADY = 4e-6


class Rectifier(torch.autograd.Function):
    @staticmethod
    def forward(context, x):
        y = x.clamp(min=0)
        context.save_for_backward(y)
        return y

    @staticmethod
    def backward(context, arrived):
        (y,) = context.saved_tensors
        if RULE == "deconvnet":
            return arrived.clamp(min=0)
        if RULE == "guided":
            arrived = arrived.clamp(min=0)
        return arrived * (y > 0)


def rectify(x, inplace=False):
    RECTIFIED.append(Rectifier.apply(x))
    return RECTIFIED[-1]


F.relu = torch.relu = torch.Tensor.relu = rectify


def picture(index, size):
    """Noise of bytes, [3, size, size]; the test draws the same."""
    z = zoo.normal(zoo.SEED, f"picture {index}", 3 * size * size)
    return np.clip(np.floor(z * 40 + 128), 0, 255).astype(np.uint8).reshape(3, size, size)


# For each network: the size of its input, the layer as tests/explain calls it, and how to find it here, as the number of a
# rectifier or the name of a module; then whether its head is linear.
NETWORKS = {
    "alexnet": (224, "features.10.relu", 4, False),
    "zfnet512": (224, "conv5.relu", 4, False),
    "vgg11": (224, "features.19", 7, False),
    "nin": (224, "cccp8-1024.relu", -1, True),
    "googlenet": (224, "inception4a", "inception4a", True),
    "resnet18": (224, "layer2.1", 8, True),
    "mixed": (32, "lrn", "lrn", True),
}
# The size of the pictures whose class scores are taken back, where it is not the network's own.
DEEP = {"googlenet": 64, "resnet18": 64}
CLASS_METHODS = ["class_deconvnet", "class_guided", "class_gradient"]
LAST_MAPS = {"googlenet": "inception5b", "resnet18": -1, "mixed": "lrn"}


def run(network, x, precision, layer, last):
    global RULE
    network = network.to(precision).eval()
    x = torch.from_numpy(x).to(precision)[None].requires_grad_()
    named = {}
    hooks = [module.register_forward_hook(lambda _m, _i, output, name=name: named.__setitem__(name.removeprefix("network."), output)) for name, module in network.named_modules()]
    RECTIFIED.clear()
    logits = network(x)
    logits = logits["logits"] if isinstance(logits, dict) else logits
    for hook in hooks:
        hook.remove()
    find = lambda place: named[place] if isinstance(place, str) else RECTIFIED[place]
    target, maps = find(layer), find(last)
    results = {}
    unit = int(target[0].flatten(1).max(1).values.argmax())
    place = int(target[0, unit].argmax())
    for rule in ["deconvnet", "guided", "gradient"]:
        RULE = rule
        (back,) = torch.autograd.grad(target[0, unit].flatten()[place], x, retain_graph=True)
        results[rule] = {"unit": [unit, *divmod(place, target.shape[3])], "activation": target[0, unit].max().item(), "values": back.numpy().ravel()}
    RULE = "gradient"
    index = int(logits[0].argmax())
    for rule in ["deconvnet", "guided", "gradient"]:
        RULE = rule
        (back,) = torch.autograd.grad(logits[0].flatten()[index], x, retain_graph=True)
        results[f"class_{rule}"] = {"unit": [index, 0, 0], "activation": logits[0].max().item(), "values": back.numpy().ravel()}
    RULE = "gradient"
    (back,) = torch.autograd.grad(logits[0].flatten()[index], maps, retain_graph=True)
    maps = maps.detach()
    results["cam"] = {"class": index, "values": (back.sum((2, 3), keepdim=True) * maps).sum(1).numpy().ravel()}
    results["gradcam"] = {"class": index, "values": (back.mean((2, 3), keepdim=True) * maps).sum(1).clamp(min=0).numpy().ravel()}
    return results


def distance(result, other):
    scale = np.abs(result["values"]).max()
    same = all(other.get(key) == result.get(key) for key in ("unit", "class"))
    return np.abs(other["values"] - result["values"]).max() / scale if same and scale > 0 else 9.0


def search(name, network, size, methods):
    """For each of these methods, the first picture of this size in which rounding decides nothing, with what is right for it."""
    _, _, layer, _ = NETWORKS[name]
    last = LAST_MAPS.get(name, layer)
    steady = {}
    for index in range(100):
        x = ((picture(index, size).astype(np.float32) / np.float32(255)) - MEAN) / STD
        shaken = x * (1 + 1e-6 * zoo.normal(zoo.SEED, "noise", x.size).reshape(x.shape))
        double = run(network, x, torch.float64, layer, last)
        others = [run(network, x, torch.float32, layer, last), run(network, shaken, torch.float64, layer, last)]
        distances = {method: max(distance(double[method], other[method]) for other in others) for method in methods}
        print(name, size, index, {method: f"{far:.1e}" for method, far in distances.items()}, flush=True)
        for method, far in distances.items():
            if far <= STEADY and method not in steady:
                steady[method] = {"picture": index, "size": size, **double[method]}
        if len(steady) == len(methods):
            break
    return steady


def write_golden(name):
    size, label, _, linear = NETWORKS[name]
    network = next(make for other, _, make in zoo.NETWORKS if other == name)()
    of_layers = ["deconvnet", "guided", "gradient", *(["cam"] if linear else []), "gradcam"]
    if name in DEEP:
        steady = search(name, network, size, of_layers) | search(name, network, DEEP[name], CLASS_METHODS)
    else:
        steady = search(name, network, size, of_layers + CLASS_METHODS)
    golden = {"layer": label, "methods": {}}
    for method, result in steady.items():
        values = result.pop("values")
        golden["methods"][method] = {**result, "count": len(values)}
        picked = np.arange(len(values))
        if len(values) > 400:
            picked = np.union1d(picked[:: len(values) // 150], np.argsort(-np.abs(values))[:50])
        golden["methods"][method]["values"] = {int(at): float(f"{values[at]:.9g}") for at in picked}
    FIXTURES.mkdir(parents=True, exist_ok=True)
    (FIXTURES / f"{name}.json").write_text(json.dumps(golden, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    with np.errstate(over="ignore"):
        for name in sys.argv[1:] or NETWORKS:
            write_golden(name)
