"""The sizes of a convolution, in one value: its three kernels and all the ways to compute them share these."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["Geometry"]

Pair = tuple[int, int]


@dataclass(frozen=True)
class Geometry:
    """The sizes of a convolution. ``before`` is the padding at the top and on the left; pairs are (vertical, horizontal).

    Named as for the forward convolution: ``channels`` and ``in_size`` are its input's, ``outputs`` and ``out_size`` its
    output's.
    """

    count: int
    channels: int
    outputs: int
    kernel: Pair
    stride: Pair
    before: Pair
    dilation: Pair
    groups: int
    in_size: Pair
    out_size: Pair

    @property
    def group_channels(self) -> int:
        """Input channels of a group."""
        return self.channels // self.groups

    @property
    def terms(self) -> int:
        """How many products a value of the output sums up: kH·kW·C/groups."""
        return self.kernel[0] * self.kernel[1] * self.group_channels

    @property
    def out_rows(self) -> int:
        """Pixels of all outputs together: N·H'·W'."""
        return self.count * math.prod(self.out_size)

    @property
    def is_pointwise(self) -> bool:
        """Whether every window is one pixel of the input."""
        inside = all((o - 1) * s < i for o, s, i in zip(self.out_size, self.stride, self.in_size, strict=True))
        return self.kernel == (1, 1) and self.before == (0, 0) and inside

    @property
    def is_dense(self) -> bool:
        """Whether, moreover, window number i is pixel number i."""
        return self.is_pointwise and self.stride == (1, 1) and self.in_size == self.out_size

    def macros(self) -> dict[str, int]:
        """What conv.cu and depthwise.cu are compiled for."""
        names = ("KH", "KW", "SY", "SX", "DY", "DX")
        return dict(zip(names, (*self.kernel, *self.stride, *self.dilation), strict=True))
