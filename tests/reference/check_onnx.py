"""Checks what `convoy export` writes, and what `convoy describe` says, with the onnx package.

    python3 tests/reference/check_onnx.py target/debug/convoy [ARCHITECTURE ...]

tests/clients.rs runs it. Every architecture (or those that are named) is exported with seeded weights and must pass onnx's checker
with full, strict shape inference: as served and with its side branches; one of each family also with its batch norms, and with the
oldest and the newest operators. The shapes that `convoy describe` infers must be those that onnx infers, for these models and for
the light models in the onnx package, which other exporters wrote.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import onnx

# One of each family, with what it is also written with beside the defaults.
OPSETS = [["--opset", "11"], ["--opset", "21"]]
FAMILIES = {
    "nin": OPSETS,
    "vgg11_bn": [["--keep-batch-norm"]],
    "bvlc_googlenet": OPSETS,
    "googlenet": [["--keep-batch-norm"], ["--aux", "--keep-batch-norm"], *OPSETS],
    "inception_v3": [["--keep-batch-norm"]],
    "resnet18": [["--keep-batch-norm"], *OPSETS],
    "resnext50_32x4d": [["--keep-batch-norm"]],
    "wide_resnet50_2": [["--keep-batch-norm"]],
    "squeezenet1_1": OPSETS,
    "efficientnet-lite0": [["--keep-batch-norm"], *OPSETS],
}


def convoy(program, *arguments):
    return subprocess.run([program, *arguments], check=True, capture_output=True, text=True).stdout


def check_shapes(program, path):
    """Compares the shapes of all layers, and returns how many there are."""
    description = json.loads(convoy(program, "describe", str(path), "--json"))
    assert "not_inferred" not in description, description["not_inferred"]
    model = onnx.load(path)
    del model.graph.value_info[:]
    for tensor in model.graph.initializer:
        # Shape inference needs the elements of small tensors only, and a protobuf must stay below 2 GiB.
        if len(tensor.raw_data) > 4096:
            tensor.ClearField("raw_data")
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    inferred = {value.name: value.type.tensor_type.shape.dim for value in [*graph.value_info, *graph.output]}
    outputs = {node.name or node.output[0]: node.output[0] for node in graph.node}
    for layer in description["layers"]:
        expected = [size.dim_value for size in inferred[outputs[layer["name"]]]][1:]
        assert layer["output_shape"] == expected, f"{layer} should have the shape {expected}"
    return len(description["layers"])


def check_export(program, architecture, options):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "1" / "model.onnx"
        convoy(program, "export", architecture, "--weights", "random:1", "--output", str(path), *options)
        onnx.checker.check_model(path, full_check=True)
        layers = check_shapes(program, path)
    print(architecture, *options, f"({layers} layers)", flush=True)


def main(program, names):
    architectures = json.loads(convoy(program, "list", "--json"))
    assert set(FAMILIES) <= {architecture["name"] for architecture in architectures}
    assert any(architecture["side_branches"] for architecture in architectures)
    for architecture in architectures:
        name = architecture["name"]
        if names and name not in names:
            continue
        aux = [["--aux"]] if architecture["side_branches"] else []
        for options in [[], *aux, *FAMILIES.get(name, [])]:
            check_export(program, name, options)
    if not names:
        for path in sorted((Path(onnx.__file__).parent / "backend/test/data/light").glob("light_*.onnx")):
            print(path.stem, f"({check_shapes(program, path)} layers)", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
