"""300 random graphs: values used often or never, broadcasting, slices, several outputs; right to second order?

Each graph is a little program that runs on arrays and on Tensors, of which some want no gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minires as mr
from minires import functional as F
from tests.functional.problem import assert_close

SHAPES = [(2, 3), (3,), (1, 3), (2, 1), (), (2, 2, 3)]

UNARY: list[Callable[..., Any]] = [
    F.sin,
    F.sigmoid,
    F.tanh,
    lambda x: F.exp(x * 0.3),
    lambda x: F.sqrt(x * x + 1.5),
    lambda x: 1.0 / (x * x + 1.0),
    lambda x: x * x,
    lambda x: x**3 * 0.1,
    lambda x: F.relu(x) + F.abs(x) * 0.5,
    lambda x: F.sum(x, -1, keepdim=True) if x.ndim else x + x,
    lambda x: F.mean(x, 0) if x.ndim else x - 0.5,
    lambda x: F.getitem(x, (..., slice(1, None))) if x.ndim and x.shape[-1] > 1 else -x,
    lambda x: F.getitem(x, np.array([0, 0, -1])) if x.ndim else x * 2,
    lambda x: F.split(x, 1, -1)[-1] if x.ndim and x.shape[-1] else x,
    lambda x: F.mul(*F.split(F.cat([x, x * x], -1), x.shape[-1], -1)) if x.ndim else x / 3.0,
    lambda x: F.permute(x, tuple(reversed(range(x.ndim)))) if x.ndim == 2 else F.flip(x, 0) if x.ndim else x,
    lambda x: F.reshape(F.expand(F.reshape(x, (1, *x.shape)), (2, *x.shape)), (-1,)) if math.prod(x.shape) < 9 else F.sum(x),
    lambda x: F.softmax(x, -1) if x.ndim else x,
]
BINARY: list[Callable[..., Any]] = [
    F.add, F.sub, F.mul, F.maximum,
    lambda a, b: a / (b * b + 1.0),
    lambda a, b: F.where(np.arange(math.prod((a + b).shape)).reshape((a + b).shape) % 3 == 0, a, b * 2.0),
    lambda a, b: F.cat([F.reshape(a, (-1,)), F.reshape(b, (-1,)), F.reshape(a * 0.5, (-1,))]),
]  # fmt: skip


class Program:
    """A random program over a few leaves, whose steps use any earlier values; runs on arrays and on Tensors."""

    def __init__(self, seed: int) -> None:
        self.rng = rng = np.random.default_rng(seed)
        self.arrays = [rng.standard_normal(SHAPES[rng.integers(len(SHAPES))]) for _ in range(rng.integers(1, 5))]
        self.wanted = [i == 0 or rng.random() < 0.7 for i in range(len(self.arrays))]
        self.steps: list[tuple[Callable[..., Any], list[int]]] = []
        values = list(self.arrays)
        for _ in range(rng.integers(5, 16)):
            function, chosen = self._step(values)
            self.steps.append((function, chosen))
            values.append(np.asarray(function(*(values[i] for i in chosen))))
        picked = {len(values) - 1, *(int(i) for i in rng.integers(len(self.arrays), len(values), 2))}
        self.outputs = sorted(picked)
        self.weights = [rng.standard_normal(values[i].shape) for i in self.outputs]

    def _step(self, values: list[Any]) -> tuple[Callable[..., Any], list[int]]:
        rng = self.rng
        first, second = (int(i) for i in rng.integers(0, len(values), 2))
        if rng.random() < 0.5:
            try:
                np.broadcast_shapes(values[first].shape, values[second].shape)
            except ValueError:
                second = first  # the same value twice
            return BINARY[rng.integers(len(BINARY))], [first, second]
        return UNARY[rng.integers(len(UNARY))], [first]

    def run(self, leaves: list[Any]) -> list[Any]:
        values = list(leaves)
        for function, chosen in self.steps:
            values.append(function(*(values[i] for i in chosen)))
        return [values[i] for i in self.outputs]

    def leaves(self, arrays: list[Any]) -> list[mr.Tensor]:
        """As Tensors, of which some require a gradient."""
        return [mr.tensor(a, requires_grad=wanted) for a, wanted in zip(arrays, self.wanted, strict=True)]

    def gradients(self, arrays: list[Any], create_graph: bool = False) -> tuple[list[mr.Tensor], list[mr.Tensor]]:
        tensors = self.leaves(arrays)
        leaves = [x for x in tensors if x.requires_grad]
        used = [(y, mr.tensor(w)) for y, w in zip(self.run(tensors), self.weights, strict=True) if y.requires_grad]
        if not used:
            return leaves, [mr.zeros_like(x) for x in leaves]
        found = mr.grad([y for y, _ in used], leaves, [w for _, w in used], create_graph=create_graph, allow_unused=True)
        return leaves, [mr.zeros_like(x) if g is None else g for x, g in zip(leaves, found, strict=True)]

    def of_leaves(self, *leaves: mr.Tensor) -> tuple[mr.Tensor, ...]:
        """The program as a function of the leaves that want a gradient."""
        return tuple(y for y in self.run(_fill(self, list(leaves))) if isinstance(y, mr.Tensor))

    def depends_on_a_leaf(self) -> bool:
        return any(isinstance(y, mr.Tensor) and y.requires_grad for y in self.run(self.leaves(self.arrays)))


@pytest.mark.parametrize("block", range(6))
def test_random_graphs_to_second_order(block):
    for seed in range(50 * block, 50 * block + 50):
        program = Program(seed)
        leaves, gradients = program.gradients(program.arrays, create_graph=True)
        plain = program.gradients(program.arrays)[1]
        for recorded, unrecorded in zip(gradients, plain, strict=True):
            assert_close(recorded.numpy(), unrecorded.numpy(), f"seed {seed}")
        if program.depends_on_a_leaf():
            for order in (1, 2):
                report = mr.gradcheck(program.of_leaves, tuple(x.numpy() for x in leaves), order=order, seed=seed, points=1)
                assert report.verdict != "wrong", f"seed {seed}: {report}"

        for x in leaves:  # and the same through backward(), in place into .grad
            x.grad = None
        outputs = program.run(_fill(program, leaves))
        for y, w in zip(outputs, program.weights, strict=True):
            if isinstance(y, mr.Tensor) and y.requires_grad:
                y.backward(w, retain_graph=True)
        for x, g in zip(leaves, plain, strict=True):
            assert_close(np.zeros(x.shape) if x.grad is None else x.grad.numpy(), g.numpy(), f"seed {seed}")


def _fill(program: Program, leaves: list[mr.Tensor]) -> list[Any]:
    """The leaves, with raw arrays for those that want no gradient."""
    wanted = iter(leaves)
    return [next(wanted) if want else a for a, want in zip(program.arrays, program.wanted, strict=True)]
