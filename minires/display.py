"""What a Tensor looks like when it is printed, at the terminal and in a notebook.

The text is the one line (or few) that answers the usual questions: values, shape, dtype, where it came from. The HTML
for notebooks folds the same text and adds what one wants to know of an array too large to print: its range, mean, spread,
and whether there is a NaN in it. Styles are inline and there are no ids, so it looks alike everywhere.
"""

from __future__ import annotations

import html
from typing import Any

import numpy as np

from minires.device import to_device

__all__ = ["tensor_html", "tensor_text"]

THRESHOLD = 200  # from so many elements on, only the edges are printed

_CELL = "padding:2px 12px 2px 0;text-align:left;border:0"


def tensor_text(x: Any) -> str:
    """``tensor([1., 2.], shape=(2,), dtype=float32, requires_grad=True)``; ``from sigmoid`` for the result of an op."""
    values = np.array2string(
        to_device(x.data, "cpu"), precision=4, threshold=THRESHOLD, max_line_width=100, separator=", ", prefix="tensor("
    )
    facts = ", ".join(_facts(x))
    last_line = len(values.rpartition("\n")[2]) + ("\n" not in values) * len("tensor(")
    gap = ", " if last_line + len(facts) < 110 else ",\n       "
    return f"tensor({values}{gap}{facts})"


def _facts(x: Any) -> list[str]:
    facts = [f"shape={x.shape}", f"dtype={x.dtype}"]
    if x.device != "cpu":
        facts.append(f"device={x.device}")
    if x.grad_fn is not None:
        facts.append(f"from {x.grad_fn.op.name}")
    elif x.requires_grad:
        facts.append("requires_grad=True")
    return facts


def tensor_html(x: Any) -> str:
    """A ``<details>`` element: shape and dtype to see, statistics and values to unfold."""
    rows = {"shape": str(x.shape), "dtype": str(x.dtype), "device": x.device, "memory": _bytes(x.data.nbytes)}
    rows.update(_statistics(to_device(x.data, "cpu")))
    if x.grad_fn is not None:
        rows["made by"] = x.grad_fn.op.name
    elif x.requires_grad:
        rows["gradient"] = "none yet" if x.grad is None else "collected"
    body = "".join(
        f'<tr><th style="{_CELL};font-weight:600">{html.escape(name)}</th><td style="{_CELL}">{html.escape(value)}</td></tr>'
        for name, value in rows.items()
    )
    return (
        f'<details><summary style="cursor:pointer"><code>tensor({html.escape(", ".join(_facts(x)))})</code></summary>'
        f'<table style="border-collapse:collapse;margin:4px 0 4px 16px">{body}</table>'
        f'<pre style="margin:4px 0 4px 16px">{html.escape(tensor_text(x))}</pre></details>'
    )


def _statistics(array: np.ndarray[Any, Any]) -> dict[str, str]:
    """What is worth knowing of the values, by name."""
    if not array.size:
        return {"elements": "none"}
    if array.dtype == np.bool_:
        return {"true": f"{int(array.sum()):,} of {array.size:,}"}
    if array.dtype.kind == "c":
        return {"magnitude": f"{np.abs(array).min():.4g} to {np.abs(array).max():.4g}"}
    bad = {}
    if array.dtype.kind in "fV":
        finite = np.isfinite(array)
        bad = {"NaN": f"{int(np.isnan(array).sum()):,}"}
        if np.isinf(array).any():
            bad["infinite"] = f"{int(np.isinf(array).sum()):,}"
        array = array[finite].astype(np.float64)
        if not array.size:
            return bad
    return {
        "range": f"{array.min():.4g} to {array.max():.4g}",
        "mean ± std": f"{array.mean():.4g} ± {array.std():.4g}",
        **bad,
    }


def _bytes(count: int) -> str:
    size, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            break
        size /= 1024
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
