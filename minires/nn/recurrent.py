"""Layers that read sequences: the gated recurrent unit, one step of it or all, in one direction or both.

Names, argument order, defaults, initial distributions and the names of the weights are PyTorch's, so that a ``state_dict``
moves between the two. Sequences of different lengths are padded to one length, and ``lengths`` says how much of each is real
(PyTorch packs them instead; the results are the same, see ``docs/deviations.md``).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minires import functional as F
from minires.device import to_device
from minires.errors import ShapeError
from minires.nn import init
from minires.nn.module import Module, Parameter
from minires.tensor import Tensor

__all__ = ["GRU", "GRUCell"]


class GRUCell(Module):
    """One step of a gated recurrent unit (Cho et al. 2014); the formulas are in :mod:`minires.functional.recurrent`.

    Args:
        input_size: I, size of an input vector.
        hidden_size: H, size of the state.
        bias: learn additive biases.

    Attributes:
        weight_ih: (3·H, I), those of the reset gate, the update gate and the new state below each other; initially uniform
            in ±1/√H, as all the others.
        weight_hh: (3·H, H).
        bias_ih: (3·H,) or None.
        bias_hh: (3·H,) or None.
    """

    weight_ih: Parameter
    weight_hh: Parameter
    bias_ih: Parameter | None
    bias_hh: Parameter | None

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True) -> None:
        super().__init__()
        _check_sizes("GRUCell", input_size=input_size, hidden_size=hidden_size)
        self.input_size, self.hidden_size, self.bias = input_size, hidden_size, bias
        self.weight_ih, self.weight_hh = _empty(3 * hidden_size, input_size), _empty(3 * hidden_size, hidden_size)
        for name in ("bias_ih", "bias_hh"):
            self.register_parameter(name, _empty(3 * hidden_size) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw initial values anew."""
        _draw(self, self.hidden_size)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """(N, input_size) and the state (N, hidden_size), None for zeros → the state after it, (N, hidden_size)."""
        if hx is None:
            hx = _zeros(input, len(input), self.hidden_size)
        return F.gru_cell(input, hx, self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)

    def extra_repr(self) -> str:
        """The options."""
        return f"{self.input_size}, {self.hidden_size}" + ("" if self.bias else ", bias=False")


class GRU(Module):
    """A gated recurrent unit (Cho et al. 2014) that reads whole sequences, in one or several layers.

    Args:
        input_size: I, size of an input vector.
        hidden_size: H, size of a state.
        num_layers: each layer reads the outputs of the one below.
        bias: learn additive biases.
        batch_first: input and output are (N, T, ...) rather than (T, N, ...). States never are.
        dropout: in training, the probability that an element between two layers is dropped.
        bidirectional: a second set of weights reads from the end, and the outputs of both are joined.

    Attributes:
        weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0: as in :class:`GRUCell`, for layer 0, and so on; with
            ``_reverse`` behind the name for the second direction. Of higher layers ``weight_ih`` is (3·H, D·H), where D
            counts the directions.
    """

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True, batch_first: bool = False,
        dropout: float = 0.0, bidirectional: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        _check_sizes("GRU", input_size=input_size, hidden_size=hidden_size, num_layers=num_layers)
        if not 0 <= dropout <= 1:
            raise ValueError(f"GRU: expected a probability dropout between 0 and 1, got {dropout}")
        self.input_size, self.hidden_size, self.num_layers, self.bias = input_size, hidden_size, num_layers, bias
        self.batch_first, self.dropout, self.bidirectional = batch_first, dropout, bidirectional
        self._names: list[str] = []
        for layer in range(num_layers):
            width = len(self._directions()) * hidden_size if layer else input_size
            for direction in self._directions():
                self._add(f"l{layer}{direction}", width)
        self.reset_parameters()

    def _directions(self) -> tuple[str, ...]:
        """What stands at the end of the names of each direction's weights."""
        return ("", "_reverse") if self.bidirectional else ("",)

    def _add(self, suffix: str, width: int) -> None:
        """The weights of one direction of one layer, whose input vectors have ``width`` elements."""
        size = self.hidden_size
        shapes: dict[str, tuple[int, ...]] = {"weight_ih": (3 * size, width), "weight_hh": (3 * size, size)}
        if self.bias:
            shapes |= {"bias_ih": (3 * size,), "bias_hh": (3 * size,)}
        for name, shape in shapes.items():
            self._names.append(f"{name}_{suffix}")
            self.register_parameter(self._names[-1], _empty(*shape))

    def reset_parameters(self) -> None:
        """Draw initial values anew: uniform in ±1/√hidden_size."""
        _draw(self, self.hidden_size)

    def forward(self, input: Tensor, hx: Tensor | None = None, lengths: Any = None) -> tuple[Tensor, Tensor]:
        """Read sequences; D counts the directions.

        Args:
            input: (T, N, input_size), or (N, T, input_size) if ``batch_first``.
            hx: the states at the start, (num_layers·D, N, hidden_size); None for zeros.
            lengths: how many steps of each sequence are real, (N,) whole numbers from 1 to T; the rest is padding, and its
                values are of no account. None: all steps.

        Returns:
            The outputs of the last layer, (T, N, D·hidden_size) or with N first, 0 at padding; and each direction's and
            layer's state at the end of its sequences, (num_layers·D, N, hidden_size).

        Raises:
            ShapeError: the shapes do not fit.
            ValueError: lengths out of range.
        """
        if input.ndim != 3:
            axes = "N T I" if self.batch_first else "T N I"
            raise ShapeError("GRU", "expected a batch of sequences", input=(input.shape, axes))
        if hx is None:
            batch = input.shape[0 if self.batch_first else 1]
            hx = _zeros(input, self.num_layers * len(self._directions()), batch, self.hidden_size)
        weights = [self._parameters[name] for name in self._names]
        return F.gru(
            input, hx, weights, self.bias, self.num_layers, self.dropout, self.training, self.bidirectional,
            self.batch_first, lengths,
        )  # fmt: skip

    def extra_repr(self) -> str:
        """The options that differ from their defaults."""
        defaults = {"num_layers": 1, "bias": True, "batch_first": False, "dropout": 0.0, "bidirectional": False}
        changed = [f"{name}={getattr(self, name)}" for name, value in defaults.items() if getattr(self, name) != value]
        return ", ".join([str(self.input_size), str(self.hidden_size), *changed])


def _empty(*shape: int) -> Parameter:
    return Parameter(np.zeros(shape, np.float32))


def _draw(module: Module, hidden_size: int) -> None:
    bound = 1 / math.sqrt(hidden_size)
    for parameter in module.parameters():
        init.uniform_(parameter, -bound, bound)


def _zeros(like: Tensor, *shape: int) -> Tensor:
    return Tensor(to_device(np.zeros(shape, like.dtype), like.device))


def _check_sizes(layer: str, **sizes: int) -> None:
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 1:
            raise ValueError(f"{layer}: {name} must be a whole number >= 1, got {size!r}")
