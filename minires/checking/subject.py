"""What is checked: a forward and a backward computation, seen alike whether they are Tensors' or plain NumPy.

The rest of the checker knows only this: ``forward(values)`` gives a list of arrays, and ``pullback(values)`` a function from
upstream gradients to the gradients of the inputs, which may be wrong in every way there is.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

from minires.autograd import enable_grad, grad, no_grad
from minires.random import get_rng_state, set_rng_state
from minires.tensor import Tensor

__all__ = ["MISSING", "Pair", "Subject", "TensorFunction", "WrongNumber", "order_two"]

Array = np.ndarray[Any, Any]
Values = list[Any]  # one array per input; integer ones among them stay as they are
Pullback = Callable[[list[Array]], list[Any]]

_UPSTREAM_NAMES = {"grad_output", "gradoutput", "grad_out", "dy", "dout", "gout", "g", "upstream", "dz", "d_out", "grad"}


class Subject:
    """A function and its backward.

    Attributes:
        name: of the function.
        names: of the inputs.
        values: the inputs, floating point ones as they were given.
        wanted: the numbers of the inputs that are floating point, whose gradients are checked.
        options: the keyword options that the function is called with.
        keywords: all its keyword options with their values, whether given or default.
        contract: whether shape, dtype and memory of the gradients are the backward's own doing.
    """

    contract = False

    def __init__(self, name: str, names: list[str], values: Values, options: Mapping[str, Any] | None) -> None:
        self.name, self.names, self.values = name, names, values
        self.options = dict(options or {})
        self.keywords: dict[str, Any] = {}
        self.defaults: dict[str, Any] = {}
        self.wanted = [i for i, v in enumerate(values) if v.dtype.kind == "f"]
        if not self.wanted:
            raise ValueError("gradcheck: none of the inputs is floating point, so there is no gradient to check")

    def forward(self, values: Values, **changed: Any) -> list[Array]:
        """The floating point outputs, with some keyword options ``changed``."""
        raise NotImplementedError

    def pullback(self, values: Values) -> Pullback:
        """Upstream gradients, one an output → what the backward computes, one entry for each of ``wanted``."""
        raise NotImplementedError

    def close(self) -> None:
        """Put back what evaluations have changed."""

    def at(self, values: Values, dtype: Any) -> Values:
        """Copies of ``values`` with the floating point ones in ``dtype``."""
        return [v.astype(dtype) if i in self.wanted else v.copy() for i, v in enumerate(values)]


class TensorFunction(Subject):
    """A function of Tensors; its backward is the engine's.

    Args:
        fn: takes Tensors, returns a Tensor or a tuple of them.
        inputs: arrays or Tensors.
        params: keyword options by name, or Tensors (a list, or a module's parameters) that ``fn`` uses and whose gradients
            are to be checked too.
    """

    is_gradient = False  # a gradient may well be constant, so that nothing depends on the inputs

    def __init__(self, fn: Callable[..., Any], inputs: Any, params: Any = None, name: str | None = None) -> None:
        given, names = _named(inputs)
        is_module = hasattr(fn, "named_parameters")
        options, leaves = _options_and_leaves(fn if params is None and is_module else params)
        self.fn, self.leaves = fn, leaves
        self.count = len(given)
        signature = _signature(getattr(fn, "forward", fn) if is_module else fn)
        names = names or _parameter_names(signature, len(given))
        values = [np.asarray(v.data if isinstance(v, Tensor) else v) for v in given]
        values += [np.asarray(t.data) for t in leaves.values()]
        super().__init__(name or _name(fn), names + list(leaves), values, options)
        if not isinstance(fn, np.ufunc):  # whose options (where, casting) are no part of the mathematics
            self.keywords, self.defaults = _keywords(signature, self.count, options)
        self._random = get_rng_state()
        self._buffers = [(b, b.data, b.data.copy()) for module in _modules_of(fn) for b in module.buffers()]

    def forward(self, values: Values, **changed: Any) -> list[Array]:
        """See :class:`Subject`."""
        set_rng_state(self._random)  # so that dropout drops the same elements every time
        with no_grad(), self._placed(values[self.count :]):
            return [o.data for o in self._outputs([Tensor(v) for v in values[: self.count]], changed)]

    def pullback(self, values: Values) -> Pullback:
        """See :class:`Subject`."""
        set_rng_state(self._random)
        inputs = [Tensor(v.copy(), requires_grad=i in self.wanted) for i, v in enumerate(values[: self.count])]
        tensors = inputs + list(self.leaves.values())
        with enable_grad(), self._placed(values[self.count :]):
            outputs = self._outputs(inputs, {})
        if not any(o.requires_grad for o in outputs) and not self.is_gradient:
            raise ValueError("gradcheck: no output depends on a floating point input in a way that the graph recorded")
        targets = [tensors[i] for i in self.wanted]

        def pull(upstream: list[Array]) -> list[Any]:
            pairs = [(o, Tensor(g)) for o, g in zip(outputs, upstream, strict=True) if o.requires_grad]
            if not pairs:
                return [np.zeros(t.shape, t.dtype) for t in targets]
            roots, seeds = zip(*pairs, strict=True)
            found = grad(roots, targets, seeds, retain_graph=True, allow_unused=True)
            return [np.zeros(t.shape, t.dtype) if g is None else g.data for g, t in zip(found, targets, strict=True)]

        return pull

    def close(self) -> None:
        """Put back the random generator, and the running statistics of modules that the function uses."""
        set_rng_state(self._random)
        for buffer, array, before in self._buffers:
            if buffer.data is not array:
                buffer.data = array
            if not np.array_equal(array, before, equal_nan=array.dtype.kind == "f"):
                with buffer.memory.announced_change():
                    array[...] = before

    def _outputs(self, tensors: list[Tensor], changed: Mapping[str, Any]) -> list[Tensor]:
        result = self.fn(*tensors, **{**self.options, **changed})
        outputs = result if isinstance(result, tuple | list) else (result,)
        for o in outputs:
            if not isinstance(o, Tensor):
                raise TypeError(f"gradcheck: the function must return Tensors, got {type(o).__name__}")
        return [o for o in outputs if o.dtype.kind in "fc"]

    @contextmanager
    def _placed(self, values: Values) -> Iterator[None]:
        """The Tensors that the function uses from outside, with other numbers in them for a while."""
        leaves = list(self.leaves.values())
        before = [(t.data, t.requires_grad) for t in leaves]
        try:
            for t, v in zip(leaves, values, strict=True):
                t.requires_grad = False  # a leaf that wants a gradient cannot hold complex numbers
                t.data = v
                t.requires_grad = v.dtype.kind == "f"
            yield
        finally:
            for t, (data, wants) in zip(leaves, before, strict=True):
                t.data, t.requires_grad = data, wants


class Pair(Subject):
    """A forward and a backward in plain NumPy.

    Args:
        forward: ``forward(inputs, **options)`` with a tuple of arrays; or ``forward(x, w, **options)``.
        backward: ``backward(inputs, grad_output, **options)`` returns one gradient per input, in a tuple; or
            ``backward(x, w, grad_output, **options)``, also with ``grad_output`` first.
        inputs: the arrays.
        params: the options, by name.
    """

    contract = True

    def __init__(
        self, forward: Callable[..., Any], backward: Callable[..., Any], inputs: Any, params: Any = None
    ) -> None:
        given, names = _named(inputs)
        if params is not None and not isinstance(params, Mapping):
            raise TypeError(f"gradcheck_pair: params must be a dict of keyword options, got {type(params).__name__}")
        values = [np.asarray(v.data if isinstance(v, Tensor) else v) for v in given]
        self._forward, self._backward = forward, backward
        signature, back = _signature(forward), _signature(backward)
        options = dict(params or {})
        open_ended = any(p.kind is p.VAR_KEYWORD for p in back.parameters.values())
        self._shared = {k: v for k, v in options.items() if open_ended or k in back.parameters}
        self._packed = _is_packed(signature, len(values))
        if self._packed and len(values) == 1 and next(iter(signature.parameters), "") != "inputs":
            self._packed = self._prefers_packed(values, options)
        first = next(iter(back.parameters), "")
        self._upstream_first = not self._packed and first in _UPSTREAM_NAMES
        if names is None and self._packed:
            names = _unpacked_names(forward, len(values)) or _unpacked_names(backward, len(values))
        names = names or _parameter_names(None if self._packed else signature, len(values))
        super().__init__(_name(backward), names, values, options)
        if not isinstance(forward, np.ufunc):  # whose options (where, casting) are no part of the mathematics
            self.keywords, self.defaults = _keywords(signature, 1 if self._packed else len(values), options)

    def forward(self, values: Values, **changed: Any) -> list[Array]:
        """See :class:`Subject`."""
        return self._call_forward(values, {**self.options, **changed})

    def pullback(self, values: Values) -> Pullback:
        """See :class:`Subject`. The backward is called on copies of everything; ``forward`` runs just before."""

        def pull(upstream: list[Array]) -> list[Any]:
            return self.call_backward([v.copy() for v in values], [g.copy() for g in upstream])

        self._call_forward([v.copy() for v in values], self.options)  # a backward may rely on what its forward kept
        return pull

    def call_backward(self, values: Values, upstream: list[Array]) -> list[Any]:
        """The backward's answer as it is, for the inputs in ``wanted``; a missing gradient is None."""
        grad_output = upstream[0] if self._single else tuple(upstream)
        if self._packed:
            found = self._backward(tuple(values), grad_output, **self._shared)
        elif self._upstream_first:
            found = self._backward(grad_output, *values, **self._shared)
        else:
            found = self._backward(*values, grad_output, **self._shared)
        gradients = list(found) if isinstance(found, tuple | list) else [found]
        if len(gradients) == len(self.values):
            return [gradients[i] for i in self.wanted]
        if len(gradients) == len(self.wanted):
            return gradients
        if not gradients or len(gradients) > len(self.values):
            raise WrongNumber(len(gradients), len(self.values))
        return [gradients[i] if i < len(gradients) else MISSING for i in self.wanted]

    def _call_forward(self, values: Values, options: Mapping[str, Any]) -> list[Array]:
        result = self._forward(tuple(values), **options) if self._packed else self._forward(*values, **options)
        self._single = not isinstance(result, tuple | list)
        outputs = [np.asarray(o) for o in ((result,) if self._single else result)]
        if not all(o.dtype.kind in "fc" for o in outputs):
            kinds = ", ".join(str(o.dtype) for o in outputs)
            raise TypeError(f"gradcheck_pair: forward must return floating point arrays, got {kinds}")
        return outputs

    def _prefers_packed(self, values: Values, options: Mapping[str, Any]) -> bool:
        """Whether a function of one parameter means the tuple of its one input, or the input itself.

        The documented way is the tuple; but ``def forward(x)`` is too natural to be refused. Whichever way works is meant,
        and if both do, the one that gives a gradient of the right shape.
        """
        works: dict[bool, Any] = {}
        for packed in (True, False):
            with suppress(Exception), np.errstate(all="ignore"):
                copies = [v.copy() for v in values]
                works[packed] = self._forward(*([tuple(copies)] if packed else copies), **options)
        if len(works) < 2:
            return next(iter(works), True)
        for packed, out in works.items():
            with suppress(Exception), np.errstate(all="ignore"):
                copies = [v.copy() for v in values]
                found = self._backward(*([tuple(copies)] if packed else copies), np.array(out), **self._shared)
                gradients = found if isinstance(found, tuple | list) else (found,)
                if len(gradients) == 1 and np.shape(gradients[0]) == values[0].shape:
                    return packed
        return True


class Missing:
    """What stands for a gradient that the backward did not return."""


MISSING = Missing()


class WrongNumber(Exception):
    """A backward returned another number of gradients than there are inputs."""

    def __init__(self, found: int, expected: int) -> None:
        super().__init__(f"backward returned {found} gradient(s) for {expected} input(s)")


def order_two(subject: TensorFunction, seed: int) -> TensorFunction:
    """The gradient of a function as a function of its inputs and of the upstream gradient, to be checked in its turn."""
    rng = np.random.default_rng(seed + 1)
    seeds = [rng.standard_normal(o.shape) for o in subject.forward(subject.values)]
    count, leaves = subject.count, list(subject.leaves.values())
    wanted = [i for i in subject.wanted if i < count]

    def gradient(*tensors: Tensor) -> tuple[Tensor, ...]:
        with enable_grad():
            inputs = list(tensors[:count])
            for i in wanted:
                inputs[i] = inputs[i] if inputs[i].requires_grad else inputs[i].detach().requires_grad_()
            with _wanting_gradients(leaves):
                outputs = subject._outputs(inputs, {})
                targets = [inputs[i] for i in wanted] + leaves
                found = grad(outputs, targets, list(tensors[count:]), create_graph=True, allow_unused=True)
        return tuple(g for g in found if g is not None)

    names = [f"grad_output{i}" if len(seeds) > 1 else "grad_output" for i in range(len(seeds))]
    inputs = dict(zip([*subject.names[:count], *names], [*subject.values[:count], *seeds], strict=True))
    second = TensorFunction(gradient, inputs, leaves or None, subject.name)
    second.is_gradient = True
    second.names = [*inputs, *subject.names[count:]]
    return second


@contextmanager
def _wanting_gradients(leaves: list[Tensor]) -> Iterator[None]:
    before = [t.requires_grad for t in leaves]
    for t in leaves:
        t.requires_grad = True
    try:
        yield
    finally:
        for t, wants in zip(leaves, before, strict=True):
            t.requires_grad = wants


# ------------------------------------------------------------------------------------ names and signatures


def _named(inputs: Any) -> tuple[list[Any], list[str] | None]:
    """The inputs as a list, and their names if they came in a dict."""
    if isinstance(inputs, Mapping):
        return list(inputs.values()), list(inputs)
    return list(inputs) if isinstance(inputs, tuple | list) else [inputs], None


def _name(function: Any) -> str:
    return str(getattr(function, "__name__", type(function).__name__))


def _modules_of(function: Any) -> list[Any]:
    """The modules that a function uses: itself, or those among the variables that it takes from outside."""
    found = [function]
    with suppress(TypeError, ValueError):
        outside = inspect.getclosurevars(function)
        found += [*outside.nonlocals.values(), *outside.globals.values()]
    return [m for m in found if hasattr(m, "named_buffers") and not isinstance(m, type)]


def _signature(function: Any) -> inspect.Signature:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):  # some built-in functions have none
        return inspect.Signature()


