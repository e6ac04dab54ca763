"""Writes what docs/cuda.md shows of a training step: its table, its figures and its picture, all counted by our own code.

    python -m tests.cuda.write_docs [--json docs/benchmarks/FILE.json]

With the JSON of ``minires bench --device cuda`` the picture shows its measured times; without, the best that can be.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from minires import viz
from minires.bench import networks
from minires.bench.kernels import Row, per_kernel
from minires.kernels.cuda import build
from minires.viz.roofline import Kernel
from tests.cuda.stock import count_step

DOCS = Path(__file__).parents[2] / "docs"

#: NVIDIA H200 data sheet, SXM: memory 4.8 TB/s, FP32 67 TFLOP/s, TF32 989 TFLOP/s "with sparsity", which is half of it here.
BANDWIDTH, PEAKS = 4.8e12, {"TF32 tensor cores": 494.5e12, "float32": 67e12}

#: kernel → what it belongs to
KINDS = {
    "norm": "batch norm", "gemm": "products", "conv_mma": "products", "conv": "products", "pool": "pooling and resizing",
    "resize": "pooling and resizing", "gate": "gate, sums, copies", "cupy": "gate, sums, copies",
    "copy": "gate, sums, copies", "loss": "loss, optimiser", "optim": "loss, optimiser", "tally": "loss, optimiser",
}  # fmt: skip
ON_TENSOR_CORES = ("gemm", "conv_mma.conv_windows", "conv_mma.conv_weight")


def kernels_of(rows: Sequence[Row]) -> list[Kernel]:
    """Rows of a table for the picture."""
    kernels = []
    for row in per_kernel(rows):
        kind = KINDS[row.name.partition(".")[0]]
        peak = "TF32 tensor cores" if row.name in ON_TENSOR_CORES else "float32"
        seconds = None if row.seconds is None else row.count * row.seconds
        name = "gemm (1×1 convolutions)" if row.name == "gemm" else row.name
        name += "" if row.dtype in ("float32", "") else f" {row.dtype}"
        kernels.append(Kernel(name, kind, row.count, row.count * row.bytes, row.count * row.flops, peak, seconds))
    order = list(dict.fromkeys(KINDS.values()))
    return sorted(kernels, key=lambda kernel: order.index(kernel.kind))


def table(kernels: Sequence[Kernel]) -> str:
    """What a step moves and computes, kind by kind, and the time that needs at least."""
    lines = ["| | launches | GB moved | GFLOP | ms at 4.8 TB/s | ms at the peak rate |", "|---|---:|---:|---:|---:|---:|"]
    kinds = list(dict.fromkeys(kernel.kind for kernel in kernels))
    for name, some in [*((kind, [k for k in kernels if k.kind == kind]) for kind in kinds), ("together", list(kernels))]:
        moved, flops = sum(k.bytes for k in some), sum(k.flops for k in some)
        rate = sum(k.flops / PEAKS[k.peak] for k in some)
        count = sum(k.count for k in some)
        times = f"{1e3 * moved / BANDWIDTH:.2f} | {1e3 * rate:.2f}"
        lines.append(f"| {name} | {count:,} | {moved / 1e9:.2f} | {flops / 1e9:.1f} | {times} |")
    return "\n".join(lines)


def every_kernel(kernels: Sequence[Kernel]) -> str:
    """One line for each kernel that moves more than a megabyte."""
    lines = ["| kernel | launches | MB moved | operations for each byte |", "|---|---:|---:|---:|"]
    for k in sorted(kernels, key=lambda k: -k.bytes):
        if k.bytes > 1e6:
            lines.append(f"| `{k.name}` | {k.count} | {k.bytes / 1e6:,.0f} | {k.flops / k.bytes:.2f} |")
    return "\n".join(lines)


def one_layer(rows: Sequence[Row]) -> str:
    """The sizes of the widest batch norm of the step, as text: what its kernels move."""
    size = max((row for row in rows if row.name == "norm.normalize"), key=lambda row: row.bytes).what.split(",")[0]
    names = ("norm.measure", "norm.normalize", "norm.add_up", "norm.spread")
    lines = ["| kernel | MB moved | MFLOP | µs of memory | µs of arithmetic |", "|---|---:|---:|---:|---:|"]
    for row in rows:
        if row.name in names and row.what.split(",")[0] == size:
            times = f"{1e6 * row.bytes / BANDWIDTH:.1f} | {1e6 * row.flops / PEAKS['float32']:.2f}"
            lines.append(f"| `{row.name}` | {row.bytes / 1e6:.1f} | {row.flops / 1e6:.0f} | {times} |")
    return "\n".join(lines)


def in_words(kernels: Sequence[Kernel]) -> str:
    """The whole step in two sentences."""
    count, moved, flops = (sum(getattr(k, name) for k in kernels) for name in ("count", "bytes", "flops"))
    memory, products = moved / BANDWIDTH, sum(k.flops / PEAKS[k.peak] for k in kernels)
    return (
        f"One step makes {flops / 1e9:.0f} billion operations and moves {moved / 1e9:.1f} GB, in {count:,} launches. At the "
        f"rates of an H200's data sheet the operations\nalone would take {1e3 * products:.2f} ms, moving the bytes alone "
        f"{1e3 * memory:.2f} ms: {memory / products:.0f} times as long."
    )


def launches(kernels: Sequence[Kernel]) -> str:
    """What starting them would take one by one."""
    count, each = sum(kernel.count for kernel in kernels), 5e-6
    return (
        f"If it were only {1e6 * each:.0f} µs, {count:,} launches would take {1e3 * count * each:.1f} ms, longer than "
        "all that they do should take:\ntherefore a step becomes a CUDA graph (below)."
    )


def columns() -> str:
    """The 3×3 convolution of the first stage's units, by columns and without."""
    batch, side, channels, taps = 128, 32, 16, 9
    image = batch * side * side * channels * 4
    weight, flops = taps * channels * channels * 4, 2 * batch * side * side * taps * channels * channels
    ways = {"columns in memory": (2 + 2 * taps) * image + weight, "windows read from the image": 2 * image + weight}
    lines = ["| | MB moved | µs at 4.8 TB/s | operations for each byte |", "|---|---:|---:|---:|"]
    for name, moved in ways.items():
        lines.append(f"| {name} | {moved / 1e6:.1f} | {1e6 * moved / BANDWIDTH:.1f} | {flops / moved:.1f} |")
    return "\n".join(lines)


