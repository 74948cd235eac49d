"""Checks what `convoy export` writes, and what `convoy describe` says, with the onnx package (1.23.2 when this was written).

    python3 tests/reference/check_onnx.py target/debug/convoy [ARCHITECTURE ...]

Every architecture (or those that are named) is exported with seeded weights and must pass onnx's checker with full, strict shape
inference: as served, with its side branches, with its batch norms, and with the oldest and the newest operators. The shapes that
`convoy describe` infers must be those that onnx infers, for these models and for the light models in the onnx package, which
other exporters wrote.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import onnx

# Beside the defaults, for the networks that have what the option is about.
OPTIONS = [["--aux"], ["--keep-batch-norm"], ["--opset", "11"], ["--opset", "21"]]
# Those whose export takes long are checked as they are served, and otherwise through their smaller relatives.
LARGE_PARAMETERS = 30_000_000


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
    for architecture in architectures:
        name = architecture["name"]
        if names and name not in names:
            continue
        check_export(program, name, [])
        for options in OPTIONS:
            if options == ["--aux"] and not architecture["side_branches"]:
                continue
            if architecture["parameters"] <= LARGE_PARAMETERS:
                check_export(program, name, options)
    if not names:
        for path in sorted((Path(onnx.__file__).parent / "backend/test/data/light").glob("light_*.onnx")):
            print(path.stem, f"({check_shapes(program, path)} layers)", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
