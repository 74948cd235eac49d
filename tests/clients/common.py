"""What the tests of the real clients share.

Each file is a program: `python FILE HTTP_ADDRESS GRPC_ADDRESS MODEL_FILE`. tests/clients.rs starts the server, with the models
`means` ([N, 3, 8, 8] to the mean of each channel, labels red, green, blue), `spare` (the same without labels, in batches of two;
its file is MODEL_FILE), `filters` (a convolution with three filters) and `held` (which holds a single request back for an hour and
runs two at once), and runs them.
"""

import struct
import sys
import unittest
import zlib

import numpy as np

HTTP, GRPC, MODEL_FILE = sys.argv[1:4]

# Two pictures as a tensor, and what the model must make of it.
TENSOR = np.random.default_rng(7).normal(size=(2, 3, 8, 8)).astype(np.float32)
MEANS = TENSOR.mean(axis=(2, 3), dtype=np.float64)

PICTURES = [(255, 51, 0), (0, 102, 255)]
# The recipe of the model leaves a colour over 255.
PICTURE_MEANS = np.array(PICTURES) / 255


def png(colour):
    """A PNG file of 8x8 pixels of one colour."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + bytes(colour) * 8) * 8
    header = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def pictures():
    """The pictures as the clients take byte strings."""
    return np.array([png(colour) for colour in PICTURES], dtype=np.object_)


def assert_means(values, expected=MEANS):
    np.testing.assert_allclose(values, expected, rtol=0, atol=1e-6)


def expected_classes(count):
    """The classification of `MEANS`: value, index and label of the `count` highest of each row."""
    rows = []
    for row in MEANS:
        order = np.argsort(-row)[:count]
        rows.append([(row[index], int(index), ["red", "green", "blue"][index]) for index in order])
    return rows


def assert_classes(elements, count):
    """Checks byte strings of the form value:index:label against `MEANS`."""
    for row, expected_row in zip(elements, expected_classes(count), strict=True):
        for element, (value, index, label) in zip(row, expected_row, strict=True):
            said = element.decode().split(":")
            assert (int(said[1]), said[2]) == (index, label), element
            assert abs(float(said[0]) - value) < 2e-6, element


def served_file(channel, symbol):
    """The description of the file that defines `symbol`, as the server's reflection gives it."""
    from google.protobuf import descriptor_pool
    from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

    database = ProtoReflectionDescriptorDatabase(channel)
    # A pool of its own: the clients' descriptions of the same names are in the default one.
    return descriptor_pool.DescriptorPool(database).FindFileContainingSymbol(symbol)


def _field(field):
    return (field.number, field.type, field.is_repeated, field.containing_oneof and field.containing_oneof.name)


def compare_messages(part, whole, path="", ignored=()):
    """Checks that every message and field of `part` is in `whole`, under the same number and of the same type."""
    for name, message in part.items():
        where = f"{path}.{name}"
        assert name in whole, f"{where} is missing"
        other = whole[name]
        for field in message.fields:
            if f"{where}.{field.name}" in ignored:
                continue
            assert field.name in other.fields_by_name, f"{where}.{field.name} is missing"
            assert _field(field) == _field(other.fields_by_name[field.name]), f"{where}.{field.name}"
        for enum in message.enum_types:
            compare_enum(enum, other.enum_types_by_name[enum.name])
        compare_messages(message.nested_types_by_name, other.nested_types_by_name, where, ignored)


def compare_enum(part, whole):
    for value in part.values:
        assert whole.values_by_name[value.name].number == value.number, value.name


def compare_service(part, whole):
    for name, method in part.methods_by_name.items():
        other = whole.methods_by_name[name]
        for one, two in [(method.input_type, other.input_type), (method.output_type, other.output_type)]:
            assert one.full_name == two.full_name, name
        assert method.client_streaming == other.client_streaming, name
        assert method.server_streaming == other.server_streaming, name


def main():
    unittest.main(argv=[sys.argv[0]], verbosity=2)
