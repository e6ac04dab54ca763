"""Losses as modules, with their options fixed once.

Each calls the op of :mod:`minires.functional` that its docstring names. ``reduction`` is "mean" (default), "sum" or
"none" everywhere. Class weights are buffers, so they move with the module.
"""

from __future__ import annotations

from minires import functional as F
from minires.nn.module import Module
from minires.tensor import Tensor

__all__ = [
    "BCELoss", "BCEWithLogitsLoss", "CrossEntropyLoss", "KLDivLoss", "L1Loss", "MSELoss", "NLLLoss", "SmoothL1Loss",
]  # fmt: skip


class _Loss(Module):
    """A loss with a ``reduction`` and, for some, weights."""

    weight: Tensor | None
    pos_weight: Tensor | None

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        if reduction not in ("mean", "sum", "none"):
            raise ValueError(f"{type(self).__name__}: reduction must be 'mean', 'sum' or 'none', got {reduction!r}")
        self.reduction = reduction

    def extra_repr(self) -> str:
        """The options."""
        return f"reduction={self.reduction!r}"


class CrossEntropyLoss(_Loss):
    """-log softmax(scores) of the true class: :func:`minires.functional.cross_entropy`.

    Args:
        weight: (C,) weight of each class, or None.
        ignore_index: targets of this value count for nothing.
        reduction: see the head of this module.
        label_smoothing: this share of the target is spread over all classes.
    """

    def __init__(
        self, weight: Tensor | None = None, ignore_index: int = -100, reduction: str = "mean", label_smoothing: float = 0.0
    ) -> None:
        super().__init__(reduction)
        self.register_buffer("weight", weight)
        self.ignore_index, self.label_smoothing = ignore_index, label_smoothing

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Scores (N, C, ...) and classes (N, ...) or probabilities (N, C, ...) → the loss."""
        return F.cross_entropy(
            input, target, weight=self.weight, ignore_index=self.ignore_index, reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )  # fmt: skip


class NLLLoss(_Loss):
    """-log-probability of the true class: :func:`minires.functional.nll_loss`; arguments as for CrossEntropyLoss."""

    def __init__(self, weight: Tensor | None = None, ignore_index: int = -100, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.register_buffer("weight", weight)
        self.ignore_index = ignore_index

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Log-probabilities (N, C, ...) and classes (N, ...) → the loss."""
        return F.nll_loss(input, target, weight=self.weight, ignore_index=self.ignore_index, reduction=self.reduction)


class MSELoss(_Loss):
    """(input - target)²: :func:`minires.functional.mse_loss`."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Two Tensors of the same shape → the loss."""
        return F.mse_loss(input, target, reduction=self.reduction)


class L1Loss(_Loss):
    """|input - target|: :func:`minires.functional.l1_loss`."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Two Tensors of the same shape → the loss."""
        return F.l1_loss(input, target, reduction=self.reduction)


class SmoothL1Loss(_Loss):
    """Quadratic up to a difference of ``beta``, linear beyond: :func:`minires.functional.smooth_l1_loss`."""

    def __init__(self, reduction: str = "mean", beta: float = 1.0) -> None:
        super().__init__(reduction)
        self.beta = beta

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Two Tensors of the same shape → the loss."""
        return F.smooth_l1_loss(input, target, reduction=self.reduction, beta=self.beta)


class BCELoss(_Loss):
    """-t·log p - (1 - t)·log(1 - p): :func:`minires.functional.binary_cross_entropy`.

    Args:
        weight: factor of each element (broadcast), or None.
        reduction: see the head of this module.
    """

    def __init__(self, weight: Tensor | None = None, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.register_buffer("weight", weight)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Probabilities and targets in [0, 1] of the same shape → the loss."""
        return F.binary_cross_entropy(input, target, weight=self.weight, reduction=self.reduction)


class BCEWithLogitsLoss(_Loss):
    """Binary cross entropy of sigmoid(input): :func:`minires.functional.binary_cross_entropy_with_logits`.

    Args:
        weight: factor of each element (broadcast), or None.
        reduction: see the head of this module.
        pos_weight: factor of the positive targets (broadcast), or None.
    """

    def __init__(
        self, weight: Tensor | None = None, reduction: str = "mean", pos_weight: Tensor | None = None
    ) -> None:
        super().__init__(reduction)
        self.register_buffer("weight", weight)
        self.register_buffer("pos_weight", pos_weight)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Scores and targets in [0, 1] of the same shape → the loss."""
        return F.binary_cross_entropy_with_logits(
            input, target, weight=self.weight, reduction=self.reduction, pos_weight=self.pos_weight
        )


class KLDivLoss(_Loss):
    """target·(log target - input), input being log-probabilities: :func:`minires.functional.kl_div`.

    Args:
        reduction: also "batchmean", the sum divided by N, which is the divergence proper.
        log_target: the target holds log-probabilities too.
    """

    def __init__(self, reduction: str = "mean", log_target: bool = False) -> None:
        super().__init__("mean" if reduction == "batchmean" else reduction)
        self.reduction, self.log_target = reduction, log_target

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Two Tensors of the same shape → the loss."""
        return F.kl_div(input, target, reduction=self.reduction, log_target=self.log_target)
