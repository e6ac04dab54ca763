"""What was found out about one tensor of a network, and how that is said."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from minires.checking.calls import Fault
from minires.checking.report import Array, Diagnosis, Worst
from minires.nn import Module

__all__ = ["Finding", "describe"]


@dataclass
class Finding:
    """What is known about the gradient of one tensor.

    Attributes:
        name: path of a parameter, or name of an input.
        values: where it was looked at.
        verdict: "right", "wrong" or "undecidable".
        accused: it was found wrong by itself.
        untested: it may be wrong, but there was no time to look at it alone.
        lost: the graph has no gradient for it (None).
        not_finite: its gradient holds a NaN or an infinity, though the loss is finite.
        differs: two backward passes gave two gradients.
        factor: its gradient is so many times the right one; None if it is no multiple.
        only_one: one element is wrong and all others are right.
        worst: a wrong element.
        kinks: elements at a kink.
        unknown: elements that cannot be decided.
        skipped: elements that there was no time for.
    """

    name: str
    values: Array
    verdict: str = "right"
    accused: bool = False
    untested: bool = False
    lost: bool = False
    not_finite: bool = False
    differs: bool = False
    factor: float | None = None
    only_one: bool = False
    worst: Worst | None = None
    kinks: int = 0
    unknown: int = 0
    skipped: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the tensor."""
        return tuple(self.values.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(self.values.size)

    @property
    def bad(self) -> int:
        """How many elements are known to be wrong."""
        if self.verdict != "wrong":
            return 0
        return self.size if self.is_multiple else 1

    @property
    def is_multiple(self) -> bool:
        """Whether the whole gradient is a multiple of the right one (of a single element everything is)."""
        return self.factor is not None and (self.size > 1 or self.factor in (0.0, -1.0))


def describe(finding: Finding, number: int, model: Module, faults: list[Fault] | None) -> Diagnosis:
    """The best explanation of a wrong gradient.

    Args:
        finding: what is known.
        number: of the tensor among all that were checked.
        model: the network.
        faults: calls of ops that are wrong on their own; None if they were not looked at.
    """
    label, what = _kind(finding)
    layer = _layer(finding.name, model)
    behind = [f for f in faults or () if number in f.spoiled]
    fault = next((f for f in behind if f.spoiled == {number}), behind[0] if behind else None)
    evidence: dict[str, object] = {"layer": layer, "factor": finding.factor, "lost": finding.lost}
    if fault is not None:
        evidence |= {"op": fault.op, "input": fault.input, "module": fault.path}
    where = f"the gradient of {finding.name}" + (f" ({layer})" if layer else "")
    return Diagnosis(label, f"{where} {what}. {_cause(finding, fault, number, faults)}", evidence)


def _kind(finding: Finding) -> tuple[str, str]:
    if finding.not_finite:
        return "not_finite", "holds a NaN or an infinity, though the loss is finite"
    if finding.differs:
        return "nondeterministic", "differs between two backward passes over the same forward pass"
    if finding.lost:
        return "zero_gradient", "is missing (None), though the loss depends on it"
    if finding.is_multiple:
        assert finding.factor is not None
        if finding.factor == 0:
            return "zero_gradient", "is zero, though the loss depends on it"
        if abs(finding.factor + 1) < 1e-9:
            return "sign_flipped", "has the wrong sign"
        return "constant_factor", f"is {_number(finding.factor)} times the right one"
    if finding.only_one and finding.worst is not None:
        off = finding.worst.analytic / finding.worst.numeric - 1 if finding.worst.numeric else float("inf")
        return "unexplained", f"is wrong in one element, {finding.worst.index}, by {off:.2g} of itself; all others are right"
    if finding.worst is not None:
        return "unexplained", f"is wrong in several elements, one of them {finding.worst.index}"
    return "unexplained", "is wrong"


def _cause(finding: Finding, fault: Fault | None, number: int, faults: list[Fault] | None) -> str:
    if fault is not None:
        rule = f"The rule of {fault.op} for '{fault.input}'"
        place = f" in {fault.path}" if fault.path else ""
        calls = sum((f.op, f.input) == (fault.op, fault.input) for f in faults or ())
        often = f" ({calls} calls of it are)" if calls > 1 else ""
        behind = "" if fault.spoiled == {number} else ", through which it comes,"
        return f"{rule}{place}{behind} is wrong on its own{often}: run gradcheck on {fault.op} alone with small inputs"
    if faults is None:
        return "There was no time to look at the ops one by one: run gradcheck on those of this layer and the ones behind it"
    if finding.lost:
        return "Every op is right on its own: somewhere the graph is cut, by detach(), no_grad() or work on raw arrays"
    return (
        "Every op is right on its own with the inputs it has here, so the gradient is changed between them: look for hooks, "
        "for work on raw arrays, and for a rule that depends on more than its inputs; else run gradcheck on this layer alone"
    )


def _layer(name: str, model: Module) -> str:
    """The type of the module that has the parameter; "" for an input."""
    if name not in dict(model.named_parameters()):
        return ""
    return type(model.get_submodule(name.rpartition(".")[0])).__name__


def _number(factor: float) -> str:
    simple = Fraction(factor).limit_denominator(1000)
    return str(simple) if simple and abs(factor / float(simple) - 1) < 1e-9 else f"{factor:.9g}"
