"""What a network looks like when it is printed, and the table of its layers.

A print shows the tree of modules with the shapes of their weights; :func:`summary` runs one image through the network
and lists what each layer makes of it, how many parameters it has and how many multiply-adds (MAC) it takes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minires.modes import no_grad
from minires.nn.layers import Conv2d, ConvTranspose2d, Linear
from minires.nn.module import Module, evaluation_mode
from minires.tensor import Tensor

__all__ = ["Row", "Summary", "count_parameters", "summary"]


def count_parameters(module: Module, trainable: bool = False) -> int:
    """Number of learned values of a module; with ``trainable`` without the frozen ones."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trainable)


# ------------------------------------------------------------------------------------ printing the tree


def module_text(module: Module) -> str:
    """The tree of modules as text, with the number of parameters under it."""
    count = count_parameters(module)
    text = "\n".join(_tree(module))
    return f"{text}\n{count:,} parameters" if count and module._modules else text


def _tree(module: Module) -> list[str]:
    """One line for a module, or its name, its indented children and a closing parenthesis."""
    children = [(name, _tree(child)) for name, child in module.named_children()]
    head, options = type(module).__name__, module.extra_repr()
    shapes = ", ".join(f"{name} {p.shape}" for name, p in module._parameters.items() if p is not None)
    note = f"  # {shapes}" if shapes else ""
    if not children:
        return [f"{head}({options}){note}"]
    lines = [f"{head}({options}{note}"]
    for names, repeats, text in _merge(children):
        times = f"{repeats} x " if repeats > 1 else ""
        lines += [f"  ({names}): {times}{text[0]}", *(f"  {line}" for line in text[1:])]
    return [*lines, ")"]


def _merge(children: list[tuple[str, list[str]]]) -> list[tuple[str, int, list[str]]]:
    """Neighbours that look the same and have numbers for names, as one: "(0-3): 4 x ..."."""
    merged: list[tuple[str, int, list[str]]] = []
    first = ""
    for name, text in children:
        if merged and name.isdigit() and first.isdigit() and merged[-1][2] == text:
            merged[-1] = (f"{first}-{name}", merged[-1][1] + 1, text)
        else:
            first = name
            merged.append((name, 1, text))
    return merged


def module_html(module: Module) -> str:
    """The modules as a table that can be unfolded, for a notebook. Inline styles only, no scripts, no ids."""
    import html  # in here, because few programs need it

    rows = []
    for path, each in module.named_modules():
        shapes = ", ".join(f"{name} {p.shape}" for name, p in each._parameters.items() if p is not None)
        name = path.rpartition(".")[2] or "(root)"
        indent = 1.2 * (path.count(".") + 1 if path else 0)
        rows.append(
            f'<tr><td style="text-align:left;padding-left:{indent:.1f}em">{html.escape(name)}</td>'
            f'<td style="text-align:left">{html.escape(f"{type(each).__name__}({each.extra_repr()})")}</td>'
            f'<td style="text-align:left">{html.escape(shapes)}</td>'
            f'<td style="text-align:right">{count_parameters(each):,}</td></tr>'
        )
    title = f"{html.escape(type(module).__name__)}: {count_parameters(module):,} parameters"
    header = "".join(f"<th>{name}</th>" for name in ("module", "layer", "weights", "parameters"))
    return (
        f'<details><summary style="cursor:pointer">{title}</summary>'
        f'<table style="font-family:monospace;font-size:90%"><thead><tr>{header}</tr></thead>'
        f'<tbody>{"".join(rows)}</tbody></table></details>'
    )


# ------------------------------------------------------------------------------------ the table of layers


@dataclass
class Row:
    """One line of a :class:`Summary`.

    Attributes:
        path: path of the module.
        kind: name of its class.
        output_shape: shape of what it returned, with a batch of 1; () if that was no Tensor.
        parameters: number of learned values in it and below it.
        macs: multiply-adds of the convolutions and linear layers in it and below it, for one image.
    """

    path: str
    kind: str
    output_shape: tuple[int, ...]
    parameters: int
    macs: int


