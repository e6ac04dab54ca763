"""Stochastic gradient descent, the optimiser of the paper (momentum 0.9, Nesterov, weight decay 1e-4)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from minires.device import array_module
from minires.optim.optimizer import Optimizer, require

__all__ = ["SGD"]


class SGD(Optimizer):
    """Gradient descent with momentum (Sutskever et al. 2013, "On the importance of initialization and momentum").

    With g the gradient plus ``weight_decay``·w::

        v = momentum·v + (1 - dampening)·g      (v = g at the first step)
        w = w - lr·v                            (Nesterov: w - lr·(g + momentum·v))

    Args:
        params: Tensors, or dicts for groups with options of their own.
        lr: learning rate.
        momentum: share of the last step that is carried on; 0 keeps no state.
        dampening: share of the gradient left out of the momentum.
        weight_decay: factor of the L2 penalty.
        nesterov: look ahead; needs a momentum and no dampening.

    Raises:
        ValueError: an option is negative or not a finite number.
    """

    kernel = "sgd"

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
    ) -> None:
        options = {"lr": lr, "momentum": momentum, "dampening": dampening}
        super().__init__(params, {**options, "weight_decay": weight_decay, "nesterov": nesterov})

    def check(self, group: dict[str, Any]) -> None:
        """Raise ValueError if an option is out of its range."""
        for name in ("lr", "momentum", "weight_decay"):
            require(name, group[name], "a number >= 0", lambda value: value >= 0)
        require("dampening", group["dampening"], "a finite number")
        if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
            raise ValueError("nesterov: needs momentum > 0 and dampening 0")

    def state_names(self, group: dict[str, Any]) -> list[str]:
        """The momentum, if there is any."""
        return ["momentum_buffer"] if group["momentum"] else []

    def numbers(self, group: dict[str, Any]) -> tuple[float, ...]:
        """As the kernel "sgd" takes them."""
        return (group["lr"], group["momentum"], 1 - group["dampening"], group["weight_decay"], group["nesterov"])

    def update(
        self, group: dict[str, Any], steps: int, weight: Any, gradient: Any, scratch: Any, state: dict[str, Any]
    ) -> None:
        """The rule in the head of the class, on one block."""
        xp = array_module(weight)
        momentum = group["momentum"]
        if group["weight_decay"]:
            xp.multiply(weight, group["weight_decay"], out=scratch)
            gradient += scratch
        direction = gradient
        if "momentum_buffer" in state:
            velocity = state["momentum_buffer"]
            if steps == 1:
                velocity[...] = gradient
            else:
                velocity *= momentum
                velocity += xp.multiply(gradient, 1 - group["dampening"], out=scratch)
            if group["nesterov"]:
                gradient += xp.multiply(velocity, momentum, out=scratch)
            else:
                direction = velocity
        weight -= xp.multiply(direction, group["lr"], out=scratch)
