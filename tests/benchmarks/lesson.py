"""From six loops to the convolution that minires uses, in steps: each is a few lines, and each is timed.

    python -m tests.benchmarks.lesson [--markdown]

The same for batch norm with ReLU, where there is nothing to multiply and memory is all that counts. Every step is compared
with the first before it is timed. ``docs/performance.md`` tells the story.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from minires.kernels import cpu
from minires.kernels.cpu import conv, norm, threads
from minires.kernels.cpu.blas import one_thread

Array = np.ndarray[Any, Any]

# ------------------------------------------------------------------------------------------------ a 3×3 convolution

COUNT, CHANNELS, SIZE = 64, 16, 32  # images, channels in and out, pixels a side


def loops(x: Array, w: Array) -> Array:
    """The definition. x: (N, C, H, W), w: (O, C, 3, 3)."""
    count, channels, height, width = x.shape
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    y = np.zeros((count, len(w), height, width), x.dtype)
    for n in range(count):
        for o in range(len(w)):
            for i in range(height):
                for j in range(width):
                    for c in range(channels):
                        for u in range(3):
                            for v in range(3):
                                y[n, o, i, j] += w[o, c, u, v] * padded[n, c, i + u, j + v]
    return y


def shifted_images(x: Array, w: Array) -> Array:
    """One product a tap of the kernel: the loops over pixels, channels and images are NumPy's."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    y = np.zeros((len(x), len(w), *x.shape[2:]), x.dtype)
    for u in range(3):
        for v in range(3):
            seen = padded[:, :, u : u + x.shape[2], v : v + x.shape[3]]
            y += np.einsum("nchw,oc->nohw", seen, w[:, :, u, v], optimize=True)
    return y


