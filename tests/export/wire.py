"""Reads Protocol Buffers back, as far as the tests need it: so that what is written is not only checked by who wrote it."""

from __future__ import annotations

import struct
from typing import Any


def fields(data: bytes) -> list[tuple[int, Any]]:
    """The fields of a message: number and value; bytes for texts and messages."""
    found, at = [], 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value - (1 << 64) if value >= 1 << 63 else value

    while at < len(data):
        key = varint()
        if key & 7 == 0:
            found.append((key >> 3, varint()))
        elif key & 7 == 5:
            found.append((key >> 3, struct.unpack("<f", data[at : at + 4])[0]))
            at += 4
        else:
            size = varint()
            found.append((key >> 3, data[at : at + size]))
            at += size
    return found


def all_of(message: list[tuple[int, Any]], number: int) -> list[Any]:
    return [value for field, value in message if field == number]


def one(message: list[tuple[int, Any]], number: int) -> Any:
    (value,) = all_of(message, number)
    return value