def source_of_gate() -> str:
    """The kernel that the chapter explains, with the number of each line."""
    code = (Path(build.__file__).parent / "src" / "gate.cu").read_text()
    start = code.index('extern "C"')
    lines = code[start : code.index("\n}\n", start) + 2].split("\n")
    return "```cpp\n" + "\n".join(f"{i:>2}  {line}" for i, line in enumerate(lines, 1)) + "\n```"


def pages(sizes: Sequence[Row]) -> dict[str, Callable[[], str]]:
    """The parts of docs/cuda.md that are written here."""
    kernels = kernels_of(sizes)
    return {
        "gate": source_of_gate, "words": lambda: in_words(kernels), "step": lambda: table(kernels), "columns": columns,
        "layer": lambda: one_layer(sizes), "launches": lambda: launches(kernels), "kernels": lambda: every_kernel(kernels),
    }  # fmt: skip


def filled(text: str, sizes: Sequence[Row]) -> str:
    """The page with its counted parts brought up to date: what stands between <!-- counted: NAME --> and <!-- end -->."""
    for name, make in pages(sizes).items():
        pattern = re.compile(rf"(<!-- counted: {name} -->\n).*?(\n<!-- end -->)", re.DOTALL)
        text, count = pattern.subn(lambda found, make=make: found[1] + make() + found[2], text)
        assert count == 1, f"docs/cuda.md has {count} places for {name!r}"
    return text


def main() -> None:
    """Write the page and the picture."""
    parser = argparse.ArgumentParser(prog="python -m tests.cuda.write_docs", description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path, help="measured times, from minires bench --device cuda --json FILE")
    args = parser.parse_args()
    network, precision = networks.of_device("cuda", True)[0], networks.precisions("cuda")[0]
    sizes = count_step(network, precision)
    page = DOCS / "cuda.md"
    page.write_text(filled(page.read_text(), sizes))
    note = "Predicted: bytes and operations are counted, times are not measured yet. Roofs: an H200's data sheet."
    kernels, bandwidth, peaks, name = kernels_of(sizes), BANDWIDTH, PEAKS, "roofline_predicted.png"
    if args.json:
        found = json.loads(args.json.read_text())
        kernels = [k for k in kernels_of([Row(**row) for row in found["kernels"]["cifar"]["sizes"]]) if k.seconds]
        bandwidth, products, name = found["ceilings"]["copy"], found["ceilings"]["products"], "roofline_measured.png"
        peaks = {"TF32 tensor cores": products["tf32"], "float32": products["fp32"]}
        gpu = found["machine"].get("cuda:0", "a GPU").partition(",")[0]
        note = f"Measured on {gpu}, {found['date'][:10]}. Roofs: a large copy and large products, measured too."
    title = f"A training step of {network.title}, TF32: every kernel"
    viz.roofline(kernels, bandwidth, peaks, DOCS / "images" / "cuda" / name, title=title, note=note)


if __name__ == "__main__":
    main()
