"""What all optimisers share: parameter groups, zeroing gradients, and saving the state."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from minires.device import array_module, device_of
from minires.modes import enable_grad
from minires.optim.flat import FlatBuffer
from minires.tensor import Tensor

__all__ = ["Optimizer", "require"]


class Optimizer(ABC):
    """Base class of the optimisers.

    The parameters of a group are moved into one flat array (see :mod:`minires.optim.flat`): their ``.data`` become views
    of it. Gradients stay arrays of their own. A parameter that is listed twice in a group counts once.

    Args:
        params: Tensors, or ``(name, Tensor)`` pairs as from ``model.named_parameters()``, or a list of dicts, each with
            ``"params"`` and the options in which this group differs.
        defaults: the options of a group that does not say otherwise.

    Attributes:
        param_groups: a dict for each group: its ``"params"`` and its options, which may be changed between steps.

    Raises:
        ValueError: no parameters, one in two groups, or an option out of its range.
        TypeError: something that is no Tensor.
    """

    #: The kernel that does what :meth:`update` says on a GPU, where there is one; see :mod:`minires.kernels.cuda.optim`.
    kernel: ClassVar[str | None] = None

    def __init_subclass__(cls, **arguments: Any) -> None:
        """A subclass with a rule of its own has no kernel, unless it names one."""
        super().__init_subclass__(**arguments)
        if "update" in cls.__dict__ and "kernel" not in cls.__dict__:
            cls.kernel = None

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        self.defaults = defaults
        self.param_groups: list[dict[str, Any]] = []
        self._buffers: list[list[FlatBuffer]] = []
        if isinstance(params, Tensor):
            raise TypeError("params: expected a list of Tensors or of dicts, got one Tensor")
        given = list(params)
        if not given:
            raise ValueError("params: the list of parameters is empty")
        for group in given if isinstance(given[0], dict) else [{"params": given}]:
            self.add_param_group(group)

    @abstractmethod
    def check(self, group: dict[str, Any]) -> None:
        """Raise ValueError if an option of the group is out of its range."""

    @abstractmethod
    def state_names(self, group: dict[str, Any]) -> list[str]:
        """Names of the arrays that this optimiser keeps for each parameter of the group."""

    @abstractmethod
    def update(
        self, group: dict[str, Any], steps: int, weight: Any, gradient: Any, scratch: Any, state: dict[str, Any]
    ) -> None:
        """The update rule on one block, in place; see :data:`minires.optim.flat.Update`."""

    def numbers(self, group: dict[str, Any]) -> tuple[float, ...]:
        """The options of a group as the rule's :attr:`kernel` takes them."""
        return ()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group: a dict with ``"params"`` and options; what it leaves out comes from the defaults."""
        unknown = set(param_group) - set(self.defaults) - {"params", "param_names", "initial_lr"}
        if unknown or "params" not in param_group:
            what = f"unknown option '{min(unknown)}'" if unknown else "no 'params'"
            raise ValueError(f"param_group: {what}; a group has 'params' and any of {', '.join(self.defaults)}")
        group = {**self.defaults, **param_group}
        self.check(group)
        names, group["params"] = _unique(group["params"])
        if any(names):
            group["param_names"] = names
        taken = {id(p) for other in self.param_groups for p in other["params"]}
        for parameter in group["params"]:
            if id(parameter) in taken:
                raise ValueError(f"param_group: a parameter of shape {parameter.shape} is in two groups")
        self.param_groups.append(group)
        kinds: dict[Any, list[Tensor]] = {}
        for parameter in group["params"]:
            if parameter.data.size:
                kinds.setdefault((device_of(parameter.data), parameter.dtype), []).append(parameter)
        names = self.state_names(group)
        self._buffers.append([FlatBuffer(parameters, names, self.kernel) for parameters in kinds.values()])

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients; with ``set_to_none=False`` overwrite them with zeros instead."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if set_to_none:
                    parameter.grad = None
                elif parameter.grad is not None:
                    parameter.grad.zero_()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient.

        Args:
            closure: computes the loss again, with its gradients, before the update.

        Returns:
            What ``closure`` returned, or None.
        """
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        self._complete_state()
        for group, buffers in zip(self.param_groups, self._buffers, strict=True):
            for buffer in buffers:
                buffer.apply(lambda *block, group=group: self.update(group, *block), self.numbers(group))
        return loss

    def refresh_options(self) -> None:
        """Write options that changed, such as the learning rate, to the device.

        :meth:`step` does this itself; a CUDA graph that replays a captured step does not, so call this before each replay
        (in the stream of the replay).
        """
        for group, buffers in zip(self.param_groups, self._buffers, strict=True):
            for buffer in buffers:
                buffer.refresh(self.numbers(group))

    # -------------------------------------------------------------------------------- saving

    def state_dict(self) -> dict[str, Any]:
        """Copies of everything an exact continuation needs, in PyTorch's form.

        Returns:
            ``{"state": {number: {"step": int, name: array}}, "param_groups": [{..., "params": [numbers]}]}``. Parameters
            are numbered through all groups; arrays have the parameter's shape.
        """
        self._complete_state()
        numbers = {id(p): i for i, p in enumerate(self._all())}
        groups = [{**group, "params": [numbers[id(p)] for p in group["params"]]} for group in self.param_groups]
        state: dict[int, dict[str, Any]] = {}
        for buffer in (b for buffers in self._buffers for b in buffers):
            for i, (parameter, steps) in enumerate(zip(buffer.parameters, buffer.steps, strict=True)):
                if steps:
                    arrays = {name: buffer.part(flat, i).copy(order="C") for name, flat in buffer.state.items()}
                    state[numbers[id(parameter)]] = {"step": steps, **arrays}
        return {"state": dict(sorted(state.items())), "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue where :meth:`state_dict` was taken.

        Raises:
            ValueError: groups, parameters or shapes differ from those of this optimiser.
        """
        groups = state_dict["param_groups"]
        sizes, expected = [len(g["params"]) for g in groups], [len(g["params"]) for g in self.param_groups]
        if sizes != expected:
            raise ValueError(f"load_state_dict: the groups have {sizes} parameters, those of this optimizer {expected}")
        state = {int(number): values for number, values in state_dict["state"].items()}
        numbers = {id(p): i for i, p in enumerate(self._all())}
        for group, saved in zip(self.param_groups, groups, strict=True):
            options = {k: v for k, v in saved.items() if k not in ("params", "param_names")}
            self.check({**group, **options})
            group.update(options)
        self._complete_state()
        for buffer in (b for buffers in self._buffers for b in buffers):
            found = [state.get(numbers[id(parameter)], {"step": 0}) for parameter in buffer.parameters]
            buffer.steps = [int(saved["step"]) for saved in found]
            for i, parameter in enumerate(buffer.parameters):
                self._load_one(buffer, i, numbers[id(parameter)], found[i])

    def _load_one(self, buffer: FlatBuffer, i: int, number: int, saved: dict[str, Any]) -> None:
        for name, flat in buffer.state.items():
            target = buffer.part(flat, i)
            value = saved.get(name, 0)
            value = value.data if isinstance(value, Tensor) else value
            if getattr(value, "shape", target.shape) != target.shape or (saved["step"] and name not in saved):
                have, want = getattr(value, "shape", "nothing"), target.shape
                raise ValueError(f"load_state_dict: {name} of parameter {number} should have shape {want}, got {have}")
            target[...] = array_module(target).asarray(value)

    def _complete_state(self) -> None:
        """Make the state that options ask for now: they may have changed since the group was added."""
        for group, buffers in zip(self.param_groups, self._buffers, strict=True):
            for buffer in buffers:
                buffer.add_state(self.state_names(group))

    def _all(self) -> list[Tensor]:
        return [parameter for group in self.param_groups for parameter in group["params"]]

    def __repr__(self) -> str:
        """One line for each group."""
        lines = []
        for i, group in enumerate(self.param_groups):
            options = ", ".join(f"{k}={v}" for k, v in group.items() if k not in ("params", "param_names", "initial_lr"))
            count = sum(p.numel() for p in group["params"])
            lines.append(f"  group {i}: {len(group['params'])} parameters, {count:,} numbers, {options}")
        return f"{type(self).__name__}(\n" + "\n".join(lines) + "\n)"


def require(name: str, value: Any, expected: str, holds: Callable[[Any], bool] = lambda value: True) -> None:
    """Raise a ValueError that names the option, unless ``value`` is a finite number for which ``holds`` is true."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not holds(value):
        raise ValueError(f"{name}: expected {expected}, got {value!r}")


def _unique(given: Any) -> tuple[list[str], list[Tensor]]:
    """Names (empty where none was given) and Tensors, each Tensor once."""
    pairs = [item if isinstance(item, tuple) else ("", item) for item in ([given] if isinstance(given, Tensor) else given)]
    seen: dict[int, tuple[str, Tensor]] = {}
    for name, parameter in pairs:
        if not isinstance(parameter, Tensor):
            raise TypeError(f"params: expected Tensors, got {type(parameter).__name__}")
        if not parameter.is_leaf or parameter.dtype.kind != "f":
            kind = f"dtype {parameter.dtype}" if parameter.is_leaf else "the result of an op"
            raise ValueError(f"params: {name or 'a Tensor'} of shape {parameter.shape} cannot be optimised, it is {kind}")
        seen.setdefault(id(parameter), (name, parameter))
    if not seen:
        raise ValueError("params: the list of parameters is empty")
    return [name for name, _ in seen.values()], [parameter for _, parameter in seen.values()]
