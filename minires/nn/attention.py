"""The attention module (Wang et al. 2017, section 3): a trunk that computes features, and a mask that weighs them.

The mask branch first shrinks the image, so that each place sees far (bottom-up), then enlarges it again (top-down), and
ends in a number between 0 and 1 for every feature at every place. The output is (1 + M)·F, not M·F: with M = 0 the
module is the plain residual network that it would be without a mask, so stacking many of them does no harm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from minires import functional as F
from minires.errors import ShapeError
from minires.modes import no_grad
from minires.nn import init
from minires.nn.containers import Sequential
from minires.nn.layers import Conv2d, ConvTranspose2d
from minires.nn.module import Module, RemovableHandle, evaluation_mode
from minires.nn.normalization import BatchNormReLU
from minires.nn.residual import ResidualUnit, UnitFactory, units
from minires.nn.shape import MaxPool2d
from minires.tensor import Tensor

__all__ = ["AttentionMaps", "AttentionModule", "LocalMask", "Resize", "SoftMask", "attention_maps", "force_mask"]

#: What turns the mask branch's scores into a mask: the paper's f1, f2 and f3 (section 3.3).
ACTIVATIONS: dict[str, Callable[[Any], Tensor]] = {
    "mixed": lambda z: F.sigmoid(z),
    "channel": lambda z: F.channel_attention(z),
    "spatial": lambda z: F.spatial_attention(z),
}

#: How trunk F and mask M are joined: H = (1 + M)·F, H = M·F, or H = F without a mask branch.
LEARNING: dict[str, Callable[[Any, Any], Tensor]] = {
    "residual": lambda trunk, mask: F.residual_attention(trunk, mask),
    "naive": lambda trunk, mask: F.naive_attention(trunk, mask),
    "none": lambda trunk, mask: trunk,
}


def _choose(owner: str, option: str, value: str, table: Any) -> Any:
    if value not in table:
        raise ValueError(f"{owner}: {option} must be one of {', '.join(map(repr, table))}, got {value!r}")
    return table[value] if isinstance(table, dict) else value


class Resize(Module):
    """Enlarges an image to the size of another one.

    Args:
        channels: C of the input.
        mode: "bilinear" (corners aligned), "nearest", or "deconv": a learned transposed convolution, channel by channel,
            that starts as bilinear interpolation by 2 (Long et al. 2015); it fits an image to that which a 3×3 pool of
            stride 2 in ceil mode made it from.
    """

    def __init__(self, channels: int, mode: str = "bilinear") -> None:
        super().__init__()
        self.mode = _choose("Resize", "upsample", mode, ("bilinear", "nearest", "deconv"))
        self.deconv = None
        if mode == "deconv":
            self.deconv = ConvTranspose2d(channels, channels, 4, stride=2, padding=1, groups=channels, bias=False)
            init.bilinear_(self.deconv.weight)

    def forward(self, input: Tensor, size: tuple[int, ...]) -> Tensor:
        """(N, C, h, w) → (N, C, *size), ``size`` being (H, W) in pixels."""
        if self.deconv is not None:
            out: Tensor = self.deconv(input, output_size=size)
            return out
        return F.interpolate(input, size=size, mode=self.mode, align_corners=True if self.mode == "bilinear" else None)

    def extra_repr(self) -> str:
        """The options."""
        return f"mode={self.mode!r}"


def _mask_head(channels: int, unit: UnitFactory) -> Sequential:
    """BN, ReLU, conv 1×1, BN, ReLU, conv 1×1: the scores z from which an activation makes the mask.

    Without the first BN and ReLU if the units end in a ReLU.
    """
    first = () if getattr(unit, "activated", False) else (BatchNormReLU(channels),)
    return Sequential(
        *first, Conv2d(channels, channels, 1, bias=False),
        BatchNormReLU(channels), Conv2d(channels, channels, 1, bias=False),
    )  # fmt: skip


class SoftMask(Module):
    """The mask branch M(x): down by pooling, up by resizing, with a skip unit between equal sizes.

    ::

        for k = 1 .. depth-1:  h = pool(h);  h = down_k(h);  s_k = skip_k(h)
        bottom:                h = pool(h);  h = bottom(h)
        for k = depth-1 .. 1:  h = resize(h, size of s_k) + s_k;  h = up_k(h)
        M = activation(head(resize(h, size of the input)))

    Args:
        channels: C of input and mask.
        depth: number of poolings, each halving the image; 0 for none.
        r: units between two neighbouring poolings (the bottom has 2r).
        unit: makes a unit, see :data:`minires.nn.residual.UnitFactory`.
        upsample: "bilinear", "nearest" or "deconv"; see :class:`Resize`.
        activation: "mixed" (sigmoid), "channel" or "spatial".
    """

    def __init__(
        self, channels: int, depth: int, r: int = 1, unit: UnitFactory = ResidualUnit, upsample: str = "bilinear",
        activation: str = "mixed",
    ) -> None:  # fmt: skip
        super().__init__()
        if depth < 0 or r < 1:
            raise ValueError(f"SoftMask: depth must be >= 0 and r >= 1, got depth={depth}, r={r}")
        _choose("SoftMask", "activation", activation, ACTIVATIONS)
        self.depth, self.activation = depth, activation
        self.pool = MaxPool2d(3, stride=2, ceil_mode=True)
        for k in range(1, depth):
            self.add_module(f"down{k}", units(unit, channels, r))
            self.add_module(f"skip{k}", unit(channels, channels, 1))
        self.bottom = units(unit, channels, 2 * r)
        for k in range(depth - 1, 0, -1):
            self.add_module(f"resize{k}", Resize(channels, upsample))
            self.add_module(f"up{k}", units(unit, channels, r))
        if depth:
            self.resize0 = Resize(channels, upsample)
        self.head = _mask_head(channels, unit)

    def forward(self, input: Tensor, scores: bool = False) -> Tensor:
        """(N, C, H, W) → the mask (N, C, H, W), or with ``scores`` what the activation would make a mask of."""
        if min(input.shape[2:]) < 2**self.depth:
            rule = f"{self.depth} poolings, each halving the image, need at least {2**self.depth}×{2**self.depth} pixels"
            raise ShapeError("SoftMask", rule, input=(input.shape, "N C H W"))
        h, skips = input, {}
        for k in range(1, self.depth):
            h = self.get_submodule(f"down{k}")(self.pool(h))
            skips[k] = self.get_submodule(f"skip{k}")(h)
        h = self.bottom(self.pool(h) if self.depth else h)
        for k in range(self.depth - 1, 0, -1):
            skip = skips.pop(k)
            h = self.get_submodule(f"up{k}")(self.get_submodule(f"resize{k}")(h, skip.shape[2:]) + skip)
        if self.depth:
            h = self.resize0(h, input.shape[2:])
        z: Tensor = self.head(h)
        return z if scores else ACTIVATIONS[self.activation](z)

    def extra_repr(self) -> str:
        """The options."""
        return f"depth={self.depth}, activation={self.activation!r}"


class LocalMask(Module):
    """A mask branch that stays at full size and so sees only a small neighbourhood (the paper's Table 4).

    Args:
        channels: C of input and mask.
        unit: makes a unit; there are three.
        activation: "mixed" (sigmoid), "channel" or "spatial".
    """

    def __init__(self, channels: int, unit: UnitFactory = ResidualUnit, activation: str = "mixed") -> None:
        super().__init__()
        _choose("LocalMask", "activation", activation, ACTIVATIONS)
        self.activation = activation
        self.units = units(unit, channels, 3)
        self.head = _mask_head(channels, unit)

    def forward(self, input: Tensor, scores: bool = False) -> Tensor:
        """(N, C, H, W) → the mask (N, C, H, W), or with ``scores`` what the activation would make a mask of."""
        z: Tensor = self.head(self.units(input))
        return z if scores else ACTIVATIONS[self.activation](z)

    def extra_repr(self) -> str:
        """The options."""
        return f"activation={self.activation!r}"


class AttentionModule(Module):
    """Trunk and mask side by side: H = (1 + M(x))·F(x), between p units before and p units after.

    ::

        x = first(input);  F = trunk(x);  M = mask(x);  H = (1 + M)·F;  output = last(H)

    Args:
        channels: C of input and output.
        depth: number of poolings in the mask branch.
        p: units before the branches, and after them.
        t: units of the trunk.
        r: units between two neighbouring poolings of the mask.
        attention: "residual" (1 + M)·F, "naive" M·F, or "none": the same network without mask branches.
        activation: "mixed" (f1, sigmoid), "channel" (f2) or "spatial" (f3).
        mask: "encoder-decoder", or "local" (three units at full size, without pooling).
        upsample: "bilinear", "nearest" or "deconv"; see :class:`Resize`.
        unit: makes a unit, see :data:`minires.nn.residual.UnitFactory`.
    """

    mask: SoftMask | LocalMask | None

    def __init__(
        self, channels: int, depth: int, p: int = 1, t: int = 2, r: int = 1, attention: str = "residual",
        activation: str = "mixed", mask: str = "encoder-decoder", upsample: str = "bilinear",
        unit: UnitFactory = ResidualUnit,
    ) -> None:  # fmt: skip
        super().__init__()
        if p < 0 or t < 1:
            raise ValueError(f"AttentionModule: p must be >= 0 and t >= 1, got p={p}, t={t}")
        _choose("AttentionModule", "attention", attention, LEARNING)
        _choose("AttentionModule", "mask", mask, ("encoder-decoder", "local"))
        self.attention = attention
        self.first = units(unit, channels, p)
        self.trunk = units(unit, channels, t)
        if attention == "none":
            self.mask = None
        elif mask == "local":
            self.mask = LocalMask(channels, unit, activation)
        else:
            self.mask = SoftMask(channels, depth, r, unit, upsample, activation)
        self.last = units(unit, channels, p)

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) → the same shape."""
        x = self.first(input)
        out: Tensor = self.last(self._join(self.trunk(x), x))
        return out

    def _join(self, trunk: Tensor, x: Tensor) -> Tensor:
        """The trunk's features weighed by the mask; in one pass over the memory where nobody asks for the mask itself."""
        mask, residual = self.mask, self.attention == "residual"
        if residual and isinstance(mask, SoftMask | LocalMask) and mask.activation == "mixed" and not mask._post_hooks:
            return F.gated_residual(trunk, mask(x, scores=True))
        return LEARNING[self.attention](trunk, None if mask is None else mask(x))

    def extra_repr(self) -> str:
        """The options."""
        return f"attention={self.attention!r}"


# ------------------------------------------------------------------------------------ looking inside


@dataclass(frozen=True)
class AttentionMaps:
    """What one attention module computed; all Tensors are (N, C, H, W).

    Attributes:
        name: path of the module in the network.
        trunk: F, the features.
        mask: M, or None for a module without a mask.
        output: what the module returned.
        attended: H = (1 + M)·F (or as the module joins them), before the last units.
    """

    name: str
    trunk: Tensor
    mask: Tensor | None
    output: Tensor
    attended: Tensor

    def __repr__(self) -> str:
        mask = "no mask" if self.mask is None else f"mask {self.mask.shape}"
        return f"AttentionMaps({self.name!r}: trunk {self.trunk.shape}, {mask}, output {self.output.shape})"


def attention_maps(model: Module, input: Tensor) -> list[AttentionMaps]:
    """Run ``model`` on ``input`` and return what each of its attention modules computed, in forward order.

    It runs in evaluation mode and unrecorded; each module's own mode is put back afterwards.
    """
    heard: dict[int, dict[str, Tensor]] = {}
    handles: list[RemovableHandle] = []
    names: list[tuple[str, AttentionModule]] = []
    try:
        for name, module in model.named_modules():
            if isinstance(module, AttentionModule):
                names.append((name or type(module).__name__, module))
                handles += _listen(module, heard.setdefault(id(module), {}))
        with evaluation_mode(model), no_grad():
            model(input)
    finally:
        for handle in handles:
            handle.remove()
    return [
        AttentionMaps(name, maps["trunk"], maps.get("mask"), maps["output"], maps["attended"])
        for name, module in names
        if "output" in (maps := heard[id(module)])
    ]


def _listen(module: AttentionModule, maps: dict[str, Tensor]) -> list[RemovableHandle]:
    """Hooks that note what passes through ``module``."""

    def note(name: str) -> Callable[..., None]:
        return lambda _, args, output: maps.__setitem__(name, output)

    handles = [
        module.trunk.register_forward_hook(note("trunk")),
        module.last.register_forward_pre_hook(lambda _, args: maps.__setitem__("attended", args[0])),
        module.register_forward_hook(note("output")),
    ]
    if module.mask is not None:
        handles.append(module.mask.register_forward_hook(note("mask")))
    return handles


@contextmanager
def force_mask(model: Module, value: float) -> Iterator[None]:
    """Inside the ``with`` block every mask below ``model`` is ``value`` everywhere, whatever the mask branch says.

    With 0, residual attention is the identity on the trunk; no gradient reaches the mask branches.
    """

    def constant(module: Module, args: Any, mask: Tensor) -> Tensor:
        forced = mask.data.copy()
        forced[...] = value
        return Tensor(forced)

    masks = [m.mask for m in model.modules() if isinstance(m, AttentionModule) and m.mask is not None]
    handles = [mask.register_forward_hook(constant) for mask in masks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
