"""Modules: functions with parameters of their own, nested in each other.

A network is a tree of modules. The tree gives every parameter a name (``stage1.0.trunk.1.conv2.weight``) and an order,
the one in which the layers were assigned, which in minires is always the order in which the forward pass uses them. All
that a trainer does with a network goes over that tree: collect parameters, move to a device, save, load, print, observe.
Names and semantics are PyTorch's.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np

from minires.device import to_device
from minires.errors import _LocatedError
from minires.modes import state
from minires.nn import loading
from minires.precision import INEXACT
from minires.tensor import Tensor

__all__ = ["Module", "Parameter", "RemovableHandle", "evaluation_mode"]

_M = TypeVar("_M", bound="Module")
_handle_numbers = itertools.count()


class Parameter(Tensor):
    """A Tensor that a module learns: assigned to an attribute of a module, it is one of its parameters.

    Args:
        data: a Tensor or an array; its memory is used, not copied.
        requires_grad: collect derivatives in ``.grad``.
    """

    __slots__ = ()

    def __init__(self, data: Any, requires_grad: bool = True) -> None:
        super().__init__(data.data if isinstance(data, Tensor) else data, requires_grad)

    def __repr__(self) -> str:
        return f"Parameter containing:\n{super().__repr__()}"


class RemovableHandle:
    """What registering a hook returns: ``remove()`` takes the hook away again; so does leaving a ``with`` block."""

    def __init__(self, hooks: dict[int, Any], hook: Callable[..., Any]) -> None:
        self._hooks, self._number = hooks, next(_handle_numbers)
        hooks[self._number] = hook

    def remove(self) -> None:
        """Take the hook away; doing it twice is harmless."""
        self._hooks.pop(self._number, None)

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *error: object) -> None:
        self.remove()


class Module:
    """Base class of all layers and networks.

    A subclass assigns parameters and other modules to attributes in ``__init__`` (after ``super().__init__()``), in the
    order in which it uses them, and defines ``forward``. Calling the module calls ``forward`` between its hooks.

    Attributes:
        training: whether the module is in training mode; see :meth:`train`.
    """

    training: bool

    def __init__(self) -> None:
        # Straight into __dict__, because __setattr__ looks into these.
        self.__dict__.update(
            training=True, _parameters={}, _buffers={}, _modules={}, _transient=[], _pre_hooks={}, _post_hooks={}, _name=""
        )

    # -------------------------------------------------------------------------------- calling

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes; every subclass defines it."""
        raise NotImplementedError(f"{type(self).__name__}: this module defines no forward()")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """``forward`` between the hooks; errors and anomalies inside learn the path of this module."""
        path = state.modules
        path.append((path and self._name) or type(self).__name__)
        try:
            for pre_hook in list(self._pre_hooks.values()):
                changed = pre_hook(self, args)
                if changed is not None:
                    args = changed if isinstance(changed, tuple) else (changed,)
            output = self.forward(*args, **kwargs)
            for hook in list(self._post_hooks.values()):
                changed = hook(self, args, output)
                output = output if changed is None else changed
            return output
        except _LocatedError as error:
            if not error.module_path:  # else a module further inside has been here
                error.module_path = ".".join(path)
            raise
        finally:
            path.pop()

    def register_forward_pre_hook(self, hook: Callable[[Any, tuple[Any, ...]], Any]) -> RemovableHandle:
        """Call ``hook(module, args)`` before ``forward``; what it returns (unless None) takes the place of ``args``."""
        return RemovableHandle(self._pre_hooks, hook)

    def register_forward_hook(self, hook: Callable[[Any, tuple[Any, ...], Any], Any]) -> RemovableHandle:
        """Call ``hook(module, args, output)`` after ``forward``; what it returns (unless None) replaces the output."""
        return RemovableHandle(self._post_hooks, hook)

    # -------------------------------------------------------------------------------- registering

    def __setattr__(self, name: str, value: Any) -> None:
        tables = self.__dict__
        if "_parameters" not in tables:
            raise AttributeError(f"{type(self).__name__}: call super().__init__() before assigning '{name}'")
        if isinstance(value, Parameter):
            self.register_parameter(name, value)
        elif isinstance(value, Module):
            self.add_module(name, value)
        elif name in self._parameters and value is not None:
            raise TypeError(f"{type(self).__name__}.{name} is a parameter; expected a Parameter or None, got {_kind(value)}")
        elif name in self._buffers and value is not None and not isinstance(value, Tensor):
            raise TypeError(f"{type(self).__name__}.{name} is a buffer; expected a Tensor or None, got {_kind(value)}")
        else:
            for table in (self._parameters, self._buffers, self._modules):
                if name in table:
                    table[name] = value
                    return
            object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        for table in ("_parameters", "_buffers", "_modules"):
            found = self.__dict__.get(table, {})
            if name in found:
                return found[name]
        raise AttributeError(f"{type(self).__name__} has no attribute '{name}'")

    def __delattr__(self, name: str) -> None:
        for table in (self._parameters, self._buffers, self._modules):
            if name in table:
                del table[name]
                return
        object.__delattr__(self, name)

    def __dir__(self) -> list[str]:
        return sorted([*super().__dir__(), *self._parameters, *self._buffers, *self._modules])

    def register_parameter(self, name: str, parameter: Parameter | None) -> None:
        """Add a parameter, or the name of one that is absent (None), as a layer without a bias does."""
        self._check_name(name, self._parameters)
        if parameter is not None and not isinstance(parameter, Parameter):
            raise TypeError(f"register_parameter: '{name}' must be a Parameter or None, got {_kind(parameter)}")
        self._parameters[name] = parameter

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Add a Tensor that belongs to the state of the module but is not learned, as a running mean.

        It moves with the module and, if ``persistent``, is part of its ``state_dict``.
        """
        self._check_name(name, self._buffers)
        if tensor is not None and not isinstance(tensor, Tensor):
            raise TypeError(f"register_buffer: '{name}' must be a Tensor or None, got {_kind(tensor)}")
        self._buffers[name] = tensor
        if not persistent:
            self._transient.append(name)

    def add_module(self, name: str, module: Module | None) -> None:
        """Add a child; the same as assigning it to the attribute ``name``."""
        self._check_name(name, self._modules)
        if module is not None and not isinstance(module, Module):
            raise TypeError(f"add_module: '{name}' must be a Module or None, got {_kind(module)}")
        self._modules[name] = module
        if module is not None:
            module._set_name(name)

    def _check_name(self, name: str, table: dict[str, Any]) -> None:
        if not isinstance(name, str) or not name or "." in name:
            raise ValueError(f"{type(self).__name__}: a name must be a non-empty string without dots, got {name!r}")
        if name in table:
            return
        for other in (self._parameters, self._buffers, self._modules, self.__dict__):
            other.pop(name, None)
        if hasattr(type(self), name):
            raise ValueError(f"{type(self).__name__}: '{name}' is the name of a method or attribute of the class")

    def _set_name(self, name: str) -> None:
        """The last name under which a parent registered this module (errors show it)."""
        self.__dict__["_name"] = name

    # -------------------------------------------------------------------------------- walking the tree

    def named_modules(self, prefix: str = "", _seen: dict[int, None] | None = None) -> Iterator[tuple[str, Module]]:
        """Path and module for this module (path "") and all below it, in order, each once."""
        seen = {} if _seen is None else _seen
        if id(self) in seen:
            return
        seen[id(self)] = None
        yield prefix, self
        for name, child in self._modules.items():
            if child is not None:
                yield from child.named_modules(f"{prefix}.{name}" if prefix else name, seen)

    def modules(self) -> Iterator[Module]:
        """This module and all below it, each once."""
        return (module for _, module in self.named_modules())

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Name and module for each direct child."""
        return ((name, child) for name, child in self._modules.items() if child is not None)

    def children(self) -> Iterator[Module]:
        """The direct children."""
        return (child for _, child in self.named_children())

    def named_parameters(self, prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, Parameter]]:
        """Path and parameter, in forward order, each once even where modules share it."""
        return self._named("_parameters", prefix, recurse)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """The parameters, in forward order, each once."""
        return (parameter for _, parameter in self.named_parameters(recurse=recurse))

    def named_buffers(self, prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, Tensor]]:
        """Path and buffer, each once."""
        return self._named("_buffers", prefix, recurse)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """The buffers, each once."""
        return (buffer for _, buffer in self.named_buffers(recurse=recurse))

    def _named(self, table: str, prefix: str, recurse: bool) -> Iterator[tuple[str, Any]]:
        seen: dict[int, None] = {}
        for path, module in self.named_modules(prefix) if recurse else [(prefix, self)]:
            for name, tensor in getattr(module, table).items():
                if tensor is not None and id(tensor) not in seen:
                    seen[id(tensor)] = None
                    yield (f"{path}.{name}" if path else name), tensor

    def get_submodule(self, target: str) -> Module:
        """The module at a path such as ``"stage1.0.trunk"``; this module for ``""``."""
        module = self
        for i, name in enumerate(target.split(".") if target else []):
            child = module._modules.get(name)
            if child is None:
                where = ".".join(target.split(".")[:i]) or type(self).__name__
                names = ", ".join(module._modules) or "none"
                raise AttributeError(f"get_submodule('{target}'): {where} has no child '{name}'; it has: {names}")
            module = child
        return module

    def apply(self: _M, function: Callable[[Module], Any]) -> _M:
        """Call ``function`` on every module, children before parents; returns itself."""
        for child in self.children():
            child.apply(function)
        function(self)
        return self

    # -------------------------------------------------------------------------------- changing the whole tree

    def train(self: _M, mode: bool = True) -> _M:
        """Training mode on or off, here and below: batch norm and dropout behave differently. Returns itself."""
        for module in self.modules():
            module.training = bool(mode)
        return self

    def eval(self: _M) -> _M:
        """Evaluation mode: ``train(False)``."""
        return self.train(False)

    def requires_grad_(self: _M, requires_grad: bool = True) -> _M:
        """Switch the gradients of all parameters on or off (to freeze a part of a network); returns itself."""
        for parameter in self.parameters():
            parameter.requires_grad = requires_grad
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters, or fill them with 0 if ``set_to_none`` is False."""
        for parameter in self.parameters():
            if set_to_none or parameter.grad is None:
                parameter.grad = None
            else:
                parameter.grad.zero_()

    def to(self: _M, *targets: Any, device: str | None = None, dtype: Any = None) -> _M:
        """Move to a device and/or convert floating point values to a dtype, in place: ``to("cuda", np.float64)``.

        Or by name: ``to(device="cuda", dtype=np.float64)``.
        Integer buffers keep their dtype. Do this before an optimiser takes hold of the parameters. Returns itself.
        """
        targets = tuple(t for t in (*targets, device, dtype) if t is not None)
        devices = [t for t in targets if isinstance(t, str) and t.partition(":")[0] in ("cpu", "cuda")]
        dtypes = [np.dtype(t) for t in targets if t not in devices]
        for dtype in dtypes:
            if dtype.kind not in INEXACT:
                raise TypeError(f"{type(self).__name__}.to: only floating point dtypes are possible, got {dtype}")

        def convert(array: Any) -> Any:
            for device in devices:
                array = to_device(array, device)
            for dtype in dtypes:
                array = array.astype(dtype, copy=False) if array.dtype.kind in INEXACT else array
            return array

        for tensor in itertools.chain(self.parameters(), self.buffers()):
            tensor.data = convert(tensor.data)
            if tensor.grad is not None:
                tensor.grad = Tensor(convert(tensor.grad.data))
        return self

    def cpu(self: _M) -> _M:
        """Move to the CPU."""
        return self.to("cpu")

    def cuda(self: _M) -> _M:
        """Move to the GPU."""
        return self.to("cuda")

    def float(self: _M) -> _M:
        """All floating point values as float32."""
        return self.to(np.float32)

    def double(self: _M) -> _M:
        """All floating point values as float64."""
        return self.to(np.float64)

    # -------------------------------------------------------------------------------- saving and loading

    def state_dict(self, prefix: str = "") -> dict[str, Tensor]:
        """Path → Tensor for every parameter and persistent buffer, in forward order.

        The Tensors are detached but share memory with the module: copy them to keep a snapshot.
        """
        found: dict[str, Tensor] = {}
        for name, tensor in itertools.chain(self._parameters.items(), self._buffers.items()):
            if tensor is not None and name not in self._transient:
                found[prefix + name] = tensor.detach()
        for name, child in self.named_children():
            found.update(child.state_dict(f"{prefix}{name}."))
        return found

    def load_state_dict(self, state_dict: dict[str, Any], strict: bool = True) -> loading.IncompatibleKeys:
        """Overwrite parameters and buffers with those of ``state_dict`` (Tensors or arrays), all of them or none.

        Args:
            state_dict: path → values, as :meth:`state_dict` returns it.
            strict: every name must occur on both sides. Otherwise names without a counterpart are left alone.

        Returns:
            ``(missing_keys, unexpected_keys)``: names that only the module, or only ``state_dict``, has.

        Raises:
            CheckpointError: names (if ``strict``), shapes or dtypes do not fit; lists them all. Nothing was changed.
        """
        return loading.load(type(self).__name__, self.state_dict(), state_dict, strict)

    # -------------------------------------------------------------------------------- printing

    def extra_repr(self) -> str:
        """What stands between the parentheses of this module in a print; a layer shows its options."""
        return ""

    def __repr__(self) -> str:
        from minires.nn.summary import module_text  # it knows the layers, which derive from this class

        return module_text(self)

    def _repr_html_(self) -> str:
        from minires.nn.summary import module_html

        return module_html(self)


def _kind(value: Any) -> str:
    return type(value).__name__


@contextmanager
def evaluation_mode(model: Module) -> Iterator[None]:
    """Inside, ``model`` is in evaluation mode; afterwards every module is as it was."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
