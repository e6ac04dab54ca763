"""Loss scaling, which keeps small gradients alive in float16.

Below 6e-8 float16 knows only 0, and many gradients of a network are smaller than that. So the loss is multiplied by a large
number before the backward pass: then all gradients are, and before the optimiser uses them they are divided by it again,
in float32. If the number was too large, some gradient became infinite or NaN; that step is left out, and the number halved.
After many good steps it is doubled, so it stays as large as it can be (Micikevicius et al., *Mixed Precision Training*,
ICLR 2018, section 3.2).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from minires.kernels import of as kernels_of
from minires.optim.optimizer import Optimizer, require
from minires.precision import is_half

__all__ = ["GradScaler"]


class _Found:
    """What happened to one optimiser since the last :meth:`GradScaler.update`."""

    def __init__(self) -> None:
        self.is_unscaled = self.is_stepped = False
        self.norms: list[Any] = []  # for each device the largest magnitude of a gradient, an array without axes on it
        self._is_finite: bool | None = None

    def is_finite(self) -> bool:
        """Whether no gradient was infinite or NaN. Waits for the device, once."""
        if self._is_finite is None:
            self._is_finite = all(math.isfinite(float(norm)) for norm in self.norms)
        return self._is_finite


class GradScaler:
    """Scales the loss, and leaves out steps whose gradients overflowed; as PyTorch's ``torch.amp.GradScaler``.

    ::

        scaler = mr.GradScaler()
        for images, labels in loader:
            optimizer.zero_grad()
            with mr.autocast("float16"):
                loss = F.cross_entropy(model(images), labels)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()

    bfloat16 has the range of float32 and needs no scaling. Unlike PyTorch's, the first argument is not a device: gradients
    are looked at where they are. :meth:`step` reads one number from the device, and so waits for it.

    Args:
        init_scale: the first factor.
        growth_factor: the factor is multiplied by it after ``growth_interval`` good steps in a row, > 1.
        backoff_factor: the factor is multiplied by it after a step that overflowed, between 0 and 1.
        growth_interval: see above.
        enabled: False: losses stay as they are, and :meth:`step` just steps.

    Raises:
        ValueError: a number out of its range.
    """

    def __init__(
        self,
        init_scale: float = 2.0**16,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        enabled: bool = True,
    ) -> None:
        require("init_scale", init_scale, "a number > 0", lambda value: value > 0)
        require("growth_factor", growth_factor, "a number > 1", lambda value: value > 1)
        require("backoff_factor", backoff_factor, "a number between 0 and 1", lambda value: 0 < value < 1)
        require("growth_interval", growth_interval, "a number >= 1", lambda value: value >= 1)
        self._enabled = enabled
        self._scale, self._good_steps = float(init_scale), 0
        self._growth, self._backoff, self._interval = float(growth_factor), float(backoff_factor), int(growth_interval)
        self._found: dict[Optimizer, _Found] = {}

    def is_enabled(self) -> bool:
        """Whether it does anything."""
        return self._enabled

    def get_scale(self) -> float:
        """The factor; 1 if not enabled."""
        return self._scale if self._enabled else 1.0

    def scale(self, outputs: Any) -> Any:
        """A loss (or a list or tuple of several, nested as you like) times the factor."""
        if not self._enabled:
            return outputs
        if isinstance(outputs, list | tuple):
            return type(outputs)(self.scale(each) for each in outputs)
        return outputs * self._scale

    def unscale_(self, optimizer: Optimizer) -> None:
        """Divide the gradients of an optimiser's parameters by the factor, in place.

        :meth:`step` does it where it was not done. Call it before whatever looks at gradients, such as
        ``clip_grad_norm_``; once for each step.

        Raises:
            RuntimeError: it was called already since the last :meth:`update`, or after :meth:`step`.
            ValueError: a gradient is float16 or bfloat16: weights must be float32, casting is the job of ``autocast``.
        """
        if not self._enabled:
            return
        found = self._found.setdefault(optimizer, _Found())
        if found.is_stepped:
            raise RuntimeError("unscale_: comes after step() for this optimizer; call it before, once in every update()")
        if found.is_unscaled:
            raise RuntimeError("unscale_: was called for this optimizer already since the last update()")
        found.norms = [_unscale(gradients, 1 / self._scale) for gradients in _gradients(optimizer)]
        found.is_unscaled = True

    def step(self, optimizer: Optimizer, *args: Any, **kwargs: Any) -> Any:
        """Step the optimiser, unless a gradient is infinite or NaN.

        Args:
            optimizer: its gradients are divided by the factor first, if :meth:`unscale_` was not called.
            *args: given to ``optimizer.step``.
            **kwargs: likewise.

        Returns:
            What ``optimizer.step`` returned; None if the step was left out.

        Raises:
            RuntimeError: it was called already since the last :meth:`update`, or with a closure.
        """
        if not self._enabled:
            return optimizer.step(*args, **kwargs)
        if args or "closure" in kwargs:
            raise RuntimeError("step: a closure computes new gradients, which would not be unscaled")
        found = self._found.setdefault(optimizer, _Found())
        if found.is_stepped:
            raise RuntimeError("step: was called for this optimizer already since the last update()")
        if not found.is_unscaled:
            self.unscale_(optimizer)
        found.is_stepped = True
        return optimizer.step(**kwargs) if found.is_finite() else None

    def update(self, new_scale: float | None = None) -> None:
        """Adjust the factor, after the step of every optimiser.

        Args:
            new_scale: the factor from now on; None: smaller after an overflow, larger after enough good steps.

        Raises:
            RuntimeError: no optimiser was unscaled or stepped since the last time.
            ValueError: ``new_scale`` is no number above 0.
        """
        if not self._enabled:
            return
        if new_scale is not None:
            require("new_scale", new_scale, "a number > 0", lambda value: value > 0)
            self._scale = float(new_scale)
        elif not self._found:
            raise RuntimeError("update: no optimizer was unscaled or stepped since the last update()")
        elif not all(found.is_finite() for found in self._found.values()):
            self._scale, self._good_steps = self._scale * self._backoff, 0
        else:
            self._good_steps += 1
            if self._good_steps >= self._interval:
                larger = self._scale * self._growth
                self._scale, self._good_steps = larger if larger < _LARGEST else self._scale, 0
        self._found.clear()

    def state_dict(self) -> dict[str, Any]:
        """What :meth:`load_state_dict` takes: plain numbers, with PyTorch's names. Empty if not enabled."""
        if not self._enabled:
            return {}
        return {
            "scale": self._scale, "growth_factor": self._growth, "backoff_factor": self._backoff,
            "growth_interval": self._interval, "_growth_tracker": self._good_steps,
        }  # fmt: skip

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue where :meth:`state_dict` was taken.

        Raises:
            ValueError: it is empty, because it was taken from a scaler that was not enabled.
        """
        if not self._enabled:
            return
        if not state_dict:
            raise ValueError("load_state_dict: the state is empty; it was saved by a scaler that was not enabled")
        self._scale, self._growth = float(state_dict["scale"]), float(state_dict["growth_factor"])
        self._backoff, self._interval = float(state_dict["backoff_factor"]), int(state_dict["growth_interval"])
        self._good_steps = int(state_dict["_growth_tracker"])


#: The factor stays a number of float32, as losses are.
_LARGEST = 2.0**127


def _gradients(optimizer: Optimizer) -> Iterable[list[Any]]:
    """The gradients of all parameters as arrays, those on one device together."""
    devices: dict[str, list[Any]] = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            gradient = parameter.grad
            if gradient is None:
                continue
            if is_half(gradient):
                raise ValueError(f"unscale_: a gradient is {gradient.dtype}; keep weights in float32, autocast() casts them")
            gradient.memory.check_writable("unscale_")
            devices.setdefault(gradient.device, []).append(gradient.data)
    return devices.values()


def _unscale(gradients: list[Any], factor: float) -> Any:
    """Multiply by ``factor`` in place; returns the largest magnitude before, on the device."""
    largest = kernels_of(gradients[0]).gradient_norm(gradients, math.inf)
    for gradient in gradients:
        gradient *= factor
    return largest
