"""Learning-rate schedules: the learning rate as a function of how many steps were made.

Every schedule here is a pure function ``lr_at(base_lr, step)``; nothing depends on the path, so a run continues from
a checkpoint with one integer. (PyTorch multiplies the last rate by a factor, which gives the same curve up to
rounding. Here a change of ``group["lr"]`` by hand lasts until the next ``step()``; change ``initial_lr`` instead.)
"""

from __future__ import annotations

import bisect
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from minires.optim.optimizer import Optimizer, require

__all__ = ["CosineAnnealingLR", "LinearLR", "LinearWarmup", "MultiStepLR", "OneCycleLR", "Schedule", "StepLR"]


class Schedule(ABC):
    """Base class: sets the learning rate of every group at each :meth:`step`.

    Call ``step()`` after ``optimizer.step()``, once an epoch or once a batch: a schedule counts calls.

    Args:
        optimizer: the learning rate of each of its groups is the base rate (kept as ``group["initial_lr"]``).
        last_epoch: number of the last step that was made, -1 at the start.
    """

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"optimizer: expected an Optimizer, got {type(optimizer).__name__}")
        self.optimizer = optimizer
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        self.base_lrs: list[float] = [group["initial_lr"] for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        self.step()

    @abstractmethod
    def lr_at(self, base_lr: float, step: int) -> float:
        """The learning rate after ``step`` steps."""

    def step(self) -> None:
        """Count one step and set the learning rates."""
        self.last_epoch += 1
        self._apply()

    def _apply(self) -> None:
        for group, base in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            group["lr"] = self.lr_at(base, self.last_epoch)

    def get_last_lr(self) -> list[float]:
        """The learning rate of each group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """The position and the base rates."""
        return {"last_epoch": self.last_epoch, "base_lrs": list(self.base_lrs)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue at a saved position.

        Raises:
            ValueError: the number of groups differs.
        """
        if len(state_dict["base_lrs"]) != len(self.base_lrs):
            raise ValueError(f"schedule: saved for {len(state_dict['base_lrs'])} groups, this has {len(self.base_lrs)}")
        self.last_epoch, self.base_lrs = int(state_dict["last_epoch"]), [float(lr) for lr in state_dict["base_lrs"]]
        self._apply()


class StepLR(Schedule):
    """The base rate times ``gamma`` for every ``step_size`` steps made."""

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1) -> None:
        require("step_size", step_size, "a whole number >= 1", lambda value: value >= 1)
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer, last_epoch)

    def lr_at(self, base_lr: float, step: int) -> float:
        """The learning rate after ``step`` steps."""
        return float(base_lr * self.gamma ** (step // self.step_size))


class MultiStepLR(Schedule):
    """The base rate times ``gamma`` for every one of ``milestones`` (step numbers) that was passed."""

    def __init__(self, optimizer: Optimizer, milestones: Sequence[int], gamma: float = 0.1, last_epoch: int = -1) -> None:
        self.milestones, self.gamma = sorted(milestones), gamma
        super().__init__(optimizer, last_epoch)

    def lr_at(self, base_lr: float, step: int) -> float:
        """The learning rate after ``step`` steps."""
        return float(base_lr * self.gamma ** bisect.bisect_right(self.milestones, step))


class CosineAnnealingLR(Schedule):
    """Half a cosine from the base rate down to ``eta_min`` in ``T_max`` steps (and up again in as many).

    η(t) = η_min + (η₀ - η_min)·(1 + cos(π·t/T_max))/2, Loshchilov and Hutter 2017, "SGDR" (arXiv:1608.03983), equation 5.
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1) -> None:
        require("T_max", T_max, "a whole number >= 1", lambda value: value >= 1)
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer, last_epoch)

    def lr_at(self, base_lr: float, step: int) -> float:
        """The learning rate after ``step`` steps."""
        return self.eta_min + (base_lr - self.eta_min) * (1 + math.cos(math.pi * step / self.T_max)) / 2


class LinearLR(Schedule):
    """A factor on the base rate that grows from ``start_factor`` to ``end_factor`` in ``total_iters`` steps."""

    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        require("start_factor", start_factor, "a number in (0, 1]", lambda value: 0 < value <= 1)
        require("end_factor", end_factor, "a number in [0, 1]", lambda value: 0 <= value <= 1)
        require("total_iters", total_iters, "a whole number >= 1", lambda value: value >= 1)
        self.start_factor, self.end_factor, self.total_iters = start_factor, end_factor, total_iters
        super().__init__(optimizer, last_epoch)

    def lr_at(self, base_lr: float, step: int) -> float:
        """The learning rate after ``step`` steps."""
        done = min(step, self.total_iters) / self.total_iters
        return base_lr * (self.start_factor + (self.end_factor - self.start_factor) * done)


class LinearWarmup(Schedule):
    """A linear warm-up in front of any other schedule, whose own step 0 is the end of the warm-up.

    The same as PyTorch's ``SequentialLR([LinearLR(...), schedule], milestones=[total_iters])``.

    Args:
        schedule: what follows; it is stepped by this one, do not step it yourself.
        total_iters: length of the warm-up in steps; 0 for none.
        start_factor: the first rate is this times the base rate.
    """

    def __init__(self, schedule: Schedule, total_iters: int, start_factor: float = 0.01) -> None:
        require("total_iters", total_iters, "a whole number >= 0", lambda value: value >= 0)
        require("start_factor", start_factor, "a number in (0, 1]", lambda value: 0 < value <= 1)
        self.schedule, self.total_iters, self.start_factor = schedule, total_iters, start_factor
        super().__init__(schedule.optimizer)

    def lr_at(self, base_lr: float, step: int) -> float:
        """The learning rate after ``step`` steps."""
        if step >= self.total_iters:
            return self.schedule.lr_at(base_lr, step - self.total_iters)
        return base_lr * (self.start_factor + (1 - self.start_factor) * step / self.total_iters)

    def _apply(self) -> None:
        self.schedule.last_epoch = max(self.last_epoch - self.total_iters, 0)
        self.schedule._apply()  # it may set more than the learning rate, as OneCycleLR does
        super()._apply()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue at a saved position."""
        self.schedule.base_lrs = [float(lr) for lr in state_dict["base_lrs"]]
        super().load_state_dict(state_dict)


class OneCycleLR(Schedule):
    """Up to ``max_lr`` and down again, in one cycle of ``total_steps`` steps; the momentum goes the other way.

    Smith and Topin 2018, "Super-convergence" (arXiv:1708.07120), with PyTorch's phases.

    Args:
        optimizer: an optimiser with a ``momentum`` or ``betas`` if ``cycle_momentum``.
        max_lr: the highest rate, one number or one for each group.
        total_steps: length of the cycle; may be left out if ``epochs`` and ``steps_per_epoch`` are given.
        epochs: number of epochs.
        steps_per_epoch: steps in an epoch.
        pct_start: share of the cycle that goes up.
        anneal_strategy: "cos" or "linear".
        cycle_momentum: move the momentum as well, from ``max_momentum`` to ``base_momentum`` and back.
        base_momentum: the lowest momentum.
        max_momentum: the highest momentum.
        div_factor: the first rate is ``max_lr / div_factor``.
        final_div_factor: the last rate is the first one divided by this.
        three_phase: go down to the first rate as fast as up, then on to the last one.
        last_epoch: number of the last step that was made, -1 at the start.

    Raises:
        ValueError: wrong options, or a step beyond the end of the cycle.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | Sequence[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float = 0.85,
        max_momentum: float = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
    ) -> None:
        if total_steps is None:
            if epochs is None or steps_per_epoch is None:
                raise ValueError("OneCycleLR: give total_steps, or both epochs and steps_per_epoch")
            total_steps = epochs * steps_per_epoch
        require("total_steps", total_steps, "a whole number >= 1", lambda value: value >= 1)
        require("pct_start", pct_start, "a number in [0, 1]", lambda value: 0 <= value <= 1)
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(f"anneal_strategy: expected 'cos' or 'linear', got {anneal_strategy!r}")
        self.total_steps, self._between = total_steps, _cosine if anneal_strategy == "cos" else _linear
        highest = list(max_lr) if isinstance(max_lr, Sequence) else [max_lr] * len(optimizer.param_groups)
        if len(highest) != len(optimizer.param_groups):
            raise ValueError(f"max_lr: {len(highest)} rates for {len(optimizer.param_groups)} groups")
        for group, rate in zip(optimizer.param_groups, highest, strict=True):
            group["initial_lr"] = rate / div_factor
        self.div_factor = div_factor
        self._ends, self._rates, self._momenta = _phases(total_steps, pct_start, three_phase)
        self._levels = {"first": 1.0, "max": div_factor, "last": 1 / final_div_factor}
        self._momentum = {"low": base_momentum, "high": max_momentum} if cycle_momentum else None
        super().__init__(optimizer, last_epoch)

    def _value(self, step: int, names: list[str], levels: dict[str, float]) -> float:
        if step > self.total_steps:
            raise ValueError(f"OneCycleLR: step {step} is beyond the cycle of {self.total_steps} steps")
        start = 0.0
        for i, end in enumerate(self._ends):
            if step <= end or i == len(self._ends) - 1:
                share = (step - start) / (end - start) if end != start else 1.0
                return self._between(levels[names[i]], levels[names[i + 1]], share)
            start = end
        raise AssertionError("a cycle has phases")

    def lr_at(self, base_lr: float, step: int) -> float:
        """The learning rate after ``step`` steps; ``base_lr`` is the first one of the cycle."""
        return base_lr * self._value(step, self._rates, self._levels)

    def _apply(self) -> None:
        super()._apply()
        if self._momentum is None:
            return
        momentum = self._value(self.last_epoch, self._momenta, self._momentum)
        for group in self.optimizer.param_groups:
            if "betas" in group:
                group["betas"] = (momentum, *group["betas"][1:])
            elif group.get("momentum"):
                group["momentum"] = momentum
            else:
                raise ValueError("OneCycleLR: cycle_momentum needs an optimizer with a momentum; pass cycle_momentum=False")


def _phases(total_steps: int, pct_start: float, three_phase: bool) -> tuple[list[float], list[str], list[str]]:
    """The last step of each phase, and the names of the rates and momenta between which the phases lie."""
    up = float(pct_start * total_steps) - 1
    if three_phase:
        return [up, 2 * up, total_steps - 1.0], ["first", "max", "first", "last"], ["high", "low", "high", "high"]
    return [up, total_steps - 1.0], ["first", "max", "last"], ["high", "low", "high"]


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))


def _linear(start: float, end: float, share: float) -> float:
    return start + (end - start) * share
