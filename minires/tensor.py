"""Tensor: an array that remembers which op made it.

The class itself knows no mathematics. Operators and methods call the ops in :mod:`minires.functional`; the backward pass
is in :mod:`minires.autograd`. Names, argument order and defaults are PyTorch's.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, cast

import numpy as np

from minires import operators
from minires.device import array_module, bring, device_of
from minires.errors import ShapeError
from minires.memory import Memory, is_writable, memory_of, protect
from minires.operators import Operators, raw
from minires.precision import INEXACT

__all__ = ["Tensor"]

_T = TypeVar("_T", bound="Tensor")
Dims = int | Sequence[int] | None


class Tensor(Operators):
    """An n-dimensional array with a gradient.

    Args:
        data: a NumPy or CuPy array, used as it is (not copied). To make a Tensor from lists or numbers, or from a copy,
            call :func:`tensor`.
        requires_grad: collect derivatives with respect to this Tensor in ``.grad``. Floating point (or complex) only.

    Attributes:
        data: the raw array. A write to it while an op needs it for its gradient is refused.
        grad: the derivative collected by ``backward()``, a Tensor of the same shape, or None.
    """

    __slots__ = ("__weakref__", "_array", "_hooks", "_node", "_requires_grad", "_slot", "grad")

    # Makes NumPy leave ``array * tensor`` to Tensor.__rmul__.
    __array_ufunc__ = None

    def __init__(self, data: Any, requires_grad: bool = False) -> None:
        self._array = _checked("Tensor", data)
        self._node: Any = None
        self._slot = 0
        self._hooks: dict[int, Callable[[Tensor], Any]] | None = None
        self._requires_grad = False
        self.grad: Tensor | None = None
        if requires_grad:
            self.requires_grad = True

    @classmethod
    def _from_op(cls, array: Any, node: Any, slot: int) -> Tensor:
        """The output number ``slot`` of ``node`` (None: a constant), without the checks of the constructor."""
        if node is not None and array.dtype.kind not in INEXACT:
            node = None  # integers have no derivatives
        self = Tensor.__new__(Tensor)
        self._array = array
        self._node, self._slot = node, slot
        self._hooks = self.grad = None
        self._requires_grad = node is not None
        return self

    # -------------------------------------------------------------------------------- what it is

    @property
    def data(self) -> Any:
        """The raw NumPy or CuPy array; read-only while an op needs it."""
        protect(self._array)
        return self._array

    @data.setter
    def data(self, array: Any) -> None:
        array = _checked("data", raw(array))
        if self._requires_grad and array.dtype.kind not in INEXACT:
            raise TypeError(f"data: a Tensor that requires a gradient cannot hold dtype {array.dtype}")
        self._array = array

    @property
    def memory(self) -> Memory:
        """The lock shared by all Tensors over the same memory."""
        return memory_of(self._array)

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes."""
        return cast("tuple[int, ...]", self._array.shape)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return cast(int, self._array.ndim)

    @property
    def dtype(self) -> np.dtype[Any]:
        """NumPy's dtype of the elements."""
        return cast("np.dtype[Any]", self._array.dtype)

    @property
    def device(self) -> str:
        """``"cpu"``, or ``"cuda:0"`` and so on."""
        return device_of(self._array)

    @property
    def requires_grad(self) -> bool:
        """Whether derivatives with respect to this Tensor are wanted."""
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        if value and self.dtype.kind not in INEXACT:
            raise ValueError(f"requires_grad: only floating point Tensors have derivatives, this one is {self.dtype}")
        if not value and self._node is not None:
            raise ValueError("requires_grad: the result of an op cannot be switched off; use x.detach()")
        self._requires_grad = bool(value)

    @property
    def is_leaf(self) -> bool:
        """True if no recorded op made it."""
        return self._node is None

    @property
    def grad_fn(self) -> Any:
        """The node of the graph that made it, or None for a leaf."""
        return self._node

    def size(self, dim: int | None = None) -> Any:
        """The shape, or the size of one axis."""
        return self.shape if dim is None else self.shape[dim]

    def dim(self) -> int:
        """Number of axes."""
        return self.ndim

    def numel(self) -> int:
        """Number of elements."""
        return int(self._array.size)

    def __len__(self) -> int:
        if not self.ndim:
            raise TypeError("len() of a Tensor with no axes")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        if not self.ndim:
            raise TypeError("iteration over a Tensor with no axes")
        return (self[i] for i in range(self.shape[0]))

    def __repr__(self) -> str:
        from minires.display import tensor_text

        return tensor_text(self)

    def _repr_html_(self) -> str:
        from minires.display import tensor_html

        return tensor_html(self)

    def __deepcopy__(self: _T, memo: dict[int, Any]) -> _T:
        """A leaf with memory of its own, in the same memory layout, without gradient, hooks and locks."""
        if self._node is not None:
            raise ValueError("deepcopy: only leaves can be copied; this Tensor is the result of an op, detach() it first")
        out = type(self)(array_module(self._array).array(self._array, order="K"), self._requires_grad)
        memo[id(self)] = out
        return out

    def __reduce__(self) -> Any:
        """For ``copy.copy`` (which shares the memory) and ``pickle``: a leaf without gradient and hooks."""
        if self._node is not None:
            raise ValueError("copy, pickle: this Tensor is the result of an op, only leaves can be copied; detach() it")
        return type(self), (self._array, self._requires_grad)

    # -------------------------------------------------------------------------------- leaving the graph

    def numpy(self) -> np.ndarray[Any, Any]:
        """The values as a read-only NumPy array over the same memory (call ``.copy()`` on it to write)."""
        if array_module(self._array) is not np:
            raise TypeError(f"numpy: this Tensor is on {self.device}; use x.cpu().numpy()")
        view = self._array.view()
        view.flags.writeable = False
        return cast("np.ndarray[Any, Any]", view)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        array = self.numpy()
        if copy or (dtype is not None and array.dtype != dtype):
            return array.astype(dtype or array.dtype)
        return array

    def item(self) -> Any:
        """The one element as a Python number."""
        if self.numel() != 1:
            raise ValueError(f"item: only a Tensor of one element has one value, this one has shape {self.shape}")
        return self._array.item()

    def tolist(self) -> Any:
        """The values as nested lists of Python numbers."""
        return self._array.tolist()

    def detach(self) -> Tensor:
        """A Tensor over the same memory that is no part of the graph."""
        return Tensor(self._array)

    def to(self, *targets: Any, device: str | None = None, dtype: Any = None) -> Tensor:
        """On another device and/or with another dtype: ``to("cuda")``, ``to(np.float64)``, ``to("cuda", np.float64)``.

        Or by name: ``to(device="cuda", dtype=np.float64)``; or ``to(other)``, as another Tensor.
        Returns itself if nothing changes. The gradient finds its way back.
        """
        out: Tensor = self
        for target in (*targets, device, dtype):
            if target is None:
                continue
            if isinstance(target, Tensor):
                out = out.to(target.device, target.dtype)
            elif isinstance(target, str) and target.partition(":")[0] in ("cpu", "cuda"):
                if out.device != target and out.device.partition(":")[0] != target:
                    out = operators.functional.to_device(out, target)
            elif np.dtype(target) != out.dtype:
                out = operators.functional.cast(out, np.dtype(target))
        return out

    def cpu(self) -> Tensor:
        """On the CPU."""
        return self.to("cpu")

    def cuda(self) -> Tensor:
        """On the GPU."""
        return self.to("cuda")

    def float(self) -> Tensor:
        """As float32."""
        return self.to(np.float32)

    def double(self) -> Tensor:
        """As float64."""
        return self.to(np.float64)

    def long(self) -> Tensor:
        """As int64."""
        return self.to(np.int64)

    def bool(self) -> Tensor:
        """As booleans."""
        return self.to(np.bool_)

    def __bool__(self) -> Any:
        if self.numel() != 1:
            raise ValueError(f"bool: a Tensor of shape {self.shape} is neither true nor false; use (x > 0).all() or .any()")
        return bool_(self._array.item())

    def __float__(self) -> Any:
        return float_(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        if self.dtype.kind not in "iub":
            raise TypeError(f"only integer Tensors can be used as an index, this one is {self.dtype}")
        return int(self.item())

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec else str(self)

    # -------------------------------------------------------------------------------- gradients

    def backward(self, gradient: Any = None, retain_graph: Any = None, create_graph: Any = False) -> None:
        """Add the derivatives of this Tensor to ``.grad`` of all leaves; see :func:`minires.autograd.backward`."""
        from minires.autograd import backward  # the walk needs Tensor, so the import waits until here

        backward(self, gradient, retain_graph, create_graph)

    def requires_grad_(self: _T, requires_grad: Any = True) -> _T:
        """Switch the collection of derivatives on or off; returns itself."""
        self.requires_grad = requires_grad
        return self

    def retain_grad(self) -> None:
        """Keep ``.grad`` also for this Tensor, although it is the result of an op."""
        if not self._requires_grad:
            raise ValueError("retain_grad: this Tensor does not require a gradient")
        if self._node is not None:
            if self._node.retained is None:
                self._node.retained = {}
            self._node.retained[self._slot] = weakref.ref(self)

    def register_hook(self, hook: Callable[[Tensor], Any]) -> Callable[[], None]:
        """Call ``hook(gradient)`` when the gradient of this Tensor is complete.

        The hook may return a new gradient, or edit its argument in place (it is a copy). Returns a function that removes
        the hook.
        """
        if not self._requires_grad:
            raise ValueError("register_hook: this Tensor does not require a gradient")
        if self._node is None:
            if self._hooks is None:
                self._hooks = {}
            hooks = self._hooks
        else:
            if self._node.hooks is None:
                self._node.hooks = {}
            hooks = self._node.hooks.setdefault(self._slot, {})
        key = max(hooks, default=-1) + 1
        hooks[key] = hook
        return lambda: hooks.pop(key, None) and None

    # -------------------------------------------------------------------------------- changes in place

    def __setitem__(self, index: Any, value: Any) -> None:
        self._check_in_place("x[...] = value", value)
        parts = tuple(bring(raw(i), self._array) for i in (index if isinstance(index, tuple) else (index,)))
        self._array[parts if isinstance(index, tuple) else parts[0]] = bring(raw(value), self._array)

    def copy_(self: _T, source: Any) -> _T:
        """Overwrite the values with those of ``source`` (broadcast to this shape); returns itself."""
        self._check_in_place("copy_", source)
        try:
            self._array[...] = bring(raw(source), self._array)
        except ValueError:
            rule = "the source cannot be broadcast to this Tensor's shape"
            shape = getattr(raw(source), "shape", ())
            raise ShapeError("copy_", rule, tensor=(self.shape, ""), source=(shape, "")) from None
        return self

    def fill_(self: _T, value: Any) -> _T:
        """Overwrite every element with ``value``; returns itself."""
        return self.copy_(value)

    def zero_(self: _T) -> _T:
        """Overwrite every element with 0; returns itself."""
        return self.copy_(0)

    def _check_in_place(self, what: str, source: Any) -> None:
        from minires.autograd import is_grad_enabled

        if self._node is not None or (self._requires_grad and is_grad_enabled()):
            raise ValueError(
                f"{what}: changes in place are not recorded, so a Tensor that requires a gradient cannot be changed so. "
                "Use where() or arithmetic, or do it under no_grad() if it is a leaf."
            )
        if isinstance(source, Tensor) and source._requires_grad and is_grad_enabled():
            raise ValueError(
                f"{what}: changes in place are not recorded, so the new values would lose their gradient. "
                "Use where(), cat() or stack(), or write x.detach() if they are meant as constants."
            )
        self.memory.check_writable(what)
        if not is_writable(self._array):
            raise ValueError(f"{what}: this memory is read-only (expand() and some NumPy arrays are); work on x.clone()")

    def assign(self, source: Any) -> None:
        """Overwrite the values in an *announced* way, as optimisers and ``load_state_dict`` do.

        Allowed while a graph still needs the old values; that graph's backward pass then raises.
        """
        with self.memory.announced_change():
            self._array[...] = bring(raw(source), self._array)


def _checked(what: str, data: Any) -> Any:
    """``data`` as an array that a Tensor can hold; ``what`` names the call for the error."""
    if isinstance(data, np.ndarray | np.generic):
        data = np.asarray(data)  # a subclass such as np.memmap as a plain array over the same memory
    elif array_module(data) is np:
        raise TypeError(f"{what}: expected a NumPy or CuPy array, got {type(data).__name__} (use minires.tensor())")
    if data.dtype.kind not in "fciub" and data.dtype.name != "bfloat16":
        raise TypeError(f"{what}: dtype {data.dtype} is not supported; expected numbers or booleans")
    return data


# The names bool and float are methods inside the class, so these stand for the built-in types there.
bool_, float_ = bool, float
