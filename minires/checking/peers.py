"""What other projects accept as a right backward: their published criteria, each in a few lines, for the self-test.

A checker is known by what it lets pass. So the planted mistakes are shown to the others too: which upstream gradient they
take, how long their step is, which elements they look at, and how close is close enough. PyTorch's checker is called as it
is, if it is installed. The others are rebuilt from what their source says; the docstrings quote its numbers. A rebuilt
criterion stands alone: in its own project the engine around it may repair some mistakes in silence (sum a gradient over
broadcast axes, copy one that is not its own), and those would not be found there at all.

Every criterion is a function of ``(forward, backward, inputs, options, rng)`` and says whether it accepts the backward.
It is called once, as one call of the published function: no repetition over random inputs. As in the projects themselves
the backward gets the very arrays that the check works on, not copies.
"""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["PEERS", "Peer", "accepts", "autograd", "chainer", "dezero", "minitorch", "mygrad", "pytorch", "smallpebble"]

Array = np.ndarray[Any, Any]
Inputs = tuple[Array, ...]
Function = Callable[..., Any]
Options = Mapping[str, Any]
Criterion = Callable[[Function, Function, Inputs, Options, np.random.Generator], bool]


@dataclass(frozen=True)
class Peer:
    """Another project's checker.

    Attributes:
        name: of the project.
        version: whose source was read; for one that is called as it is, the installed one ("" if it is not installed).
        function: what the checker is called there.
        criterion: the function here that says what it accepts.
    """

    name: str
    version: str
    function: str
    criterion: Criterion

    @property
    def available(self) -> bool:
        """Whether it can be run here."""
        return bool(self.version)


def accepts(
    criterion: Criterion, forward: Function, backward: Function, inputs: Inputs, options: Options, rng: np.random.Generator
) -> bool:
    """Whether a criterion accepts a backward. One that raises is not accepted; the given inputs stay as they are.

    Args:
        criterion: one of those below.
        forward: ``forward(inputs, **options)`` returns an array.
        backward: ``backward(inputs, grad_output, **options)`` returns one gradient per input, None for one of integers.
        inputs: a tuple of arrays, the floating point ones in float64.
        options: keyword options for both.
        rng: draws upstream gradients, directions or elements; not the one that drew the inputs.
    """
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return bool(criterion(forward, backward, tuple(a.copy() for a in inputs), options, rng))
    except Exception:
        return False


# Parts ----------------------------------------------------------------------------------------------------------------


def _output(forward: Function, inputs: Inputs, options: Options) -> Array:
    return np.array(forward(inputs, **options))  # a copy: the output may be a view of an input


def _floating(inputs: Inputs) -> list[int]:
    return [i for i, a in enumerate(inputs) if a.dtype.kind == "f"]


def _gradients(backward: Function, inputs: Inputs, upstream: Array, options: Options) -> dict[int, Array]:
    """The gradients of the floating point inputs, by the input's place."""
    found = backward(inputs, upstream, **options)
    if len(found) != len(inputs):
        raise ValueError(f"{len(found)} gradients for {len(inputs)} inputs")
    return {i: np.asarray(found[i]) for i in _floating(inputs)}


def _normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return np.asarray(rng.standard_normal(shape))  # a single number too


def _uniform(rng: np.random.Generator, limit: float, shape: tuple[int, ...]) -> Array:
    return np.asarray(rng.uniform(-limit, limit, shape))


def _with(inputs: Inputs, i: int, values: Array) -> Inputs:
    return (*inputs[:i], values, *inputs[i + 1 :])


def _slope(
    forward: Function, inputs: Inputs, options: Options, i: int, index: Any, step: float, upstream: Any = 1.0
) -> float:
    """The central difference of the sum of upstream times output, for one element; ``step`` to either side."""
    values = []
    for side in (step, -step):
        moved = inputs[i].copy()
        moved[index] += side
        values.append(_output(forward, _with(inputs, i, moved), options))
    return float(((values[0] - values[1]) * upstream).sum() / (2 * step))


def _slopes(forward: Function, inputs: Inputs, options: Options, i: int, step: float, upstream: Any = 1.0) -> Array:
    """The central differences for every element of an input."""
    slopes = np.empty(inputs[i].shape)
    for index in np.ndindex(slopes.shape):
        slopes[index] = _slope(forward, inputs, options, i, index, step, upstream)
    return slopes


