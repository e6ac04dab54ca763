"""Runs the mutants of :mod:`tests.gradcheck.mutation` against the tests, and says which of them nobody notices.

A mutant is planted and the samples that reach its function are put through the gradient checker, which also says what kind
of mistake it takes it for; then through every other test that is made from the table of samples, and at last through the
tests of edge cases. The first that fails ends it: an assertion, an exception, or a time limit. A mutant that lives is either
listed as equivalent (:mod:`tests.gradcheck.equivalent_mutants`), or it shows what the tests do not look at.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import inspect
import io
import itertools
import multiprocessing
import signal
import sys
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from types import CodeType
from typing import Any

import numpy as np
import pytest

import minires as mr
from tests.functional import table, test_needs, test_table
from tests.functional.problem import walk
from tests.functional.sample import Sample
from tests.gradcheck.equivalent_mutants import EQUIVALENT
from tests.gradcheck.mutation import Mutant, mutants
from tests.gradcheck.mutation_targets import Target, targets

SECONDS = 60  # of processor time for one check, so that a busy machine finds no more than an idle one; most take 0.1
EXAMINED, EXAMINED_AT_MOST = 4, 30  # so many samples see the gradient checker first, and so many before their other tests
SMALL = 400  # inputs × outputs: what is smaller often looks like more than one mistake
EDGES = [f"tests/functional/test_{name}.py" for name in ("conventions", "edges")]
DEFINITIONS = ["tests/functional/test_definitions.py"]  # takes half a minute, so what is listed as equivalent is spared it
GENERAL = ("", "unexplained")  # labels that say nothing about the kind of mistake


@dataclass(frozen=True)
class Result:
    """What became of a mutant.

    Attributes:
        target: name of the function.
        kind: of the target.
        mutant: line and change, to be read.
        change: the change alone, which together with the target names the mutant.
        by: which check found it; "" if none did.
        sample: with which sample.
        labels: what the gradient checker calls the mistake, by input.
        broken: checks that fail without the mutant as well, so they count for nothing.
    """

    target: str
    kind: str
    mutant: str
    change: str
    by: str = ""
    sample: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    broken: tuple[str, ...] = ()

    @property
    def equivalent(self) -> bool:
        return self.change in EQUIVALENT.get(self.target, {})

    @property
    def label(self) -> str:
        """The first specific label, or the first of all."""
        specific = [v for v in self.labels.values() if v not in GENERAL]
        return (specific or [*self.labels.values(), ""])[0]


@dataclass(frozen=True)
class Use:
    """A sample that reaches a target: whether the checker can look at it, and which derivative it takes to get there."""

    sample: Sample
    checkable: bool
    order: int


# ------------------------------------------------------------------------------------ checks


def examine(sample: Sample, order: int = 1) -> tuple[bool, dict[str, str]]:
    """Whether the gradient checker finds a gradient of this sample wrong, and what it calls the mistake, by input."""
    args, kwargs = sample.make(sample.rng())
    signature = inspect.signature(sample.function)
    plain = all(p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL) for p in signature.parameters.values())
    arguments = signature.bind(*args, **kwargs).arguments if plain else {}
    count = sum(isinstance(value, np.ndarray) for value in arguments.values())
    inputs, options = list(arguments.items())[:count], dict(list(arguments.items())[count:])
    if inputs and all(isinstance(value, np.ndarray) for _, value in inputs) and not any(map(_has_array, options.values())):
        report = mr.gradcheck(sample.function, dict(inputs), params=options, order=order)  # it can vary the options
    else:
        problem = test_table.problem_of(sample)
        report = mr.gradcheck(lambda *x: problem.call(list(x), mr.Tensor), tuple(problem.arrays), order=order)
    return report.verdict == "wrong", report.labels


def _has_array(value: Any) -> bool:
    return any(isinstance(each, np.ndarray) for each in walk(value))


@functools.cache
def table_tests() -> dict[str, list[tuple[str, Callable[[], None]]]]:
    """By the name of a sample: every test that is made from it, as (name of the test, call)."""
    found: dict[str, list[tuple[str, Callable[[], None]]]] = defaultdict(list)
    functions = [(n, f) for module in (test_table, test_needs) for n, f in vars(module).items() if n.startswith("test_")]
    for name, function in functions:
        values = {m.args[0]: m.args[1] for m in getattr(function, "pytestmark", []) if m.name == "parametrize"}
        if "sample" not in values:
            continue
        if set(values) != set(inspect.signature(function).parameters):
            raise TypeError(f"{name}: the mutation test cannot fill in {inspect.signature(function)}")
        for combination in itertools.product(*values.values()):
            arguments = dict(zip(values, combination, strict=True))
            found[arguments["sample"].name].append((name, functools.partial(function, **arguments)))
    return found


def _bad_calls() -> None:
    for bad in table.bad_calls():
        test_table.test_bad_call_raises_a_helpful_error(bad)


def _pytest(files: list[str]) -> None:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        code = pytest.main(["-x", "-q", "-p", "no:cacheprovider", *files])
    assert code == pytest.ExitCode.OK


@functools.cache
def uses() -> dict[CodeType, list[Use]]:
    """Which samples reach each target, the ones first that are likely to say most."""
    codes = {t.function.__code__ for t in targets()}
    found: dict[CodeType, list[tuple[Any, Use]]] = {code: [] for code in codes}
    for sample in table.samples():
        problem = test_table.problem_of(sample)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            gradients, first = _watched(problem.gradients)
            _, second = _watched(lambda problem=problem: problem.second_gradients([np.ones_like(a) for a in problem.arrays]))
        reached = codes & (first | second)
        checkable = sample.smooth and any(g is not None for g in gradients)
        size = sum(a.size for a in problem.arrays) * sum(u.size for u in problem.upstream)
        for code in reached:
            use = Use(sample, checkable, 1 if code in first else 2)
            found[code].append(((not checkable or not size, use.order, len(reached), size < SMALL, size), use))
    return {code: [use for _, use in sorted(rows, key=lambda row: row[0])] for code, rows in found.items()}


def _watched(call: Callable[[], Any]) -> tuple[Any, set[CodeType]]:
    """What a call returns, and the code of every Python function that ran meanwhile."""
    reached: set[CodeType] = set()
    sys.setprofile(lambda frame, *_: reached.add(frame.f_code))
    try:
        return call(), reached
    finally:
        sys.setprofile(None)


# ------------------------------------------------------------------------------------ one mutant


@contextlib.contextmanager
def _limited(seconds: int) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise TimeoutError(f"more than {seconds} s")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def judge(target: Target, mutant: Mutant, thorough: bool = True) -> Result:
    """Plant a mutant and look for a test that fails. Without ``thorough`` the tests of edge cases are left out."""
    result = Result(target.name, target.kind, str(mutant), mutant.change)
    with warnings.catch_warnings():
        for by, name, check in _checks(uses()[target.function.__code__], thorough):
            if by == "definitions" and result.equivalent:
                continue
            with mutant.planted():
                how, labels = _outcome(by, check)
            if how and _fails_anyway(by, name, check):
                result = replace(result, broken=(*result.broken, f"{by} {name}".strip()))
            elif how:
                return replace(result, by=how, sample=name, labels=labels)
    return result


def _outcome(by: str, check: Callable[[], Any]) -> tuple[str, dict[str, str]]:
    """How a check failed ("" if it did not), and the labels that it gave."""
    try:
        with _limited(SECONDS):
            wrong, labels = check() or (False, {})
    except TimeoutError:
        return "time limit", {}
    except (AssertionError, pytest.fail.Exception):
        return by, {}
    except Exception as error:
        return f"exception: {type(error).__name__}", {}
    return (by, labels) if wrong else ("", {})


_known: dict[tuple[str, str], bool] = {}


def _fails_anyway(by: str, name: str, check: Callable[[], Any]) -> bool:
    """Whether a check fails without a mutant, too: one that always fails would find everything, and proves nothing."""
    if (by, name) not in _known or not name:  # many tests at once are asked each time
        _known[by, name] = bool(_outcome(by, check)[0])
    return _known[by, name]


def _checks(found: list[Use], thorough: bool) -> Iterator[tuple[str, str, Callable[[], Any]]]:
    """All checks in order, as (name, name of the sample, call). While a check runs, its warnings are as it wants them."""
    checkable = [use for use in found if use.checkable]
    first, later = checkable[:EXAMINED], checkable[EXAMINED:EXAMINED_AT_MOST]
    if found and found[0].order == 2:  # dear: one must do
        first, later = checkable[:1], []
    for use in first:
        yield from _examination(use)
    for use in found:
        if use in later:
            yield from _examination(use)
        warnings.simplefilter("error")  # as in pyproject.toml
        for name, test in table_tests()[use.sample.name]:
            yield name, use.sample.name, test
    if thorough:
        yield "bad calls", "", _bad_calls
        yield "edge cases", "", functools.partial(_pytest, EDGES)
        yield "definitions", "", functools.partial(_pytest, DEFINITIONS)


def _examination(use: Use) -> Iterator[tuple[str, str, Callable[[], Any]]]:
    warnings.simplefilter("ignore")
    yield "gradcheck", use.sample.name, functools.partial(examine, use.sample, use.order)


@functools.cache
def everything() -> list[tuple[Target, Mutant]]:
    """All mutants of all targets, in order."""
    return [(target, mutant) for target in targets() for mutant in mutants(target.function)]


def _judge_number(number: int) -> Result:
    return judge(*everything()[number])


def run(numbers: Iterable[int], jobs: int) -> Iterator[Result]:
    """The results of some mutants, by number, in any order."""
    if jobs == 1:
        yield from map(_judge_number, numbers)
        return
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap_unordered(_judge_number, numbers, chunksize=8)


# ------------------------------------------------------------------------------------ report


def summary(results: list[Result]) -> str:
    """A table by op, the survivors, and the total."""
    by_target: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        by_target[result.target].append(result)
    lines = [f"{'function':<36}{'mutants':>8}{'found':>7}{'equal':>7}{'alive':>7}  found by; labels"]
    for name, rows in by_target.items():
        found = [r for r in rows if r.by]
        alive = [r for r in rows if not r.by and not r.equivalent]
        ways = Counter(r.by.removeprefix("test_")[:24] for r in found)
        labels = Counter(r.label for r in found if r.label)
        said = ", ".join(f"{n} {way}" for way, n in ways.most_common(4))
        said += ("; " + ", ".join(f"{n} {label}" for label, n in labels.most_common(4))) if labels else ""
        equal = len(rows) - len(found) - len(alive)
        lines.append(f"{name:<36}{len(rows):>8}{len(found):>7}{equal:>7}{len(alive):>7}  {said}")
    for title, rows in (
        ("NOT FOUND BY ANY TEST", [r for r in results if not r.by and not r.equivalent]),
        ("LISTED AS EQUIVALENT, BUT FOUND", [r for r in results if r.by and r.equivalent]),
    ):
        lines += ["", f"{title}: {len(rows)}"] + [f"  {r.target}  {r.mutant}  {r.by} {r.sample}".rstrip() for r in rows]
    return "\n".join([*lines, "", *_totals(results)])


def _totals(results: list[Result]) -> Iterator[str]:
    for kind in ("rule", "helper", "shared"):
        rows = [r for r in results if r.kind == kind]
        counted = [r for r in rows if r.by or not r.equivalent]
        found = [r for r in counted if r.by]
        checked = [r for r in found if r.by == "gradcheck"]
        labelled = sum(r.label not in GENERAL for r in checked)
        crashed = sum(r.by.startswith("exception") for r in found)
        yield (
            f"{kind}: {len(rows)} mutants, {len(rows) - len(counted)} equivalent, {len(found)} of {len(counted)} found "
            f"({len(found) / max(1, len(counted)):.2%}): {len(checked)} by gradcheck ({labelled} with a specific label, "
            f"{labelled / max(1, len(checked)):.0%}), {crashed} by an exception"
        )


def stale() -> list[str]:
    """Entries of EQUIVALENT that are the name of no mutant (any more)."""
    names = {(target.name, mutant.change) for target, mutant in everything()}
    return [f"{t}  {change}" for t, changes in EQUIVALENT.items() for change in changes if (t, change) not in names]


def main(arguments: list[str]) -> int:
    """The command line. Returns 1 if a mutant lives that is not listed as equivalent, or if the list is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.gradcheck.mutation", description=__doc__.splitlines()[0])
    parser.add_argument("ops", nargs="*", help="names of ops or functions (default: all)")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default: 1)")
    parser.add_argument("--skip-equivalent", action="store_true", help="do not run the mutants listed as equivalent")
    parser.add_argument("--verbose", action="store_true", help="print each mutant and what found it")
    options = parser.parse_args(arguments)
    start, pairs = time.perf_counter(), everything()
    numbers = [
        n for n, (target, mutant) in enumerate(pairs)
        if (not options.ops or {target.name, target.name.partition(".")[2]} & set(options.ops))
        and not (options.skip_equivalent and mutant.change in EQUIVALENT.get(target.name, {}))
    ]  # fmt: skip
    results = []
    for result in run(numbers, options.jobs):
        results.append(result)
        if options.verbose:
            how = f"{result.by or 'ALIVE'} {result.sample} {result.labels or ''}"
            print(f"{result.target}  {result.mutant}: {how}".rstrip(), flush=True)
    order = {target.name: i for i, (target, _) in enumerate(pairs)}
    results.sort(key=lambda r: order[r.target])
    print(summary(results))
    broken = sorted({check for result in results for check in result.broken})
    for line in [f"no such mutant: {s}" for s in stale()] + [f"fails although nothing is planted: {b}" for b in broken]:
        print(line)
    print(f"{len(results)} mutants in {time.perf_counter() - start:.0f} s")
    wrong = stale() or broken or any(bool(r.by) == r.equivalent for r in results)
    return 1 if wrong else 0
