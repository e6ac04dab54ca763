"""Sample inputs for the gated recurrent unit. The reference is its formulas, one number after the other."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from minires import functional as F
from minires.errors import ShapeError
from tests.functional.sample import BadCall, Sample


def _logistic(v: float) -> float:
    return 1 / (1 + math.exp(-v))


def _cell(x: np.ndarray, h: np.ndarray, w: np.ndarray, u: np.ndarray, b: Any = None, c: Any = None) -> np.ndarray:
    """One sequence, one step: x (I,), h (H,)."""
    size = len(h)
    a = [sum(w[i, k] * x[k] for k in range(len(x))) + (0 if b is None else b[i]) for i in range(3 * size)]
    s = [sum(u[i, k] * h[k] for k in range(size)) + (0 if c is None else c[i]) for i in range(3 * size)]
    out = []
    for i in range(size):
        r, z = _logistic(a[i] + s[i]), _logistic(a[size + i] + s[size + i])
        n = math.tanh(a[2 * size + i] + r * s[2 * size + i])
        out.append((1 - z) * n + z * h[i])
    return np.array(out)


def _cells(x: np.ndarray, h: np.ndarray, *weights: Any) -> np.ndarray:
    return np.array([_cell(*row, *weights) for row in zip(x, h, strict=True)])


def _gru(
    x: Any, hx: Any, params: Any, has_biases: bool, num_layers: int, dropout: float, train: bool, bidirectional: bool,
    batch_first: bool, lengths: Any = None,
) -> Any:  # fmt: skip
    sequences = list(x if batch_first else x.swapaxes(0, 1))  # (T, I) each
    each, directions = (4 if has_biases else 2), (2 if bidirectional else 1)
    finals = np.array(hx)
    steps = len(sequences[0])
    for n, sequence in enumerate(sequences):
        real = steps if lengths is None else int(lengths[n])
        for layer in range(num_layers):
            outputs = []
            for k in range(layer * directions, (layer + 1) * directions):
                h, weights = hx[k, n], params[k * each : (k + 1) * each]
                states = np.zeros((steps, hx.shape[2]))
                for t in range(real - 1, -1, -1) if k % directions else range(real):
                    h = states[t] = _cell(sequence[t], h, *weights)
                finals[k, n] = h
                outputs.append(states)
            sequence = np.concatenate(outputs, 1)
        sequences[n] = sequence
    return np.stack(sequences, 0 if batch_first else 1), finals


def _torch_gru(
    torch: Any, x: Any, hx: Any, params: Any, has_biases: bool, num_layers: int, dropout: float, train: bool,
    bidirectional: bool, batch_first: bool, lengths: Any = None,
) -> Any:  # fmt: skip
    rest = has_biases, num_layers, dropout, train, bidirectional
    if lengths is None:
        return torch.gru(x, hx, list(params), *rest, batch_first)
    rnn = torch.nn.utils.rnn
    packed = rnn.pack_padded_sequence(x, lengths, batch_first, enforce_sorted=False)
    data, finals = torch.gru(packed.data, packed.batch_sizes, hx[:, packed.sorted_indices], list(params), *rest)
    packed = rnn.PackedSequence(data, packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices)
    steps = x.shape[1 if batch_first else 0]
    return rnn.pad_packed_sequence(packed, batch_first, total_length=steps)[0], finals[:, packed.unsorted_indices]


def _one_step(batch: int, inputs: int, size: int, bias: bool = True) -> Callable[[np.random.Generator], Any]:
    def make(rng: np.random.Generator) -> Any:
        biases = [rng.standard_normal(3 * size) for _ in range(2)] if bias else []
        x, h = rng.standard_normal((batch, inputs)), rng.standard_normal((batch, size))
        return (x, h, rng.standard_normal((3 * size, inputs)), rng.standard_normal((3 * size, size)), *biases), {}

    return make


def _sequences(
    steps: int, batch: int, inputs: int, size: int, layers: int = 1, both: bool = False, bias: bool = True,
    batch_first: bool = False, lengths: Any = None,
) -> Callable[[np.random.Generator], Any]:  # fmt: skip
    def make(rng: np.random.Generator) -> Any:
        directions = 2 if both else 1
        params = []
        for layer in range(layers):
            width = directions * size if layer else inputs
            for _ in range(directions):
                params += [rng.standard_normal((3 * size, width)), rng.standard_normal((3 * size, size))]
                params += [rng.standard_normal(3 * size) for _ in range(2)] if bias else []
        x = rng.standard_normal((batch, steps, inputs) if batch_first else (steps, batch, inputs))
        hx = rng.standard_normal((layers * directions, batch, size))
        options = {} if lengths is None else {"lengths": np.array(lengths)}
        return (x, hx, params, bias, layers, 0.0, True, both, batch_first), options

    return make


def _sample(name: str, *sizes: int, second: bool = False, **options: Any) -> Sample:
    """A second derivative takes seconds here, and differentiates the definitions only: so a few samples have it."""
    return Sample(name, F.gru, _sequences(*sizes, **options), _gru, _torch_gru, second=second)


SAMPLES = [
    Sample("gru_cell", F.gru_cell, _one_step(3, 2, 4), _cells, second=False),
    Sample("gru_cell-square", F.gru_cell, _one_step(2, 2, 2), _cells),
    Sample("gru_cell-no-bias", F.gru_cell, _one_step(1, 3, 2, bias=False), _cells, second=False),
    Sample("gru_cell-saturated", F.gru_cell,
           lambda rng: (tuple(1000 * v for v in _one_step(2, 3, 2)(rng)[0]), {}), None, second=False, smooth=False),
    _sample("gru", 3, 2, 4, 2),
    _sample("gru-square", 2, 2, 2, 2, bias=False),
    _sample("gru-one-step", 1, 2, 1, 1, second=True),
    _sample("gru-batch-first", 2, 3, 1, 2, batch_first=True),
    _sample("gru-no-bias", 3, 1, 2, 2, bias=False),
    _sample("gru-both-directions", 3, 2, 1, 2, both=True),
    _sample("gru-two-layers", 2, 1, 3, 2, layers=2),
    _sample("gru-lengths", 4, 3, 2, 1, lengths=[2, 4, 1]),
    _sample("gru-lengths-all-shorter", 4, 2, 1, 2, lengths=[3, 2]),
    _sample("gru-lengths-both-directions", 3, 2, 2, 1, both=True, lengths=[3, 1], batch_first=True),
    _sample("gru-lengths-small", 2, 2, 1, 1, lengths=[1, 2], bias=False, second=True),
    _sample("gru-lengths-two-layers-both-directions", 2, 2, 1, 1, layers=2, both=True, lengths=[1, 2]),
]  # fmt: skip


_x, _h, _w, _u = np.zeros((3, 2)), np.zeros((3, 4)), np.zeros((12, 2)), np.zeros((12, 4))
_xs, _hs = np.zeros((5, 3, 2)), np.zeros((1, 3, 4))


def _call(x: Any = _xs, hx: Any = _hs, params: Any = (_w, _u), lengths: Any = None) -> Callable[[], Any]:
    return lambda: F.gru(x, hx, params, False, 1, 0.0, True, False, False, lengths)


BAD_CALLS = [
    BadCall("gru_cell-rows", lambda: F.gru_cell(_x[:2], _h, _w, _u), r"one row for each sequence\n  input \(N=2, I=2\)",
            ShapeError),
    BadCall("gru_cell-weights", lambda: F.gru_cell(_x, _h, _w, _w), r"12 rows, and w_hh 4 columns", ShapeError),
    BadCall("gru_cell-inputs", lambda: F.gru_cell(_h, _h, _w, _u), "as many features as weight takes", ShapeError),
    BadCall("gru-axes", _call(_x), "three axes, none of size 0", ShapeError),
    BadCall("gru-no-steps", _call(_xs[:0]), "none of size 0", ShapeError),
    BadCall("gru-states", _call(hx=_hs[:, :2]), r"each of 1 directions of layers and each of 3 sequences", ShapeError),
    BadCall("gru-params", _call(params=(_w,)), "expected 2 weights for each direction of each layer, 2, got 1"),
    BadCall("gru-weights", _call(params=(_w, _w)), "gru: for a state of 4", ShapeError),
    BadCall("gru-lengths-count", _call(lengths=[1, 2]), "lengths as 3 whole numbers"),
    BadCall("gru-lengths-floats", _call(lengths=[1.0, 2.0, 3.0]), "whole numbers"),
    BadCall("gru-lengths-range", _call(lengths=[1, 6, 3]), "from 1 to 5, got 1 to 6"),
    BadCall("gru-lengths-zero", _call(lengths=[1, 0, 3]), "from 1 to 5, got 0 to 3"),
]  # fmt: skip
