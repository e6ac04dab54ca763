"""What each op has to move and to compute, by formula, from the shapes that it is called with.

The counterpart of :mod:`minires.bench.costs`, one floor up: there a kernel of a GPU, here an op on any device, whatever
kernels it is made of. Both count alike. Bytes: what must be read and written at least once, so every array once; an op whose
result only looks at its input's memory (a reshape) moves nothing. Operations: a multiply-add is two, an exponential, a
division, a comparison one. They are counted where arithmetic can be the limit, in products and in what goes over windows or
several times over its input; elsewhere the memory is the limit, and only bytes are counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from minires.memory import owner_of

__all__ = ["MEMORY_ONLY", "OPERATIONS", "Call", "bytes_moved", "is_known", "operations"]

Shape = tuple[int, ...]


class Call(NamedTuple):
    """One call of an op, without its arrays.

    Attributes:
        shapes: of every input and output ("y"; of several the first), by name; of a sequence a list.
        options: the other arguments, by name.
        wanted: which inputs the backward pass wants gradients for, by name (of a sequence: how many).
    """

    shapes: Mapping[str, Any]
    options: Mapping[str, Any]
    wanted: Mapping[str, int]

    def size(self, name: str) -> int:
        """Elements of an input, or of the output "y"."""
        return math.prod(self.shapes[name])


#: How many operations: of the forward pass, and of the backward pass.
Formula = tuple[Callable[[Call], float], Callable[[Call], float]]


def is_known(name: str, module: str) -> bool:
    """Whether there is a formula for the op ``name`` of ``module``; there is none for ops that users wrote."""
    return module.startswith("minires.functional.") and (name in OPERATIONS or name in MEMORY_ONLY)


def operations(name: str, call: Call) -> tuple[int, int] | None:
    """The operations of the forward pass and of the backward pass, or None if they are not counted."""
    formula = OPERATIONS.get(name)
    return None if formula is None else (int(formula[0](call)), int(formula[1](call)))


# ------------------------------------------------------------------------------------------------------- operations


def _product(factors: tuple[str, str], forward: Callable[[Call], float]) -> Formula:
    """An op that is linear in both factors: each factor's gradient is a product of as many multiply-adds."""
    return forward, lambda call: forward(call) * sum(bool(call.wanted.get(name)) for name in factors)


def _each(forward: float, backward: float, name: str = "y") -> Formula:
    """So many operations for each element of an input or of the output."""
    return lambda call: forward * call.size(name), lambda call: backward * call.size(name)


def _contraction(call: Call) -> int:
    """Every combination of letters is a term: a factor of each operand, and added up."""
    operands, inputs = call.shapes["operands"], call.options["inputs"]
    letters = {c: n for term, shape in zip(inputs, operands, strict=True) for c, n in zip(term, shape, strict=True)}
    return int(math.prod(letters.values())) * len(operands)


def _resample(call: Call) -> int:
    """A·X·Bᵀ with the zeros in A (H', H) and B (W', W) left out, in the cheaper order; its transpose takes as many."""
    height, width = call.shapes["input"][2:]
    images = math.prod(call.shapes["input"][:2])
    (row_taps, rows), (column_taps, columns) = ((int((m != 0).sum()), m.shape[0]) for m in _matrices(call))
    rows_first = row_taps * width + rows * column_taps
    return int(2 * images * min(rows_first, height * column_taps + row_taps * columns))


def _matrices(call: Call) -> tuple[Any, Any]:
    return call.options["rows"], call.options["columns"]


def _window(call: Call) -> int:
    """A comparison for each cell of each window."""
    return call.size("y") * int(math.prod(call.options["window"].kernel))


def _norm(relu: int) -> Formula:
    """Batch normalisation, with the ReLU (a comparison forward, two backward) or without.

    Training: Σx; x - centre, its square, the sum (4); a multiply-add (2). Back: Σg (1); x - mean, ·g, the sum (3);
    scale·(g - level - slope·(x - mean)) (5). In evaluation the statistics are constants: 2; 4 and the scaling of g (1).
    """
    return (
        lambda call: call.size("input") * (relu + (6 if call.options["training"] else 2)),
        lambda call: call.size("input") * (2 * relu + (9 if call.options["training"] else 5)),
    )


#: For each number of the new state: two sigmoids of a sum (5 each), r·h + i and its tanh (3), n + z·(h - n) (3); back too.
_GATES = 16