def _within(found: Array, wanted: Array, rtol: float, atol: float) -> bool:
    """Whether two arrays have one shape, and ``|found - wanted| <= atol + rtol |wanted|`` everywhere."""
    return found.shape == wanted.shape and bool(np.allclose(found, wanted, rtol=rtol, atol=atol))


# The upstream gradient is ones ----------------------------------------------------------------------------------------


def dezero(
    forward: Function, backward: Function, inputs: Inputs, options: Options, rng: np.random.Generator
) -> bool:
    """DeZero: ``gradient_check`` in ``dezero/utils.py``, version 0.0.13.

    The upstream gradient is ones, since ``backward`` is called without one. Central differences of the summed output, every
    element, 1e-4 to either side; equal shapes; then ``allclose`` with rtol 1e-4 and atol 1e-5, relative to the backward's
    gradient. It takes one input at a time, so it is called for each here.
    """
    del rng
    for i in _floating(inputs):
        numeric = _slopes(forward, inputs, options, i, 1e-4)
        upstream = np.ones_like(_output(forward, inputs, options))
        if not _within(numeric, _gradients(backward, inputs, upstream, options)[i], rtol=1e-4, atol=1e-5):
            return False
    return True


def smallpebble(
    forward: Function, backward: Function, inputs: Inputs, options: Options, rng: np.random.Generator
) -> bool:
    """SmallPebble: ``check_grad`` in ``smallpebble/gradcheck.py``, version 3.0.5.

    The upstream gradient is ones (``get_gradients``). Central differences of the summed output, every element, 5e-7 to
    either side (``delta`` 1e-6, that of ``numgrad``; ``check_grad`` itself has 1 as the default, for linear functions). The
    root mean square difference over an input must not exceed 1e-6.

    That is what it is meant to do, and did in 2021 (commit f9335e9). In version 3.0.5 the line is gone that computed the
    gradient's difference, and the loop looks at the output's once more: as it stands there it accepts every gradient.
    """
    del rng
    upstream = np.ones_like(_output(forward, inputs, options))
    gradients = _gradients(backward, inputs, upstream, options)
    differences = [g - _slopes(forward, inputs, options, i, 5e-7) for i, g in gradients.items()]
    return all(bool(np.sqrt(np.mean(np.abs(d) ** 2)) <= 1e-6) for d in differences)


def minitorch(
    forward: Function, backward: Function, inputs: Inputs, options: Options, rng: np.random.Generator
) -> bool:
    """Minitorch: ``grad_check`` in ``minitorch/tensor_functions.py``, commit 7d35d59 (it has no versions).

    The upstream gradient is ones, since it differentiates ``out.sum()``. One random element of each input is compared with
    a central difference, 1e-6 to either side, with rtol and atol both 1e-2. (``derivative_check`` in ``scalar.py`` does the
    same for functions of single numbers.)
    """
    upstream = np.ones_like(_output(forward, inputs, options))
    gradients = _gradients(backward, inputs, upstream, options)
    for i, gradient in gradients.items():
        index = tuple(int(rng.integers(n)) for n in inputs[i].shape)
        numeric = np.asarray(_slope(forward, inputs, options, i, index, 1e-6))
        if not _within(np.asarray(gradient[index]), numeric, rtol=1e-2, atol=1e-2):
            return False
    return True


# The upstream gradient is random --------------------------------------------------------------------------------------


def autograd(
    forward: Function, backward: Function, inputs: Inputs, options: Options, rng: np.random.Generator
) -> bool:
    """Autograd: ``check_grads`` in ``autograd/test_util.py``, version 1.9.1, of the first order and in reverse mode.

    The upstream gradient is standard normal, and so is one direction through all inputs at once. Each gradient must have
    its input's shape and dtype. The slope along the direction, from a central difference 5e-7 to either side (``EPS`` 1e-6),
    agrees with the gradients' if they differ by less than 1e-6, or by less than 1e-6 of their sum.
    """
    output = _output(forward, inputs, options)
    direction = {i: _normal(rng, inputs[i].shape) for i in _floating(inputs)}
    upstream = _normal(rng, output.shape)
    gradients = _gradients(backward, inputs, upstream.copy(), options)
    if any(g.shape != inputs[i].shape or g.dtype != inputs[i].dtype for i, g in gradients.items()):
        return False
    exact = sum(float((g * direction[i]).sum()) for i, g in gradients.items())
    numeric = _along(forward, inputs, options, direction, 5e-7, upstream)
    return abs(numeric - exact) < 1e-6 or abs(numeric - exact) / abs(numeric + exact) < 1e-6


