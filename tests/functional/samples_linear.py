"""Sample inputs for matrix products. The references are loops over every index."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

from minires import functional as F
from minires.errors import ShapeError
from tests.functional.sample import BadCall, Sample

Shape = tuple[int, ...]


def matmul_loops(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Each element of the result is a sum over k."""
    rows = a if a.ndim > 1 else a[None]
    columns = b if b.ndim > 1 else b[:, None]
    batch = np.broadcast_shapes(rows.shape[:-2], columns.shape[:-2])
    rows, columns = np.broadcast_to(rows, batch + rows.shape[-2:]), np.broadcast_to(columns, batch + columns.shape[-2:])
    out = np.zeros((*batch, rows.shape[-2], columns.shape[-1]))
    for index in np.ndindex(out.shape):
        *n, i, j = index
        out[index] = sum(rows[(*n, i, k)] * columns[(*n, k, j)] for k in range(rows.shape[-1]))
    out = out if a.ndim > 1 else out[..., 0, :]
    return out if b.ndim > 1 else out[..., 0]


def linear_loops(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
    out = np.zeros((*x.shape[:-1], weight.shape[0]))
    for index in np.ndindex(out.shape):
        *n, o = index
        out[index] = sum(x[(*n, i)] * weight[o, i] for i in range(weight.shape[1])) + (0 if bias is None else bias[o])
    return out


def bilinear_loops(x1: np.ndarray, x2: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
    out = np.zeros((*x1.shape[:-1], weight.shape[0]))
    for index in np.ndindex(out.shape):
        *n, o = index
        terms = (x1[(*n, i)] * weight[o, i, j] * x2[(*n, j)] for i, j in product(*map(range, weight.shape[1:])))
        out[index] = sum(terms) + (0 if bias is None else bias[o])
    return out


def einsum_loops(equation: str, *operands: np.ndarray) -> np.ndarray:
    """Runs through all values of all letters. Needs ``->`` and no ``...``."""
    left, output = equation.split("->")
    terms = left.split(",")
    sizes: dict[str, int] = {}
    for term, x in zip(terms, operands, strict=True):
        for letter, n in zip(term, x.shape, strict=True):
            sizes[letter] = max(n, sizes.get(letter, 1))
    out = np.zeros([sizes[c] for c in output])
    for values in product(*map(range, sizes.values())):
        at = dict(zip(sizes, values, strict=True))
        factors = [
            x[tuple(at[c] if n > 1 else 0 for c, n in zip(t, x.shape, strict=True))]
            for t, x in zip(terms, operands, strict=True)
        ]
        out[tuple(at[c] for c in output)] += np.prod(factors)
    return out


def _normal(name: str, function: Any, reference: Any, *shapes: Shape, before: tuple[Any, ...] = ()) -> Sample:
    return Sample(name, function, lambda rng: ((*before, *(rng.standard_normal(s) for s in shapes)), {}), reference)


def _einsum(equation: str, *shapes: Shape, loops: bool = True) -> Sample:
    name = "einsum-" + equation.replace(" ", "").replace("->", "-to-")
    return _normal(name, F.einsum, einsum_loops if loops else np.einsum, *shapes, before=(equation,))


SAMPLES = [
    _normal("matmul", F.matmul, matmul_loops, (2, 3), (3, 4)),
    _normal("matmul-square", F.matmul, matmul_loops, (3, 3), (3, 3)),
    _normal("matmul-dot", F.matmul, matmul_loops, (3,), (3,)),
    _normal("matmul-row", F.matmul, matmul_loops, (3,), (3, 4)),
    _normal("matmul-column", F.matmul, matmul_loops, (2, 3), (3,)),
    _normal("matmul-batch", F.matmul, matmul_loops, (2, 3, 4), (2, 4, 5)),
    _normal("matmul-batch-matrix", F.matmul, matmul_loops, (2, 3, 4), (4, 5)),
    _normal("matmul-matrix-batch", F.matmul, matmul_loops, (3, 4), (2, 4, 5)),
    _normal("matmul-broadcast", F.matmul, matmul_loops, (2, 1, 3, 2), (3, 2, 4)),
    _normal("matmul-batch-column", F.matmul, matmul_loops, (2, 3, 4), (4,)),
    _normal("matmul-row-batch", F.matmul, matmul_loops, (3,), (2, 3, 4)),
    _normal("matmul-one-of-each", F.matmul, matmul_loops, (1, 1), (1, 1)),
    _normal("linear", F.linear, linear_loops, (2, 3), (4, 3), (4,)),
    _normal("linear-no-bias", F.linear, linear_loops, (2, 3), (4, 3)),
    _normal("linear-one-row", F.linear, linear_loops, (3,), (4, 3), (4,)),
    _normal("linear-sequence", F.linear, linear_loops, (2, 5, 3), (4, 3), (4,)),
    _normal("linear-square", F.linear, linear_loops, (3, 3), (3, 3), (3,)),
    _normal("bilinear", F.bilinear, bilinear_loops, (2, 3), (2, 4), (5, 3, 4), (5,)),
    _normal("bilinear-no-bias", F.bilinear, bilinear_loops, (2, 3, 2), (2, 3, 4), (3, 2, 4)),
    _einsum("ij,jk->ik", (2, 3), (3, 4)),
    _einsum("ij,kj->ki", (2, 3), (4, 3)),
    _einsum("bij,bjk,k->bi", (2, 3, 4), (2, 4, 5), (5,)),
    _einsum("nchw,oc->nohw", (2, 3, 2, 2), (4, 3)),
    _einsum("i,j->ij", (3,), (4,)),
    _einsum("ij->ji", (2, 3)),
    _einsum("ij->", (2, 3)),
    _einsum("ij->i", (2, 3)),
    _einsum("ii->i", (3, 3)),
    _einsum("ii->", (3, 3)),
    _einsum("iij->ij", (3, 3, 2)),
    _einsum("BAA->AB", (2, 3, 3)),
    _einsum("iii,ij->j", (3, 3, 3), (3, 2)),
    _einsum("ij,kl->il", (2, 3), (4, 2)),
    _einsum("ij,j->i", (2, 3), (1,)),
    _einsum("ij,ij->ij", (1, 3), (2, 1)),
    _einsum("ij, jk", (2, 3), (3, 4), loops=False),
    _einsum("ba", (2, 3), loops=False),
    _einsum("...ij,...jk->...ik", (2, 3, 4), (4, 2), loops=False),
    _einsum("...i->...", (2, 3, 4), loops=False),
    _einsum("i...,...j", (2, 3), (3, 4), loops=False),
    Sample(
        "einsum-same-twice",
        lambda x: F.einsum("ij,ij->i", x, x),
        lambda rng: ((rng.standard_normal((3, 4)),), {}),
        lambda x: (x * x).sum(1),
        lambda torch, x: torch.einsum("ij,ij->i", x, x),
    ),
    Sample(
        "einsum-list",
        F.einsum,
        lambda rng: (("ij,j->i", [rng.standard_normal((2, 3)), rng.standard_normal(3)]), {}),
        lambda equation, operands: einsum_loops(equation, *operands),
    ),
]


def _z(*shape: int) -> np.ndarray:
    return np.zeros(shape)


BAD_CALLS = [
    BadCall("matmul-inner", lambda: F.matmul(_z(2, 3), _z(4, 5)), r"matmul: .*\n.*\(M=2, K=3\)\n.*\(K=4, N=5\)", ShapeError),
    BadCall(
        "matmul-batch", lambda: F.matmul(_z(2, 2, 3), _z(3, 3, 2)), r"matmul: the axes before.*\n.*\(2, 2, 3\)", ShapeError
    ),
    BadCall("matmul-number", lambda: F.matmul(_z(), _z(3)), "matmul: ", ShapeError),
    BadCall(
        "linear-features", lambda: F.linear(_z(2, 3), _z(5, 4)), r"linear: .*\n.*\(N=2, I=3\)\n.*\(O=5, I=4\)", ShapeError
    ),
    BadCall(
        "linear-bias", lambda: F.linear(_z(2, 3), _z(5, 3), _z(3)), r"linear: bias .*\n.*\(O=3\)\n.*\(O=5, I=3\)", ShapeError
    ),
    BadCall(
        "bilinear-features", lambda: F.bilinear(_z(2, 3), _z(2, 4), _z(5, 4, 3)), r"bilinear: (.|\n)*O=5, I=4", ShapeError
    ),
    BadCall(
        "einsum-sizes",
        lambda: F.einsum("ij,jk->ik", _z(2, 3), _z(4, 5)),
        r"einsum: 'j' in .* 3 and 4\n.*i=2, j=3",
        ShapeError,
    ),
    BadCall("einsum-axes", lambda: F.einsum("ijk->i", _z(2, 3)), r"einsum: 'ijk' in .* name the axes", ShapeError),
    BadCall("einsum-count", lambda: F.einsum("ij,jk->ik", _z(2, 3)), "einsum: .* names 2 operands, got 1"),
    BadCall("einsum-output", lambda: F.einsum("ij->ik", _z(2, 3)), "einsum: the output of"),
    BadCall("einsum-letters", lambda: F.einsum("i1->i", _z(2, 3)), "einsum: .* may hold only letters"),
]