def _parameter_names(signature: inspect.Signature | None, count: int) -> list[str]:
    parameters = [] if signature is None else signature.parameters.values()
    names = [p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    return [names[i] if i < len(names) else f"input{i}" for i in range(count)]


def _keywords(
    signature: inspect.Signature, inputs: int, options: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options that a call may name, after the first ``inputs`` parameters: their values, and their defaults."""
    parameters = itertools.islice(signature.parameters.values(), inputs, None)
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    return {**defaults, **options}, defaults


def _is_packed(signature: inspect.Signature, count: int) -> bool:
    """Whether a forward takes its inputs in one tuple: it has a single positional parameter without a default."""
    positional = [p for p in signature.parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if any(p.kind is p.VAR_POSITIONAL for p in signature.parameters.values()):
        return False
    required = [p for p in positional if p.default is p.empty]
    return len(required) == 1 and (count == 1 or required[0] is positional[0])


def _unpacked_names(function: Any, count: int) -> list[str] | None:
    """The names in ``x, w = inputs`` at the head of a function, if that can be read."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError, ValueError):
        return None
    function_node = next((n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)), None)
    if function_node is None or not function_node.args.args:
        return None
    packed = function_node.args.args[0].arg
    for node in ast.walk(function_node):
        if not (isinstance(node, ast.Assign) and isinstance(node.value, ast.Name | ast.Subscript)):
            continue
        target, value = node.targets[0], node.value
        if isinstance(value, ast.Name) and value.id == packed and isinstance(target, ast.Tuple | ast.List):
            names = [e.id for e in target.elts if isinstance(e, ast.Name)]
            return names if len(names) == count == len(set(names)) else None
        if isinstance(value, ast.Subscript) and isinstance(value.value, ast.Name) and value.value.id == packed:
            return [target.id] if isinstance(target, ast.Name) and count == 1 else None
    return None


def _options_and_leaves(params: Any) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What ``params`` means: keyword options by name, or Tensors whose gradients are checked too."""
    if params is None:
        return {}, {}
    if hasattr(params, "named_parameters"):
        return {}, dict(params.named_parameters())
    if isinstance(params, Mapping):
        return dict(params), {}
    leaves: Sequence[Any] = [params] if isinstance(params, Tensor) else list(params) if isinstance(params, Iterable) else []
    if not leaves or not all(isinstance(t, Tensor) for t in leaves):
        raise TypeError(
            "gradcheck: params must be a dict of keyword options, or Tensors (a list, or a module), "
            f"got {type(params).__name__}"
        )
    return {}, {f"params[{i}]": t for i, t in enumerate(leaves)}