def _recurrence(call: Call, products: int) -> int:
    """A product with w_hh (3·H, H) in each step, so many times, and the gates."""
    return call.size("y") * (products * 6 * int(call.shapes["w_hh"][1]) + _GATES)


#: Ops whose operations are counted. Biases are not, as in :func:`minires.nn.summary`.
OPERATIONS: dict[str, Formula] = {
    # 2·N·O·H'·W'·(C/groups)·kH·kW, also where the image ends
    "conv2d": _product(("input", "weight"), lambda c: 2 * c.size("y") * math.prod(c.shapes["weight"][1:])),
    "conv_transpose2d": _product(("input", "weight"), lambda c: 2 * c.size("input") * math.prod(c.shapes["weight"][1:])),
    "conv2d_weight": _product(("input", "grad_output"), lambda c: 2 * c.size("grad_output") * math.prod(c.shapes["y"][1:])),
    "linear": _product(("input", "weight"), lambda c: 2 * c.size("y") * c.shapes["weight"][1]),
    "matmul": _product(("input", "other"), lambda c: 2 * c.size("y") * c.shapes["input"][-1]),
    "contraction": (_contraction, lambda c: _contraction(c) * c.wanted["operands"]),
    "batch_norm": _norm(0),
    "batch_norm_relu": _norm(1),
    "max_pool2d": (_window, lambda c: c.size("y")),  # back: an addition where each maximum was
    "resample": (_resample, _resample),
    "gru_gates": _each(_GATES, _GATES),
    "gru_sequence": (lambda c: _recurrence(c, 1), lambda c: _recurrence(c, 1 + bool(c.wanted.get("w_hh")))),
    "softmax": _each(5, 4),  # the maximum, -, exp, Σ, /; back: ·, Σ, -, ·
    "log_softmax": _each(5, 4),
    "standardize": _each(6, 9),
    "gated_residual": _each(6, 9),  # -, exp, +, / for the sigmoid, F + F·M; back: the sigmoid, g·M, ·F, 1 - M, ·, g +
    "residual_attention": _each(2, 3),  # (1 + M)·F; back: (1 + M)·g, F·g
    "naive_attention": _each(1, 2),
    "label_cross_entropy": _each(10, 2, "input"),
    "softmax_cross_entropy": _each(10, 6, "input"),
}

#: Ops for which only bytes are counted: element by element, sums, and moving things about.
MEMORY_ONLY = frozenset(
    "erf gelu leaky_relu relu sigmoid silu softplus tanh abs add clamp cos div exp floor_divide log maximum minimum mul neg "
    "pow remainder sin sqrt sub where channel_attention spatial_attention absolute_error bernoulli_logit_loss "
    "bernoulli_loss divergence smooth_absolute_error squared_error adaptive_max gather max_gather max_scatter scatter "
    "unpool amax amin cumsum deviation euclidean extreme_along logsumexp mean prod sum variance embedding cast cat clone "
    "contiguous expand flip getitem pad_constant permute put reshape roll split sum_to_size to_device tril triu pick fold "
    "unfold".split()
)


# ------------------------------------------------------------------------------------------------------------ bytes

#: Ops that read no more of their (large) input than they write.
_PARTIAL = frozenset(("getitem", "embedding", "pick", "gather", "max_gather"))


def bytes_moved(name: str, read: Iterable[Any], written: Iterable[Any]) -> int:
    """The bytes of all arrays that are read and written, each once; of results that only look at what is read none.

    Args:
        name: the op's.
        read: inputs, or in the backward pass the upstream gradients and what was kept; what is no array is passed over.
        written: outputs, or the gradients.
    """
    sources = {id(array): array for array in read if _is_array(array)}
    owners = {id(owner_of(array)) for array in sources.values()}
    results = {id(array): array for array in written if _is_array(array) and id(owner_of(array)) not in owners}
    made = sum(_bytes(array) for array in results.values())
    if not made:
        return 0
    return made + (made if name in _PARTIAL else sum(_bytes(array) for array in sources.values()))


def _is_array(value: Any) -> bool:
    return hasattr(value, "strides") and hasattr(value, "nbytes")


def _bytes(array: Any) -> int:
    """Of the memory: an axis with stride 0, which was broadcast, is there once."""
    lengths = (1 if stride == 0 else length for length, stride in zip(array.shape, array.strides, strict=True))
    return int(math.prod(lengths) * array.itemsize)
