"""The authors' wiring of the mask branch, against that of the ports which are often copied.

Those ports add two terms that the authors' network does not have: at each enlargement the encoder's features themselves,
beside the unit that the skip connection runs through; and the trunk's output just before the 1×1 convolutions of the mask.
Neither has weights, so parameter counts do not tell the two networks apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minires.functional import residual_attention
from minires.nn import AttentionModule, Module, SoftMask
from minires.nn.attention import ACTIVATIONS
from minires.tensor import Tensor
from minires.training.experiments.experiment import Experiment, Results, Variant
from minires.training.experiments.scales import network
from minires.training.experiments.statistics import Contrast

__all__ = ["Wiring", "rewire"]


class Wiring(Experiment):
    """The same weights to begin with, wired in both ways."""

    name = "wiring"
    claim = "the authors' mask branch has a lower error than that of the ports, which adds two terms, at equal parameters"
    source = "the authors' published networks"

    def variants(self, scale: str) -> list[Variant]:
        """Both wirings."""
        return [Variant("authors' wiring", network(scale)), Variant("ports' wiring", network(scale), {"rewired": True})]

    def change_model(self, model: Any, variant: Variant) -> None:
        """Wire it as the ports do."""
        if variant.settings.get("rewired"):
            rewire(model)

    def contrasts(self, variants: Sequence[Variant]) -> list[Contrast]:
        """The ports' error is higher."""
        ours, ports = (variant.name for variant in variants)
        return [Contrast(f"error of the {ports} above that of the {ours}", "error", {ports: 1, ours: -1})]

    def draw(self, results: Results, variants: Sequence[Variant], path: str) -> None:
        """Error of both."""
        from minires.viz import experiments as figures

        errors = {name: [100 * trial.numbers["error"] for trial in trials] for name, trials in results.items()}
        counts = {name: f"{trials[0].numbers['parameters']:,.0f} parameters" for name, trials in results.items()}
        figures.dots(errors, path, xlabel="test error, %", notes=counts)


def rewire(model: Module) -> None:
    """Make every attention module of a network one with the ports' wiring; weights stay the same, and whose they are."""
    modules = [(path, module) for path, module in model.named_modules() if isinstance(module, AttentionModule)]
    for path, module in modules:
        parent, _, name = path.rpartition(".")
        model.get_submodule(parent).add_module(name, _PortsModule(module))


class _PortsModule(AttentionModule):
    """An attention module whose mask is told the trunk's output; it takes over the parts of another module."""

    def __init__(self, module: AttentionModule) -> None:
        Module.__init__(self)
        if module.attention != "residual" or not isinstance(module.mask, SoftMask):
            raise ValueError(f"rewire: made for residual attention with encoder-decoder masks, got {module.extra_repr()}")
        self.attention = module.attention
        self.first, self.trunk = module.first, module.trunk
        self.mask = _PortsMask(module.mask)
        self.last = module.last

    def _join(self, trunk: Tensor, x: Tensor) -> Tensor:
        assert self.mask is not None
        joined: Tensor = residual_attention(trunk, self.mask(x, trunk=trunk))
        return joined


class _PortsMask(SoftMask):
    """A mask branch with the two additions; it takes over the layers of another one."""

    def __init__(self, mask: SoftMask) -> None:
        Module.__init__(self)
        self.depth, self.activation = mask.depth, mask.activation
        for name, layer in mask.named_children():
            self.add_module(name, layer)

    def forward(self, input: Tensor, scores: bool = False, trunk: Tensor | None = None) -> Tensor:
        """(N, C, H, W) → the mask (N, C, H, W); ``trunk`` has the same shape."""
        h, skips = input, {}
        for k in range(1, self.depth):
            h = self.get_submodule(f"down{k}")(self.pool(h))
            skips[k] = self.get_submodule(f"skip{k}")(h) + h  # the first addition
        h = self.bottom(self.pool(h) if self.depth else h)
        for k in range(self.depth - 1, 0, -1):
            h = self.get_submodule(f"up{k}")(self.get_submodule(f"resize{k}")(h, skips[k].shape[2:]) + skips[k])
        if self.depth:
            h = self.resize0(h, input.shape[2:])
        z: Tensor = self.head(h if trunk is None else h + trunk)  # the second
        return z if scores else ACTIVATIONS[self.activation](z)