def im2col(x: Array, w: Array) -> Array:
    """All windows side by side in one large matrix, as in most teaching code: (C·9, N·H·W)."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))  # (N, C, H, W, 3, 3)
    columns = windows.transpose(1, 4, 5, 0, 2, 3).reshape(w[0].size, -1)  # (C·3·3, N·H·W)
    y = w.reshape(len(w), -1) @ columns  # (O, N·H·W)
    return np.ascontiguousarray(y.reshape(len(w), len(x), *x.shape[2:]).transpose(1, 0, 2, 3))  # (N, O, H, W)


def channels_last(x: Array, w: Array) -> Array:
    """The same with the channels of a pixel side by side in memory: windows are copied in runs of 3·C numbers."""
    image = np.pad(x.transpose(0, 2, 3, 1), ((0, 0), (1, 1), (1, 1), (0, 0)))  # (N, H + 2, W + 2, C), x is channels-last
    windows = np.lib.stride_tricks.sliding_window_view(image, (3, 3), axis=(1, 2))  # (N, H, W, C, 3, 3)
    columns = windows.transpose(0, 1, 2, 4, 5, 3).reshape(-1, w[0].size)  # (N·H·W, 3·3·C)
    y = columns @ w.transpose(2, 3, 1, 0).reshape(-1, len(w))  # (3·3·C, O) -> (N·H·W, O)
    return y.reshape(len(x), *x.shape[2:], -1).transpose(0, 3, 1, 2)  # (N, O, H, W), channels-last in memory


def in_blocks(x: Array, w: Array) -> Array:
    """Some images at a time, so that the columns never leave the cache."""
    y = np.empty((len(x), *x.shape[2:], len(w)), x.dtype)  # (N, H, W, O)
    for start in range(0, len(x), 4):
        y[start : start + 4] = channels_last(x[start : start + 4], w).transpose(0, 2, 3, 1)
    return y.transpose(0, 3, 1, 2)


def ours(x: Array, w: Array) -> Array:
    """What minires does: columns of one kernel row, tall products in small pieces, no fresh memory, threads over blocks."""
    return cpu.conv2d(x, w, None, (1, 1), (1, 1), (1, 1), 1, x.shape[2:])  # type: ignore[no-any-return]


# ------------------------------------------------------------------------------------------------ batch norm with ReLU

WIDE = 64  # channels


def formula(x: Array, weight: Array, bias: Array) -> Array:
    """As it is written. x: (N, C, H, W)."""
    mean, var = x.mean(axis=(0, 2, 3), keepdims=True), x.var(axis=(0, 2, 3), keepdims=True)
    shape = (1, -1, 1, 1)
    y: Array = np.maximum((x - mean) / np.sqrt(var + np.float32(1e-5)) * weight.reshape(shape) + bias.reshape(shape), 0)
    return y


def one_line(x: Array, weight: Array, bias: Array) -> Array:
    """Scale and offset first, for each channel, then x·scale + offset in place: three loops instead of six."""
    mean, var = x.mean(axis=(0, 2, 3)), x.var(axis=(0, 2, 3))
    scale = weight / np.sqrt(var + np.float32(1e-5))
    shape = (1, -1, 1, 1)
    y: Array = x * scale.reshape(shape)
    y += (bias - scale * mean).reshape(shape)
    return np.maximum(y, 0, out=y)


def our_norm(x: Array, weight: Array, bias: Array) -> Array:
    """What minires does: long rows, sums without temporaries, blocks, threads."""
    mean, var = cpu.batch_statistics(x)
    return cpu.batch_norm(x, mean, var, weight, bias, 1e-5, True)  # type: ignore[no-any-return]


# ------------------------------------------------------------------------------------------------ timing


def milliseconds(function: Callable[[], Any], most: float = 1.5) -> float:
    """The median time of a call, of as many as fit into ``most`` seconds (at least one)."""
    times: list[float] = []
    while not times or (sum(times) < most and len(times) < 30):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return 1000 * float(np.median(times))


def random(*shape: int, last: bool = False) -> Array:
    """Normal random numbers, in channels-last memory if ``last``."""
    x = np.random.default_rng(0).standard_normal(shape, np.float32)
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2) if last else x


def convolutions() -> list[tuple[str, float]]:
    """The steps of the convolution, in ms; BLAS keeps to one thread until the last."""
    shape, w = (COUNT, CHANNELS, SIZE, SIZE), random(CHANNELS, CHANNELS, 3, 3)
    x, x_last = random(*shape), random(*shape, last=True)
    expected = im2col(x, w)
    tiny = x[:1, :, :8, :8]
    np.testing.assert_allclose(loops(tiny, w), im2col(tiny, w), rtol=1e-3, atol=1e-4)
    rows = [("seven loops in Python, the definition", milliseconds(lambda: loops(tiny, w)) * COUNT * (SIZE / 8) ** 2)]
    steps: list[tuple[str, Callable[[Array, Array], Array], Array]] = [
        ("a product for each of the nine taps", shifted_images, x),
        ("im2col: one large product", im2col, x),
        ("channels-last memory", channels_last, x_last),
        ("four images at a time", in_blocks, x_last),
    ]
    with one_thread:
        for name, step, images in steps:
            np.testing.assert_allclose(step(images, w), expected, rtol=1e-3, atol=1e-3)
            rows.append((name, milliseconds(lambda step=step, images=images: step(images, w))))  # type: ignore[misc]
    np.testing.assert_allclose(ours(x_last, w), expected, rtol=1e-3, atol=1e-3)
    rows += _with_threads("columns of one kernel row, in pieces, without fresh memory", lambda: ours(x_last, w))
    return rows


def norms() -> list[tuple[str, float]]:
    """The steps of batch norm with ReLU, forward, in ms."""
    shape = (COUNT, WIDE, SIZE, SIZE)
    x, x_last, (weight, bias) = random(*shape), random(*shape, last=True), random(2, WIDE)
    expected = formula(x, weight, bias)
    rows = []
    for name, step, images in (("the formula", formula, x), ("one line for each channel, in place", one_line, x)):
        np.testing.assert_allclose(step(images, weight, bias), expected, rtol=1e-3, atol=1e-3)
        rows.append((name, milliseconds(lambda step=step, images=images: step(images, weight, bias))))  # type: ignore[misc]
    rows.append(("the same in channels-last memory", milliseconds(lambda: one_line(x_last, weight, bias))))
    np.testing.assert_allclose(our_norm(x_last, weight, bias), expected, rtol=1e-3, atol=1e-3)
    return rows + _with_threads("long rows, lean sums, blocks", lambda: our_norm(x_last, weight, bias))


def _with_threads(name: str, step: Callable[[], Any]) -> list[tuple[str, float]]:
    """``step`` on one thread, and on all."""
    all_threads = threads.get_num_threads()
    threads.set_num_threads(1)
    try:
        rows = [(name, milliseconds(step))]
    finally:
        threads.set_num_threads(all_threads)
    return [*rows, (f"on {all_threads} threads", milliseconds(step))]


def main() -> None:
    """Time all steps and print them."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.lesson", description=__doc__.split("\n")[0])
    parser.add_argument("--markdown", action="store_true", help="print Markdown tables")
    markdown = parser.parse_args().markdown
    print(f"blocks of {conv._BLOCK_BYTES >> 20} MB of columns, {norm.BLOCK_BYTES >> 20} MB of batch norm's input")
    for title, rows in (
        (f"3×3 convolution, {COUNT}×{CHANNELS}×{SIZE}×{SIZE} → {CHANNELS}, forward", convolutions()),
        (f"batch norm with ReLU, {COUNT}×{WIDE}×{SIZE}×{SIZE}, forward in training", norms()),
    ):
        print(f"\n| {title} | ms | times faster |\n|---|---|---|" if markdown else f"\n{title}")
        for (name, time_taken), (_, before) in zip(rows, [rows[0], *rows[:-1]], strict=True):
            gain = f"{before / time_taken:.1f}" if before != time_taken else ""
            print(
                f"| {name} | {time_taken:,.1f} | {gain} |" if markdown else f"  {name:<62} {time_taken:12,.1f} ms  {gain:>7}"
            )


if __name__ == "__main__":
    main()
