"""Adam and AdamW: steps scaled by running means of the gradient and of its square."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from minires.device import array_module
from minires.optim.optimizer import Optimizer, require

__all__ = ["Adam", "AdamW"]


class Adam(Optimizer):
    """Kingma and Ba 2015, "Adam: a method for stochastic optimization" (arXiv:1412.6980), algorithm 1.

    With g the gradient plus ``weight_decay``·w, at step t::

        m = β₁·m + (1 - β₁)·g
        v = β₂·v + (1 - β₂)·g²
        w = w - lr/(1 - β₁ᵗ) · m / (√v / √(1 - β₂ᵗ) + eps)

    Args:
        params: Tensors, or dicts for groups with options of their own.
        lr: learning rate.
        betas: (β₁, β₂), how much of the old means is kept at each step.
        eps: keeps the division finite.
        weight_decay: factor of the L2 penalty, which is part of the gradient here.

    Raises:
        ValueError: an option is out of its range or not a finite number.
    """

    decoupled = False
    kernel = "adam"

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay})

    def check(self, group: dict[str, Any]) -> None:
        """Raise ValueError if an option is out of its range."""
        for name in ("lr", "eps", "weight_decay"):
            require(name, group[name], "a number >= 0", lambda value: value >= 0)
        if len(group["betas"]) != 2:
            raise ValueError(f"betas: expected two numbers, got {group['betas']!r}")
        for i, beta in enumerate(group["betas"]):
            require(f"betas[{i}]", beta, "a number in [0, 1)", lambda value: 0 <= value < 1)

    def state_names(self, group: dict[str, Any]) -> list[str]:
        """The two running means."""
        return ["exp_avg", "exp_avg_sq"]

    def numbers(self, group: dict[str, Any]) -> tuple[float, ...]:
        """As the kernel "adam" takes them."""
        return (group["lr"], *group["betas"], group["eps"], group["weight_decay"], self.decoupled)

    def update(
        self, group: dict[str, Any], steps: int, weight: Any, gradient: Any, scratch: Any, state: dict[str, Any]
    ) -> None:
        """The rule in the head of the class, on one block."""
        xp = array_module(weight)
        beta1, beta2 = group["betas"]
        mean, square = state["exp_avg"], state["exp_avg_sq"]
        if group["weight_decay"] and self.decoupled:
            weight *= 1 - group["lr"] * group["weight_decay"]
        elif group["weight_decay"]:
            gradient += xp.multiply(weight, group["weight_decay"], out=scratch)
        mean += xp.multiply(xp.subtract(gradient, mean, out=scratch), 1 - beta1, out=scratch)
        xp.multiply(gradient, gradient, out=scratch)
        scratch *= 1 - beta2
        square *= beta2
        square += scratch
        xp.sqrt(square, out=scratch)
        scratch /= math.sqrt(1 - beta2**steps)
        scratch += group["eps"]
        xp.divide(mean, scratch, out=scratch)
        scratch *= group["lr"] / (1 - beta1**steps)
        weight -= scratch


class AdamW(Adam):
    """Adam with weight decay apart from the gradient: w = w·(1 - lr·weight_decay) before each step.

    Loshchilov and Hutter 2019, "Decoupled weight decay regularization" (arXiv:1711.05101). The arguments are those of
    :class:`Adam`, with ``weight_decay`` 0.01 unless told otherwise.
    """

    decoupled = True

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay)