@dataclass
class Summary:
    """The layers of a network in the order in which they finished, and the totals."""

    name: str
    input_shape: tuple[int, ...]
    parameters: int
    macs: int
    rows: list[Row] = field(default_factory=list)

    def __str__(self) -> str:
        header = ("layer", "kind", "output", "parameters", "MAC")
        cells = [(r.path, r.kind, _shape(r.output_shape), f"{r.parameters:,}", f"{r.macs:,}") for r in self.rows]
        total = ("total", self.name, f"input {_shape(self.input_shape)}", f"{self.parameters:,}", f"{self.macs:,}")
        widths = [max(len(row[i]) for row in [header, *cells, total]) for i in range(5)]
        rule = "-" * (sum(widths) + 8)
        lines = [self._line(header, widths), rule, *(self._line(c, widths) for c in cells), rule, self._line(total, widths)]
        return "\n".join(lines)

    __repr__ = __str__

    @staticmethod
    def _line(cells: tuple[str, ...], widths: list[int]) -> str:
        left = [f"{cell:<{width}}" for cell, width in zip(cells[:3], widths, strict=False)]
        right = [f"{cell:>{width}}" for cell, width in zip(cells[3:], widths[3:], strict=True)]
        return "  ".join(left + right).rstrip()

    def _repr_html_(self) -> str:
        import html

        return f"<pre>{html.escape(str(self))}</pre>"


def summary(model: Module, input_shape: tuple[int, ...], depth: int | None = None, dtype: Any = np.float32) -> Summary:
    """Run one input of zeros through ``model`` and tabulate its layers.

    Args:
        model: the network; it runs in evaluation mode, which is undone afterwards.
        input_shape: shape of one input without the batch axis, for example (3, 32, 32).
        depth: show modules down to this depth only, with the sums over what is below; None shows every layer.
        dtype: of the input; an integer type for networks that begin with an embedding.
    """
    calls = _Calls(model)
    device = next((p.device for p in model.parameters()), "cpu")
    try:
        with evaluation_mode(model), no_grad():
            model(Tensor(np.zeros((1, *input_shape), dtype)).to(device))
    finally:
        calls.stop()
    result = Summary(type(model).__name__, tuple(input_shape), count_parameters(model), sum(c[2] for c in calls.log))
    for path, output_shape in {path: shape for path, shape, _ in calls.log}.items():
        module = model.get_submodule(path)
        level = path.count(".") + 1 if path else 0
        leaf = not module._modules
        if level == depth or (leaf and (depth is None or level < depth)) or (path and module._parameters and not leaf):
            macs = sum(m for p, _, m in calls.log if not path or p == path or p.startswith(f"{path}."))
            result.rows.append(Row(path, type(module).__name__, output_shape, count_parameters(module), macs))
    return result


class _Calls:
    """Hooks on every module that log path, output shape and multiply-adds of every call."""

    def __init__(self, model: Module) -> None:
        self.log: list[tuple[str, tuple[int, ...], int]] = []
        self._handles = [module.register_forward_hook(self._note(path)) for path, module in model.named_modules()]

    def _note(self, path: str) -> Any:
        def note(module: Module, args: tuple[Any, ...], output: Any) -> None:
            shape = output.shape if isinstance(output, Tensor) else ()
            self.log.append((path, shape, _macs(module, args, output)))

        return note

    def stop(self) -> None:
        for handle in self._handles:
            handle.remove()


def _macs(module: Module, args: tuple[Any, ...], output: Any) -> int:
    """Multiply-adds of one call of a layer (biases not counted); 0 for what is no convolution or linear layer."""
    if isinstance(module, Conv2d):  # each output value is a sum over one window of one group
        return int(output.numel() * math.prod(module.weight.shape[1:]))
    if isinstance(module, ConvTranspose2d):  # each input value is spread over one window of one group
        return int(args[0].numel() * math.prod(module.weight.shape[1:]))
    if isinstance(module, Linear):
        return int(output.numel() * module.in_features)
    return 0


def _shape(shape: tuple[int, ...]) -> str:
    return "×".join(str(n) for n in shape)
