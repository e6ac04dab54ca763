"""The gated recurrent unit (Cho et al., EMNLP 2014), a network that reads one vector after the other and remembers.

A state h goes from step to step. What is new at a step, n, is mixed into it by an update gate z, and a reset gate r decides
how much of the old state the new part may see (the names and the place of r are those of PyTorch and cuDNN)::

    r = σ(x·W_irᵀ + b_ir + h·W_hrᵀ + b_hr)
    z = σ(x·W_izᵀ + b_iz + h·W_hzᵀ + b_hz)
    n = tanh(x·W_inᵀ + b_in + r·(h·W_hnᵀ + b_hn))
    h' = (1 - z)·n + z·h

The three products with x are one, of a weight (3H, I), and so are those with h. Only the latter have to wait for the step
before: x is known for all steps, so its product is made for the whole sequence at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minires.device import Array, array_module, to_device
from minires.errors import ShapeError
from minires.functional.activation import sigmoid, tanh
from minires.functional.arithmetic import where
from minires.functional.linear import linear, matmul
from minires.functional.sequence import dropout as drop
from minires.functional.shaping import cat, split, stack, transpose
from minires.op import Saved, op
from minires.operators import raw
from minires.tensor import Tensor

__all__ = ["gru", "gru_cell", "lengths_to_mask"]


# ------------------------------------------------------------------------------------ one step


def gru_cell(
    input: Array, hx: Array, w_ih: Array, w_hh: Array, b_ih: Array | None = None, b_hh: Array | None = None
) -> Tensor:
    """One step of a gated recurrent unit; the formulas are in the head of this module.

    Args:
        input: (N, I).
        hx: the state before, (N, H).
        w_ih: W_ir, W_iz and W_in below each other, (3·H, I).
        w_hh: W_hr, W_hz and W_hn below each other, (3·H, H).
        b_ih: (3·H), or None.
        b_hh: (3·H), or None.

    Returns:
        The state after, (N, H).

    Raises:
        ShapeError: the shapes do not fit together.
    """
    _check_weights("gru_cell", hx.shape[-1] if hx.ndim else 0, w_ih, w_hh)
    if input.ndim != 2 or hx.ndim != 2 or input.shape[0] != hx.shape[0]:
        rule = "input and state must be matrices with one row for each sequence"
        raise ShapeError("gru_cell", rule, input=(input.shape, "N I"), hx=(hx.shape, "N H"))
    return gru_gates(linear(input, w_ih, b_ih), linear(hx, w_hh, b_hh), hx)


@op
def gru_gates(input: Array, hidden: Array, hx: Array) -> Array:
    """What is left of a step after its products: ``input`` = x·W_ihᵀ + b_ih, ``hidden`` = h·W_hhᵀ + b_hh, both (N, 3·H)."""
    out, gates = _step(input, hidden, hx)
    return Saved(out, gates=gates)


@gru_gates.backward
def _(dy: Array, hidden: Array, hx: Array, gates: Any) -> Any:
    """See :func:`_step_backward`; the state also reaches h' directly: dh = dh'·z, beside what goes through ``hidden``."""
    return _step_backward(dy, hidden[:, 2 * hx.shape[1] :], hx, gates)


@gru_gates.definition
def _(input: Array, hidden: Array, hx: Array) -> Any:
    size = hx.shape[1]
    (ir, iz, i_n), (hr, hz, hn) = split(input, size, 1), split(hidden, size, 1)  # (N, H) each
    r, z = sigmoid(ir + hr), sigmoid(iz + hz)
    n = tanh(i_n + r * hn)
    return (1 - z) * n + z * hx


def _step(input: Any, hidden: Any, hx: Any, alive: Any = None) -> tuple[Any, Any]:
    """The state after, and the gates (r, z, n) for the way back. Rows not ``alive`` (N, 1) keep their state: z = 1."""
    xp, size = array_module(hx), hx.shape[1]
    r_and_z = _logistic(xp, input[:, : 2 * size] + hidden[:, : 2 * size])  # (N, 2·H)
    r, z = r_and_z[:, :size], r_and_z[:, size:]
    n = hidden[:, 2 * size :] * r
    n += input[:, 2 * size :]
    n = xp.tanh(n)
    out = hx - n
    out *= z
    out += n
    if alive is not None:
        out, z = xp.where(alive, out, hx), xp.where(alive, z, z.dtype.type(1))
    return out, (r, z, n)


def _step_backward(dy: Any, h_n: Any, hx: Any, gates: Any) -> tuple[Any, Any, Any]:
    """The gradients of ``input``, ``hidden`` and (the direct one) ``hx``; ``h_n`` is the last third of ``hidden``, (N, H).

    From h' = n + z·(h - n): dn = dy·(1 - z) and dz = dy·(h - n). With a the sum inside a nonlinearity, da_n = dn·(1 - n²),
    da_z = dz·z·(1 - z), and since a_n = i_n + r·h_n: dr = da_n·h_n, da_r = dr·r·(1 - r). ``input`` is added inside all
    three; so is ``hidden``, but for h_n, which came in times r. Where a row kept its state (z = 1) all of it is 0.
    """
    xp = array_module(hx)
    r, z, n = gates
    new = 1 - z
    da_n = dy * new
    da_n *= 1 - n * n
    da_z = (hx - n) * dy
    da_z *= z * new
    da_r = h_n * da_n
    da_r *= r * (1 - r)
    return xp.concatenate((da_r, da_z, da_n), 1), xp.concatenate((da_r, da_z, da_n * r), 1), dy * z


def _logistic(xp: Any, x: Any) -> Any:
    """σ(x) = (1 + tanh(x/2))/2, which cannot overflow; ``x`` is overwritten."""
    x *= 0.5
    x = xp.tanh(x)
    x *= 0.5
    x += 0.5
    return x


# ------------------------------------------------------------------------------------ a sequence


@op
def gru_sequence(
    input: Array, hx: Array, w_hh: Array, b_hh: Array | None = None, alive: Any = None, reverse: bool = False
) -> Array:
    """All steps of one direction of one layer: the state after each of them, (T, N, H).

    Args:
        input: x·W_ihᵀ + b_ih of every step, (T, N, 3·H).
        hx: the state at the start, (N, H).
        w_hh: (3·H, H).
        b_hh: (3·H), or None.
        alive: (T, N) booleans: where False, the state stays as it is; None for True everywhere.
        reverse: go from the last step to the first.
    """
    xp = array_module(input)
    state, weight = hx, xp.ascontiguousarray(w_hh.T)  # (H, 3·H)
    steps: list[Any] = [None] * len(input)
    for t in _order(len(input), reverse):
        hidden = matmul(state, weight)  # (N, 3·H)
        if b_hh is not None:
            hidden = hidden + b_hh
        after, gates = _step(input[t], hidden, state, None if alive is None else alive[t, :, None])
        # h_n is all of ``hidden`` that the way back asks for
        steps[t] = (after, state, hidden[:, 2 * hx.shape[1] :], gates)
        state = after
    return Saved(xp.stack([step[0] for step in steps]), steps=steps)


@gru_sequence.backward
def _(dy: Array, w_hh: Array, steps: Any, reverse: bool, needs: Any) -> Any:
    """Backpropagation through time: the steps in the opposite order.

    The gradient of a state is what its output gets (dy) plus what comes back from the step after it: dh'·z and, through the
    three gates, da_h·W_hh. The weight took part in all steps, so dW = Σ_t da_h(t)ᵀ·h(t-1), which is one product of two
    matrices with all steps below each other. db is the sum of all da_h (by the engine: b was broadcast).
    """
    xp = array_module(dy)
    back: Any = 0
    d_input: list[Any] = [None] * len(dy)
    d_hidden: list[Any] = [None] * len(dy)
    for t in reversed(_order(len(dy), reverse)):
        _, before, h_n, gates = steps[t]
        d_input[t], d_hidden[t], direct = _step_backward(dy[t] + back, h_n, before, gates)
        back = matmul(d_hidden[t], w_hh)  # (N, H)
        back += direct
    da, states = xp.concatenate(d_hidden), xp.concatenate([step[1] for step in steps])  # (T·N, 3·H), (T·N, H)
    dw = matmul(da.T, states) if needs.w_hh else None  # (3·H, T·N) x (T·N, H)
    return xp.stack(d_input), back, dw, (da if needs.b_hh else None)


@gru_sequence.definition
def _(input: Array, hx: Array, w_hh: Array, b_hh: Array | None, alive: Any, reverse: bool) -> Any:
    state, states = hx, [hx] * input.shape[0]
    for t in _order(input.shape[0], reverse):
        after = gru_gates(input[t], linear(state, w_hh, b_hh), state)
        state = after if alive is None else where(alive[t][:, None], after, state)
        states[t] = state
    return stack(states)


def _order(steps: int, reverse: bool) -> Sequence[int]:
    return range(steps - 1, -1, -1) if reverse else range(steps)


def gru(
    input: Array,
    hx: Array,
    params: Sequence[Array],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
    lengths: Any = None,
) -> tuple[Tensor, Tensor]:
    """Whole sequences through one or several layers, in one direction or both: what ``nn.GRU`` computes.

    Args:
        input: (T, N, I), or (N, T, I) if ``batch_first``.
        hx: the states at the start, (num_layers·D, N, H) with D = 2 if ``bidirectional``, else 1.
        params: w_ih, w_hh and, if ``has_biases``, b_ih, b_hh, as in :func:`gru_cell`, for each direction of each layer.
            From the second layer on I is D·H.
        has_biases: see above.
        num_layers: each layer reads the outputs of the one below.
        dropout: probability that an element between two layers is dropped.
        train: whether to drop at all.
        bidirectional: read from the end as well; outputs of both directions are joined.
        batch_first: see above, for input and output.
        lengths: how many steps of each sequence are real, (N,) whole numbers from 1 to T; the others are padding, which
            changes nothing: outputs there are 0, final states are those at the real ends, and the way back begins there.
            None: all of them.

    Returns:
        The outputs of the last layer at each step, (T, N, D·H) or (N, T, D·H), and the final states of every direction of
        every layer, (num_layers·D, N, H).

    Raises:
        ShapeError: the shapes do not fit together.
        ValueError: lengths out of range, or a wrong number of ``params``.
    """
    directions = 2 if bidirectional else 1
    each = 4 if has_biases else 2
    _check_sequences(input, hx, params, num_layers * directions, each, batch_first)
    x = transpose(input, 0, 1) if batch_first else input  # (T, N, I)
    alive = None if lengths is None else _alive(input, lengths, x.shape[0], x.shape[1])  # (T, N)
    if alive is not None:
        x = where(alive[:, :, None], x, 0)  # whatever the padding holds, not even NaN gets into a sum on the way back
    finals = []
    for layer in range(num_layers):
        if layer and dropout:
            x = drop(x, dropout, train)
        outputs = []
        for k in range(layer * directions, (layer + 1) * directions):
            states = _direction(x, hx[k], params[k * each : (k + 1) * each], alive, bool(k % directions))
            finals.append(states[0 if k % directions else -1])
            outputs.append(states)
        x = cat(outputs, 2) if bidirectional else outputs[0]  # (T, N, D·H)
        if alive is not None:
            x = where(alive[:, :, None], x, 0)
    return (transpose(x, 0, 1) if batch_first else x), stack(finals)


def _direction(x: Any, hx: Any, params: Sequence[Any], alive: Any, reverse: bool) -> Any:
    """The states (T, N, H) of one direction of one layer."""
    w_ih, w_hh, b_ih, b_hh = params if len(params) == 4 else (*params, None, None)
    _check_weights("gru", hx.shape[-1], w_ih, w_hh)
    return gru_sequence(linear(x, w_ih, b_ih), hx, w_hh, b_hh, alive, reverse)


def lengths_to_mask(lengths: Any, steps: int | None = None) -> Any:
    """(N, T) booleans, True at the first ``lengths[n]`` places of row n: which steps of padded sequences are real.

    Args:
        lengths: (N,) whole numbers; a Tensor or an array.
        steps: T; None for the largest of ``lengths``.

    Returns:
        An array, on the device of ``lengths``.
    """
    counts = raw(lengths)
    xp = array_module(counts)
    counts = xp.asarray(counts)
    return xp.arange(int(counts.max()) if steps is None else steps) < counts[:, None]


# ------------------------------------------------------------------------------------ checks


def _alive(input: Any, lengths: Any, steps: int, batch: int) -> Any:
    """The mask (T, N) on the device of ``input``."""
    counts = np.asarray(to_device(raw(lengths), "cpu") if hasattr(lengths, "dtype") else lengths)
    if counts.shape != (batch,) or counts.dtype.kind not in "iu":
        raise ValueError(f"gru: expected lengths as {batch} whole numbers, one for each sequence, got {lengths!r}")
    if counts.size and not 1 <= int(counts.min()) <= int(counts.max()) <= steps:
        raise ValueError(f"gru: expected lengths from 1 to {steps}, got {int(counts.min())} to {int(counts.max())}")
    return array_module(raw(input)).asarray(lengths_to_mask(counts, steps).T)


def _check_sequences(input: Any, hx: Any, params: Any, states: int, each: int, batch_first: bool) -> None:
    axes = "N T I" if batch_first else "T N I"
    if input.ndim != 3 or hx.ndim != 3 or not all(input.shape[:2]):
        raise ShapeError("gru", "input and states need three axes, none of size 0", input=(input.shape, axes),
                         hx=(hx.shape, "L·D N H"))  # fmt: skip
    batch = input.shape[0 if batch_first else 1]
    if hx.shape[:2] != (states, batch):
        rule = f"there must be a state for each of {states} directions of layers and each of {batch} sequences"
        raise ShapeError("gru", rule, input=(input.shape, axes), hx=(hx.shape, "L·D N H"))
    if len(params) != states * each:
        count = states * each
        raise ValueError(f"gru: expected {each} weights for each direction of each layer, {count}, got {len(params)}")


def _check_weights(name: str, size: int, w_ih: Any, w_hh: Any) -> None:
    if w_ih.ndim != 2 or tuple(w_hh.shape) != (3 * size, size) or w_ih.shape[0] != 3 * size:
        rule = f"for a state of {size} the weights must have {3 * size} rows, and w_hh {size} columns"
        raise ShapeError(name, rule, w_ih=(w_ih.shape, "3·H I"), w_hh=(w_hh.shape, "3·H H"))