def chainer(
    forward: Function, backward: Function, inputs: Inputs, options: Options, rng: np.random.Generator
) -> bool:
    """Chainer: ``check_backward`` in ``chainer/gradient_check.py``, version 7.8.1, with its defaults.

    The upstream gradient is the caller's: uniform in -1 … 1, as ``testing.FunctionTestCase`` draws it. One random unit
    vector goes through all inputs at once; 0.99 of its squares are normal numbers', 0.01 are shared evenly, so that none is
    near 0. Gradients must have their input's shape and dtype (``_check_grad_type`` in ``variable.py``). The slope along the
    vector, from a central difference 1e-3 to either side, must equal the gradients' with atol 1e-5 and rtol 1e-4. Its
    search for kinks (``detect_nondifferentiable``) is off by default.
    """
    output = _output(forward, inputs, options)
    upstream = _uniform(rng, 1, output.shape)
    size = sum(inputs[i].size for i in _floating(inputs))
    drawn = {i: _normal(rng, inputs[i].shape) for i in _floating(inputs)}
    length = sum(float((d**2).sum()) for d in drawn.values())
    direction = {i: np.copysign(np.sqrt(0.99 * d**2 / length + 0.01 / size), d) for i, d in drawn.items()}
    gradients = _gradients(backward, inputs, upstream.copy(), options)
    if any(g.shape != inputs[i].shape or g.dtype != inputs[i].dtype for i, g in gradients.items()):
        return False
    exact = sum(float((g * direction[i]).sum()) for i, g in gradients.items())
    numeric = _along(forward, inputs, options, direction, 1e-3, upstream)
    return bool(np.isclose(numeric, exact, rtol=1e-4, atol=1e-5))


def _along(
    forward: Function, inputs: Inputs, options: Options, direction: Mapping[int, Array], step: float, upstream: Array
) -> float:
    """The central difference of the sum of upstream times output along a direction; ``step`` to either side."""
    values = [
        _output(forward, tuple(a + h * direction[i] if i in direction else a for i, a in enumerate(inputs)), options)
        for h in (step, -step)
    ]
    return float(((values[0] - values[1]) * upstream).sum() / (2 * step))


def mygrad(
    forward: Function, backward: Function, inputs: Inputs, options: Options, rng: np.random.Generator
) -> bool:
    """MyGrad: ``backprop_test_factory`` in ``tests/wrappers/uber.py``, version 2.3.0 (not part of the package).

    The upstream gradient is uniform in -10 … 10. Every element is compared with the complex step 1e-20, with rtol and atol
    both 1e-8 (``vary_each_element``). No gradient may share memory with the upstream one or with another gradient, and
    inputs and upstream must be unchanged. That a forward cannot do complex numbers is for the author of a test to know;
    here it is tried, and such a forward gets differences of 1e-8 to either side and 1e-4 for rtol and atol, as in MyGrad's
    test of ``logaddexp`` (there all elements move at once, here one by one).
    """
    output = _output(forward, inputs, options)
    upstream = _uniform(rng, 10, output.shape)
    given, before = upstream.copy(), tuple(a.copy() for a in inputs)
    gradients = _gradients(backward, inputs, given, options)
    is_complex = _is_analytic(forward, before, options, rng)
    rtol = atol = 1e-8 if is_complex else 1e-4
    for i, gradient in gradients.items():
        numeric = (
            _complex_slopes(forward, before, options, i, upstream)
            if is_complex
            else _slopes(forward, before, options, i, 1e-8, upstream)
        )
        if not _within(gradient, numeric, rtol, atol) or np.shares_memory(gradient, given):
            return False
        if any(np.shares_memory(gradient, other) for k, other in gradients.items() if k != i):
            return False
    return np.array_equal(upstream, given) and all(map(np.array_equal, before, inputs))


