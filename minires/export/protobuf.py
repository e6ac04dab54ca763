"""ONNX's file format, written by hand: enough of Protocol Buffers for a graph of ops, and no package needed for it.

A message is a row of fields. A field is its number and a type in one variable-length integer, and then its value: an integer
of variable length, four bytes of a float, or a length and so many bytes (text, raw arrays, and messages inside). The numbers
of the fields are those of ``onnx.proto3`` (github.com/onnx/onnx).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = ["Graph", "Node", "model_bytes"]

OPSET, IR_VERSION = 18, 8

#: ONNX's numbers for the types of elements.
ELEMENTS = {"float32": 1, "uint8": 2, "int8": 3, "int32": 6, "int64": 7, "bool": 9, "float16": 10, "float64": 11}

#: A file of Protocol Buffers must be smaller than this.
LIMIT = 2**31

Shape = tuple[int | str, ...]


@dataclass
class Node:
    """One op of a graph.

    Attributes:
        kind: ONNX's name of the op.
        inputs: names of values; "" for one that is left out.
        outputs: names of values.
        name: unique in the graph.
        attributes: integers, floats, texts, sequences of integers, or a whole graph.
    """

    kind: str
    inputs: list[str]
    outputs: list[str]
    name: str
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass
class Graph:
    """Ops in the order of their computation.

    Attributes:
        name: what it is called.
        nodes: the ops.
        inputs: name → dtype and shape; a text in a shape names an axis of any length.
        outputs: the same.
        constants: name → array.
    """

    name: str
    nodes: list[Node] = field(default_factory=list)
    inputs: dict[str, tuple[str, Shape]] = field(default_factory=dict)
    outputs: dict[str, tuple[str, Shape]] = field(default_factory=dict)
    constants: dict[str, np.ndarray[Any, Any]] = field(default_factory=dict)


def model_bytes(graph: Graph, version: str, metadata: dict[str, str] | None = None) -> bytes:
    """The content of an ``.onnx`` file.

    Args:
        graph: what to compute.
        version: of this package, for the record.
        metadata: texts to keep in the file.

    Raises:
        ValueError: the file would be too large for the format.
    """
    size = sum(array.nbytes for array in graph.constants.values())
    if size >= LIMIT:
        raise ValueError(f"an ONNX file can hold less than {LIMIT / 2**30:.0f} GiB, this network has {size / 2**30:.1f} GiB")
    entries = [_bytes(14, _text(1, key) + _text(2, value)) for key, value in (metadata or {}).items()]
    opset = _text(1, "") + _integer(2, OPSET)
    head = _integer(1, IR_VERSION) + _text(2, "minires") + _text(3, version)
    return b"".join([head, _bytes(7, _graph(graph)), _bytes(8, opset), *entries])


# ------------------------------------------------------------------------------------ messages


def _graph(graph: Graph) -> bytes:
    parts = [_bytes(1, _node(node)) for node in graph.nodes]
    parts.append(_text(2, graph.name))
    parts += [_bytes(5, _tensor(name, array)) for name, array in graph.constants.items()]
    parts += [_bytes(11, _value(name, *kind)) for name, kind in graph.inputs.items()]
    parts += [_bytes(12, _value(name, *kind)) for name, kind in graph.outputs.items()]
    return b"".join(parts)


def _node(node: Node) -> bytes:
    parts = [_text(1, name) for name in node.inputs] + [_text(2, name) for name in node.outputs]
    parts += [_text(3, node.name), _text(4, node.kind)]
    return b"".join([*parts, *(_bytes(5, _attribute(*each)) for each in node.attributes.items())])


def _attribute(name: str, value: Any) -> bytes:
    """An attribute says in field 20 which of its fields holds the value."""
    if isinstance(value, bool | int):
        content, kind = _integer(3, int(value)), 2
    elif isinstance(value, float):
        content, kind = _key(2, 5) + struct.pack("<f", value), 1
    elif isinstance(value, str):
        content, kind = _text(4, value), 3
    elif isinstance(value, Graph):
        content, kind = _bytes(6, _graph(value)), 5
    else:
        content, kind = b"".join(_integer(8, int(each)) for each in value), 7
    return _text(1, name) + content + _integer(20, kind)


def _tensor(name: str, array: np.ndarray[Any, Any]) -> bytes:
    little = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
    sizes = b"".join(_integer(1, size) for size in array.shape)
    return sizes + _integer(2, ELEMENTS[array.dtype.name]) + _text(8, name) + _bytes(9, little.tobytes())


def _value(name: str, dtype: str, shape: Shape) -> bytes:
    sizes = (_text(2, size) if isinstance(size, str) else _integer(1, size) for size in shape)
    tensor = _integer(1, ELEMENTS[dtype]) + _bytes(2, b"".join(_bytes(1, size) for size in sizes))
    return _text(1, name) + _bytes(2, _bytes(1, tensor))


# ------------------------------------------------------------------------------------ fields


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; the eighth says that more follow. A negative number has 64 bits."""
    value &= 2**64 - 1
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*found, value))


def _key(number: int, kind: int) -> bytes:
    return _varint(number << 3 | kind)


def _integer(number: int, value: int) -> bytes:
    return _key(number, 0) + _varint(int(value))


def _bytes(number: int, value: bytes) -> bytes:
    return _key(number, 2) + _varint(len(value)) + value


def _text(number: int, value: str) -> bytes:
    return _bytes(number, value.encode())
