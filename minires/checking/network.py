"""``gradcheck_model``: is the gradient of a whole network right, a million parameters and more, within seconds?

One backward pass gives all derivatives, one forward pass with complex numbers the true slope along a direction. How few
directions see every single weight stands in :mod:`minires.checking.directions`, how a wrong one is found by halving in
:mod:`minires.checking.search`, how the op that is to blame in :mod:`minires.checking.calls`. Here they meet a network.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from minires.autograd import enable_grad
from minires.checking.blame import Finding, describe
from minires.checking.borrowed import BorrowedModel
from minires.checking.calls import Fault, faulty_calls
from minires.checking.directions import SENSITIVITY, Comparison, Direction, moved
from minires.checking.objective import Objective
from minires.checking.report import HINTS, Array, Coverage, Diagnosis, InputReport, Report, Worst
from minires.checking.search import constant_factor, wrong_element, wrong_tensors
from minires.nn import Module
from minires.tensor import Tensor

__all__ = ["gradcheck_model"]

TOO_NOISY = 1e-2  # an error of the whole gradient of this part of itself leaves nothing to decide
NEARBY = 1e-3  # how far from a point, in parts of each tensor's size, another is looked at, where no kink can be by chance


def gradcheck_model(
    model: Module, x: Any, y: Any = None, loss: Callable[[Any, Any], Tensor] | None = None, *, params: Any = None,
    dtype: Any = None, reference: str = "auto", seed: int = 0, points: int = 1, hints: str = "full",
    max_seconds: float = 60.0,
) -> Report:  # fmt: skip
    """Compare the gradients of all parameters of a network, and of its input, with true slopes along a few directions.

    Every element takes part, each with a share of its own size, so that one weight among millions whose gradient is off by a
    millionth of itself is found; halving then names its tensor and its index. The network is given back as it was, bit for
    bit: parameters, buffers, gradients, hooks, training mode, the random generator.

    Args:
        model: any module, in the mode (training or evaluation) in which it is.
        x: its input, an array or a Tensor, or a tuple of such. Floating point ones are checked like parameters.
        y: the target: given to ``loss``.
        loss: ``loss(output, y)`` returns a Tensor of one element. Default: ``cross_entropy`` if ``y`` is an integer array,
            ``mse_loss`` if it is floating point; and without ``y`` a sum of all outputs with random weights.
        params: which parameters to check: their paths, or paths of modules, or the parameters themselves; None for all.
        dtype: float64 or float32, in which the backward runs; None for float64.
        reference: "complex" (the complex step), "richardson" (differences), or "auto", the best that works.
        seed: of everything random in the check.
        points: how many points to look at: the given one, and random ones near it.
        hints: how much the printed report gives away: "verdict", "where", "class" or "full".
        max_seconds: how long it may take, roughly. What it was not enough for, the report says.

    Returns:
        A :class:`Report` with an entry for each floating point input and each parameter, by its path. Its coverage says how
        many weights would have been found had they been off by a millionth.

    Raises:
        TypeError: ``model`` is no module, ``x`` no array, or the model or the loss returns no Tensors.
        ValueError: there is nothing to check; the loss has several elements, or no target; the model is not deterministic;
            or an argument is not among those allowed.
    """
    _check_arguments(model, x, y, loss, dtype, reference, points, hints)
    with BorrowedModel(model) as borrowed, enable_grad():
        network = Objective(borrowed, x, y, loss, params, np.dtype(dtype or np.float64), seed)
        return _Check(network, reference, seed, points, hints, max_seconds).report()


def _check_arguments(model: Any, x: Any, y: Any, loss: Any, dtype: Any, reference: str, points: int, hints: str) -> None:
    name = "gradcheck_model"
    if not isinstance(model, Module):
        raise TypeError(f"{name}: expected a Module, got {type(model).__name__} (gradcheck is for functions)")
    for part in x if isinstance(x, tuple | list) and x else (x,):
        if not isinstance(part, np.ndarray | Tensor):
            raise TypeError(f"{name}: x must be an array, a Tensor or a tuple of them, got {type(part).__name__}")
    if loss is not None and y is None:
        raise ValueError(f"{name}: a loss was given, but no target y; without both, random weights sum up the outputs")
    if dtype is not None and np.dtype(dtype) not in (np.float32, np.float64):
        raise ValueError(f"{name}: dtype must be float32 or float64, got {dtype!r}")
    if reference not in ("auto", "complex", "richardson"):
        raise ValueError(f"{name}: reference must be 'auto', 'complex' or 'richardson', got {reference!r}")
    if hints not in HINTS:
        raise ValueError(f"{name}: hints must be one of {', '.join(map(repr, HINTS))}, got {hints!r}")
    if isinstance(points, bool) or not isinstance(points, int) or points < 1:
        raise ValueError(f"{name}: points must be a whole number >= 1, got {points!r}")


@dataclass(frozen=True)
class NetworkCoverage(Coverage):
    """What a check of a network looked at.

    Attributes:
        visible: number of elements that would have been found, had they alone been off by a millionth of themselves.
    """

    visible: int = 0

    def __str__(self) -> str:
        seen = f"{self.visible:,} of {self.of:,} elements would show an error of {SENSITIVITY:g} of themselves"
        return f"{super().__str__()}; {seen}"


#: Of so many wrong tensors an element is looked for, and whether their gradient is a multiple of the right one.
DETAILED = 16


class _Check:
    """One run of :func:`gradcheck_model`."""

    def __init__(self, network: Objective, reference: str, seed: int, points: int, hints: str, max_seconds: float) -> None:
        self.network, self.seed, self.points, self.hints = network, seed, points, hints
        self.rng = np.random.default_rng(seed)
        self.started = time.perf_counter()
        self.seconds = max_seconds
        self.findings = [Finding(name, v) for name, v in zip(network.names, network.values, strict=False)]
        self.complex = reference != "richardson"
        self.forced = reference == "complex"
        self.faults: list[Fault] | None = None
        self.directions = self.looked_at = self.visible = 0

    def out_of_time(self, share: float = 1.0) -> bool:
        return time.perf_counter() - self.started > share * self.seconds

    def report(self) -> Report:
        """Look at every point, and where something is wrong, into it."""
        first = self._first_gradient()
        if first is not None:
            if self.complex and not self.forced:
                self.complex = self._complex_works(self.network.values, range(len(self.findings)))
            for number in range(self.points):
                if number and self.out_of_time(0.5):
                    break
                if number:
                    self._look_at(self._comparison(moved(self.network.values, self.rng, 0.1)))
                else:
                    self._look_at(self._comparison(self.network.values, first))
                if any(f.verdict != "right" for f in self.findings):
                    break
        return self._report()

    def _comparison(self, values: list[Array], known: list[Array] | None = None) -> Comparison:
        slope = self.network.slope if self.complex else self.network.slope_by_differences
        ulp = float(np.finfo(self.network.dtype).eps)
        return Comparison(self.network.gradient, slope, values, self.rng, ulp, self.complex, known)

    def _first_gradient(self) -> list[Array] | None:
        """The gradient, if the loss is a finite number; on the way, whether two calls agree in loss and gradient."""
        network = self.network
        (loss, first), (again, second) = (network.backward(network.values) for _ in range(2))
        losses = loss, again
        if not np.isfinite(losses).all():
            for finding in self.findings:
                finding.verdict, finding.unknown = "undecidable", finding.size
            return None
        if losses[0] != losses[1]:
            raise ValueError(
                f"gradcheck_model: the model is not deterministic: its loss was {losses[0]!r} and then {losses[1]!r}. Draw "
                "random numbers from minires.random, which is set back before every call"
            )
        for finding, a, b in zip(self.findings, first, second, strict=True):
            finding.lost = a is None
            finding.not_finite = a is not None and not np.isfinite(a).all()
            finding.differs = not finding.not_finite and a is not None and b is not None and not np.array_equal(a, b)
            if finding.not_finite or finding.differs:
                finding.verdict = "wrong"
        return network.as_numbers(first)

    # -------------------------------------------------------------------------------- looking

    def _look_at(self, comparison: Comparison) -> None:
        if comparison.relative_noise() > TOO_NOISY:
            for finding in self.findings:
                if finding.verdict == "right":
                    finding.verdict, finding.unknown = "undecidable", finding.size
            return
        self.looked_at += 1
        for direction in comparison.directions():
            if self.directions and self.out_of_time(0.8):
                self._skip(direction)
                continue
            difference = comparison.along(direction, points=2)
            self.directions += 1
            if self.looked_at == 1:
                self.visible += comparison.count_visible(direction, difference.tolerance)
            if difference.is_wrong:
                self._search(comparison, direction)
                break

    def _skip(self, direction: Direction) -> None:
        """There was no time for these elements."""
        for finding, u in zip(self.findings, direction, strict=True):
            finding.skipped += 0 if u is None else int(np.count_nonzero(u))

    def _search(self, here: Comparison, mismatch: Direction) -> None:
        """Find the tensors. It is done at a point nearby: what is wrong only here is a kink, and no fault of a rule's."""
        near = self._comparison(moved(here.points[0], self.rng, NEARBY))
        near.excess = here.excess
        found_any = False
        for direction in near.directions():
            found = near.along(direction)
            if not found.is_wrong:
                continue
            for k, known in wrong_tensors(near, direction, found, lambda: self.out_of_time(0.7)):
                if not known:
                    self.findings[k].untested = self.findings[k].verdict == "right"
                elif not self.findings[k].accused:
                    if not found_any and not self._trusts_reference(near.points[0], k):
                        return
                    found_any = True
                    self._accuse(here, near, direction, k)
        if not any(f.accused or f.untested for f in self.findings):
            self._find_kinks(here, mismatch)
        for finding in self.findings:
            if finding.untested and not finding.accused:
                finding.verdict = "undecidable"
        self.faults = self._find_faults()

    def _complex_works(self, values: list[Array], tensors: Iterable[int]) -> bool:
        """Whether differences confirm the complex step, at a point nearby, where no kink can be by chance."""
        return self.network.complex_works(moved(values, self.rng, NEARBY), tensors, self.rng)

    def _trusts_reference(self, values: list[Array], k: int) -> bool:
        """Before the first accusation: differences along this tensor alone must not contradict the complex step."""
        if not self.complex or self.forced or self._complex_works(values, [k]):
            return True
        self.complex = False
        self._look_at(self._comparison(self.network.values))  # all over again, with differences
        return False

    def _accuse(self, here: Comparison, near: Comparison, direction: Direction, k: int) -> None:
        """Tensor ``k`` is wrong: find an element, and whether the whole is a multiple of the right gradient."""
        finding = self.findings[k]
        finding.verdict, finding.accused = "wrong", True
        if finding.not_finite or finding.differs:
            return
        first = sum(f.accused for f in self.findings) == 1
        if sum(f.accused for f in self.findings) <= DETAILED:
            element = wrong_element(near, direction, k, self.out_of_time) if first else None
            if element is not None:
                index, finding.only_one = element
                finding.worst = self._worst(here, near, k, index)
            if not finding.only_one:
                finding.factor = constant_factor(near, k)

    def _worst(self, here: Comparison, near: Comparison, k: int, index: tuple[int, ...]) -> Worst:
        """Both derivatives of one element, at the given point if the difference shows there."""
        direction: Direction = [None] * len(self.findings)
        direction[k] = unit = np.zeros(near.points[0][k].shape)
        unit[index] = 1.0
        for comparison in (here, near):
            difference = comparison.along(direction)
            if difference.is_wrong:
                break
        analytic = float(comparison.gradients[0][k][index])
        return Worst(index, analytic, analytic - difference.value, difference.tolerance)

    def _find_faults(self) -> list[Fault] | None:
        """Check the calls of ops alone; None if the time was over before the last one."""
        network = self.network
        wrong = {k for k, finding in enumerate(self.findings) if finding.verdict == "wrong" or finding.untested}
        if not wrong or self.out_of_time():
            return None
        return faulty_calls(
            lambda: network.run(network.values, np.float64, record=True), wrong, self.rng, lambda: self.out_of_time()
        )

    def _find_kinks(self, here: Comparison, mismatch: Direction) -> None:
        """What differs at the point alone lies at a kink."""
        found = here.along(mismatch)
        for k, _ in wrong_tensors(here, mismatch, found, self.out_of_time, confirm=0) if found.is_wrong else ():
            if self.findings[k].verdict == "right":
                self.findings[k].verdict, self.findings[k].kinks = "undecidable", self.findings[k].size

    # -------------------------------------------------------------------------------- the report

    def _report(self) -> Report:
        network = self.network
        name = type(network.borrowed.model).__name__
        inputs = [self._input_report(k) for k in range(len(self.findings))]
        for path in network.frozen:  # they get no gradient, as it should be
            shape = network.borrowed.values[path].shape
            inputs.append(InputReport(path, shape, "right", 0, int(np.prod(shape)), unchecked=int(np.prod(shape))))
        inputs.sort(key=self._place)
        of = sum(f.size for f in self.findings)
        coverage = NetworkCoverage(0, of, self.directions, max(self.looked_at, 1), 1, network.dtype.name, self.visible)
        reference = "complex step" if self.complex else "Richardson differences"
        reproduce = f"gradcheck_model(model, x, y, seed={self.seed})"
        seconds = time.perf_counter() - self.started
        return Report(name, reference, 1, self.seed, coverage, inputs, self.hints, seconds, reproduce)

    def _place(self, i: InputReport) -> tuple[bool, bool, int]:
        """Sorts the tensors: wrong ones first (those of wrong rules first of all), the last one first; others as they come.

        So what is nearest to the mistake is on top: what is wrong further in front usually follows from it.
        """
        network, wrong = self.network, i.verdict == "wrong"
        inputs = len(network.names) - len(network.parameters)
        place = [*network.names[:inputs], *network.borrowed.parameters].index(i.name)
        own = wrong and any(fault.spoiled == {network.names.index(i.name)} for fault in self.faults or ())
        return not wrong, not own, -place if wrong else place

    def _input_report(self, k: int) -> InputReport:
        finding = self.findings[k]
        diagnosis: tuple[Diagnosis, ...] = ()
        if finding.verdict == "wrong":
            diagnosis = (describe(finding, k, self.network.borrowed.model, self.faults),)
        verdict = finding.verdict
        if verdict == "right" and finding.size and finding.skipped >= finding.size:
            verdict = "undecidable"
        return InputReport(
            finding.name, finding.shape, verdict, finding.bad, finding.size, finding.kinks, finding.unknown,
            finding.size - (finding.worst is not None), finding.worst, diagnosis,
        )  # fmt: skip