def _is_analytic(forward: Function, inputs: Inputs, options: Options, rng: np.random.Generator) -> bool:
    """Whether the complex step gives the slope along a random direction; not so where the forward uses abs, var or real."""
    direction = {i: _normal(rng, inputs[i].shape) for i in _floating(inputs)}
    upstream = _normal(rng, _output(forward, inputs, options).shape)
    try:
        moved = tuple(a + 1e-20j * direction[i] if i in direction else a for i, a in enumerate(inputs))
        slope = float((_output(forward, moved, options).imag / 1e-20 * upstream).sum())
    except TypeError:
        return False
    return bool(np.isclose(slope, _along(forward, inputs, options, direction, 1e-6, upstream), rtol=1e-4, atol=1e-6))


def _complex_slopes(forward: Function, inputs: Inputs, options: Options, i: int, upstream: Array) -> Array:
    """The complex steps for every element of an input; the others become complex too."""
    slopes, still = np.empty(inputs[i].shape), tuple(a.astype(complex) if a.dtype.kind == "f" else a for a in inputs)
    for index in np.ndindex(slopes.shape):
        moved = still[i].copy()
        moved[index] += 1e-20j
        slopes[index] = (_output(forward, _with(still, i, moved), options).imag / 1e-20 * upstream).sum()
    return slopes


# One upstream gradient for each output --------------------------------------------------------------------------------


def pytorch(
    forward: Function, backward: Function, inputs: Inputs, options: Options, rng: np.random.Generator
) -> bool:
    """PyTorch: ``torch.autograd.gradcheck`` itself, whichever version is installed, in float64 with its default settings.

    The pair becomes a ``torch.autograd.Function`` that hands the tensors' memory to NumPy and back. gradcheck compares the
    whole Jacobian, row by row from one-hot upstream gradients, with central differences 1e-6 to either side, rtol 1e-3 and
    atol 1e-5; runs the backward twice and wants equal results (``nondet_tol`` 0); and wants zeros for an upstream of zero.
    The engine sums a gradient over broadcast axes and casts it to its input's dtype before gradcheck sees it.
    """
    del rng
    torch = importlib.import_module("torch")

    def run(context: Any, *tensors: Any) -> Any:
        context.save_for_backward(*tensors)
        return torch.from_numpy(_output(forward, tuple(t.detach().numpy() for t in tensors), options))

    def back(context: Any, grad_output: Any) -> Any:
        arrays = tuple(t.detach().numpy() for t in context.saved_tensors)
        found = backward(arrays, grad_output.numpy(), **options)
        return tuple(None if g is None else _as_tensor(torch, np.asarray(g)) for g in found)

    methods = {"forward": staticmethod(run), "backward": staticmethod(back)}
    function: Any = type("Pair", (torch.autograd.Function,), methods)
    tensors = [torch.from_numpy(a.copy()).requires_grad_(a.dtype.kind == "f") for a in inputs]
    return bool(torch.autograd.gradcheck(function.apply, tensors, raise_exception=False))


def _as_tensor(torch: Any, array: Array) -> Any:
    """A tensor on the array's own memory; on a copy where PyTorch cannot take it, for a negative stride."""
    return torch.from_numpy(array if min(array.strides, default=0) >= 0 else array.copy())


def _installed_torch() -> str:
    if importlib.util.find_spec("torch") is None:
        return ""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("torch").partition("+")[0]
    except PackageNotFoundError:
        return ""


PEERS: tuple[Peer, ...] = (
    Peer("PyTorch", _installed_torch(), "torch.autograd.gradcheck", pytorch),
    Peer("Autograd", "1.9.1", "check_grads", autograd),
    Peer("Chainer", "7.8.1", "check_backward", chainer),
    Peer("MyGrad", "2.3.0", "backprop_test_factory", mygrad),
    Peer("DeZero", "0.0.13", "gradient_check", dezero),
    Peer("SmallPebble", "3.0.5", "check_grad", smallpebble),
    Peer("minitorch", "7d35d59", "grad_check", minitorch),
)
