"""Does the checker ever accuse a right gradient? All samples of all ops, in both dtypes, with many seeds; and kinks.

``python -m tests.gradcheck.false_alarms [--seeds 10] [--part 0/2]`` prints what was accused, and how many runs there were.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import minires as mr
from minires import functional as F
from tests.functional import table
from tests.functional.problem import Problem
from tests.functional.sample import Sample

DTYPES = (np.float64, np.float32)


def check(sample: Sample, seed: int, dtype: Any = None, **options: Any) -> mr.checking.Report:
    """The checker's report on one sample, with other numbers for every seed."""
    rng = sample.rng() if seed == 0 else np.random.default_rng([seed, *sample.name.encode()])
    args, kwargs = sample.make(rng)
    problem = Problem(sample.function, args, kwargs, rng)
    problem.arrays = [a.astype(dtype or a.dtype) for a in problem.arrays]
    return problem.check(seed=seed, **options)


#: Functions with kinks: (Tensor function, plain forward, plain backward), of one input.
KINKS: dict[str, tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]] = {
    "relu": (F.relu, lambda x: np.maximum(x, 0), lambda x, g: g * (x > 0)),
    "abs": (F.abs, np.abs, lambda x, g: g * np.sign(x)),
    "clip": (lambda x: F.clamp(x, -1e-3, 1e-3), lambda x: np.clip(x, -1e-3, 1e-3), lambda x, g: g * (np.abs(x) < 1e-3)),
    "max": (lambda x: F.amax(x, dim=1), lambda x: x.max(axis=1),
            lambda x, g: g[:, None] * (np.arange(x.shape[1]) == x.argmax(axis=1)[:, None])),
}  # fmt: skip


def kinks(dtype: Any, seeds: int = 10) -> Iterator[tuple[str, mr.checking.Report]]:
    """Each function at distances of 1e-12 to 3 from its kink, as Tensors and as plain NumPy."""
    for name, (function, forward, backward) in KINKS.items():
        for exponent in (-12, -9, -6, -3, 0):
            for seed in range(seeds):
                rng = np.random.default_rng([seed, -exponent])
                x = (3 * 10.0**exponent * rng.uniform(-1, 1, (3, 4))).astype(dtype)
                yield f"{name} 1e{exponent} seed {seed}, Tensors", mr.gradcheck(function, x, seed=seed)
                yield f"{name} 1e{exponent} seed {seed}, NumPy", mr.checking.gradcheck_pair(
                    lambda x, f=forward: f(x), lambda x, g, b=backward: b(x, g).astype(x.dtype), x, seed=seed)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--part", default="0/1", help="this share of the samples, for several processes")
    options = parser.parse_args()
    part, parts = map(int, options.part.split("/"))
    runs = accused = undecided = 0
    started = time.perf_counter()
    for seed in range(options.seeds):
        for sample in [s for s in table.samples()[part::parts] if s.derivative]:
            for dtype in DTYPES:
                with warnings.catch_warnings():
                    warnings.simplefilter("error")
                    try:
                        report = check(sample, seed, dtype)
                    except ValueError as error:  # a sample without derivatives: its output is constant or an integer
                        if "no output depends" not in str(error) and "none of the inputs" not in str(error):
                            raise
                        continue
                runs += 1
                undecided += report.verdict == "undecidable"
                if report.verdict == "wrong":
                    accused += 1
                    print(f"{sample.name} seed {seed} {np.dtype(dtype)}\n{report}", flush=True)
        print(f"seed {seed}: {runs} runs, {accused} accused, {undecided} undecidable, {time.perf_counter() - started:.0f} s",
              flush=True)  # fmt: skip
    if part == 0:
        for dtype in DTYPES:
            found = list(kinks(dtype))
            bad = [(name, report) for name, report in found if report.verdict == "wrong"]
            for name, report in bad:
                print(f"{name}\n{report}")
            decided = sum(r.ok for _, r in found)
            accused += len(bad)
            print(f"kinks, {np.dtype(dtype)}: {len(found)} runs, {len(bad)} accused, {decided} right")
    return 1 if accused else 0


if __name__ == "__main__":
    raise SystemExit(main())
