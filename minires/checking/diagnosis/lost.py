"""Mistakes that lose some entries of the Jacobian and leave the others right.

Which ones are lost tells the mistake: whole windows at the border, all but the last sample, all but the last of the windows
that overlap, or one offset of the kernel.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from minires.checking.diagnosis.case import Case, View, axes_in_words, subsets
from minires.checking.report import Diagnosis

__all__ = [
    "border_missing",
    "not_accumulated_over_axis",
    "overlap_overwritten",
    "window_offset_skipped",
    "without_lost_rows",
]

Array = np.ndarray[Any, Any]


class Losses:
    """Which entries of the Jacobian are lost at one point.

    Attributes:
        lost: entries that are 0 and should not be.
        kept: nonzero entries that are right.
        only: whether losing entries is all that happened.
    """

    def __init__(self, case: Case, view: View) -> None:
        self.case = case
        zero = np.abs(view.analytic) <= 1e-9 * view.scale
        wrong = case.differs(view) & view.known
        self.lost = zero & view.support & wrong
        self.kept = ~wrong & view.support
        self.only = not (wrong & ~self.lost).any() and bool(self.kept.any() or not self.lost.any())

    @cached_property
    def indices(self) -> Array:
        """The output index of every row (rows x axes)."""
        return np.stack(np.unravel_index(np.arange(len(self.lost)), self.case.out_shape or (1,)), axis=1)

    @cached_property
    def places(self) -> Array:
        """The input index of every column (columns x axes)."""
        return np.stack(np.unravel_index(np.arange(self.lost.shape[1]), self.case.shape or (1,)), axis=1)


def losses(case: Case) -> list[Losses]:
    """The lost entries at every point where there are any; nothing if something else happened too."""
    found = [Losses(case, view) for view in case.views]
    return [f for f in found if f.lost.any()] if all(f.only for f in found) else []


def not_accumulated_over_axis(case: Case) -> Diagnosis | None:
    """Of a sum over an axis of the output only one index survives."""
    survivors = None
    for found in losses(case):
        axes = _surviving(case, found)
        alive = np.all([found.indices[:, b] == k for b, k in axes.items()], axis=0)
        if not axes or found.lost[alive].any() or found.kept[~alive].any() or survivors not in (None, axes):
            return None
        survivors = axes
    if not survivors:
        return None
    return Diagnosis("not_accumulated_over_axis", f"comes from {_which(survivors)} alone; the contributions of the others "
                     "are lost: they have to be added up (+= instead of =, or a sum)", {"axes": survivors})  # fmt: skip


def _surviving(case: Case, found: Losses) -> dict[int, int]:
    """Output axes of which one index alone has a gradient, and that index."""
    rows = np.flatnonzero(found.kept.any(axis=1))
    indices = {b: set(found.indices[rows, b].tolist()) for b, n in enumerate(case.out_shape) if n > 1}
    axes = {b: next(iter(s)) for b, s in indices.items() if len(s) == 1 and not _is_edge_of_two(case, b)}
    return {b: k for b, k in axes.items() if found.lost[found.indices[:, b] != k].any()}


def _which(axes: dict[int, int]) -> str:
    return ", ".join(f"index {k} of output axis {b}" for b, k in axes.items())


def without_lost_rows(case: Case) -> tuple[Diagnosis, Case] | None:
    """The first of two mistakes, and a case with what is left to explain.

    Only one index of an axis survives, and of that index not everything does.
    """
    found = losses(case)
    axes = _surviving(case, found[0]) if found else {}
    if not axes:
        return None
    alive = np.all([found[0].indices[:, b] == k for b, k in axes.items()], axis=0)
    if not found[0].lost[alive].any() or not found[0].lost[~alive].any():
        return None
    sentence = f"comes from {_which(axes)} alone; the contributions of the others are lost"
    first = Diagnosis("not_accumulated_over_axis", sentence, {"axes": axes})
    return first, case.with_views(lambda v: replace(v, numeric=np.where(alive[:, None], v.numeric, 0)))


def _is_edge_of_two(case: Case, b: int) -> bool:
    """Two windows, one of which is lost: that is a border rather than a sum of which one index survives."""
    return case.out_shape[b] == 2 and any(case.relation(b, a) == "band" for a in range(len(case.shape)))


def border_missing(case: Case) -> Diagnosis | None:
    """Whole windows (rows) or inputs (columns) at the border have no gradient."""
    every = losses(case)
    for of_input in (False, True):
        margins = [_margins_of(case, found, of_input) for found in every]
        if margins and margins[0] and all(m == margins[0] for m in margins):
            what = "input" if of_input else "output"
            how = "is 0 for the elements" if of_input else "gets nothing from the outputs"
            return Diagnosis("border_missing", f"{how} at the border ({_margins(margins[0])} of the {what}); all others are "
                             "right: padding or the range of a loop is mishandled", {what: margins[0]})  # fmt: skip
    return None


def _margins_of(case: Case, found: Losses, of_input: bool) -> dict[int, tuple[int, int]] | None:
    if of_input:
        margins = _ring(found.lost.T, found.kept.T, found.places, case.shape)  # of the transposes, (elements, outputs)
    else:
        margins = _ring(found.lost, found.kept, found.indices, case.out_shape)
    return margins if margins and _at_a_border(case, margins, of_input) else None


def _ring(lost: Array, kept: Array, indices: Array, shape: tuple[int, ...]) -> dict[int, tuple[int, int]] | None:
    """If exactly what lies outside a box is lost, how much that is on both sides of every axis."""
    dead, alive = lost.any(axis=1), kept.any(axis=1)
    if (dead & alive).any() or not dead.any() or not alive.any():
        return None
    low, high = indices[alive].min(axis=0), indices[alive].max(axis=0)
    inside = np.all((indices >= low) & (indices <= high), axis=1)
    if (dead & inside).any():
        return None
    # An axis has a margin only if something was lost there: a row without derivatives is neither dead nor alive.
    sides = {a: (int(low[a]), int(n - 1 - high[a])) for a, n in enumerate(shape)}
    used = dead | alive
    first, last = indices[used].min(axis=0), indices[used].max(axis=0)
    sides = {a: (s[0] - int(first[a]), s[1] - int(shape[a] - 1 - last[a])) for a, s in sides.items()}
    return {a: s for a, s in sides.items() if s != (0, 0)} or None


def _at_a_border(case: Case, margins: dict[int, tuple[int, int]], of_input: bool) -> bool:
    """Whether these axes have a border: windows move along them, or they are an image's, not samples or channels."""
    shape = case.shape if of_input else case.out_shape
    for axis in margins:
        kinds = [case.relation(b, a) for b in range(len(case.out_shape)) for a in range(len(case.shape))
                 if (a if of_input else b) == axis]  # fmt: skip
        if of_input and _is_kernel_axis(case, axis):
            return False
        if "band" in kinds:
            continue
        spatial = axis >= min(2, len(shape) - 1)
        if not spatial or ("diagonal" not in kinds and of_input):
            return False
    return True


def _margins(margins: dict[int, tuple[int, int]]) -> str:
    return ", ".join(f"the first {low} and the last {high} along axis {a}" for a, (low, high) in margins.items())


def overlap_overwritten(case: Case) -> Diagnosis | None:
    """Where several outputs use one input, only one of them gets through: written where it should have been added."""
    every = losses(case)
    if not every:
        return None
    for axes in subsets(b for b, n in enumerate(case.out_shape) if n > 1):
        sizes = tuple(case.out_shape[b] for b in axes)
        if all(_one_key_survives(f, np.ravel_multi_index(tuple(f.indices[:, b] for b in axes), sizes)) for f in every):
            where = axes_in_words(axes)
            return Diagnosis("overlap_overwritten", "keeps only one contribution where several outputs (along output "
                             f"{where}) use the same element: it is overwritten, not added to (use += or np.add.at)",
                             {"axes": axes})  # fmt: skip
    return None


def _one_key_survives(found: Losses, keys: Array) -> bool:
    """Whether in every column exactly the rows of one key are kept, not the same one everywhere."""
    survivors = []
    for e in range(found.lost.shape[1]):
        kept, lost = keys[found.kept[:, e]], keys[found.lost[:, e]]
        if not len(kept) and not len(lost):
            continue
        if not len(kept) or (kept != kept[0]).any() or (lost == kept[0]).any():
            return False
        survivors.append(int(kept[0]))
    return len(set(survivors)) > 1


def window_offset_skipped(case: Case) -> Diagnosis | None:
    """All contributions of one place in the kernel are lost: a loop over the kernel begins or ends wrongly."""
    answers = [_skipped(case, found) for found in losses(case)]
    return answers[0] if answers and all(answers) else None


def _skipped(case: Case, found: Losses) -> Diagnosis | None:
    return _skipped_in_the_kernel(case, found) or _skipped_in_the_input(case, found)


def _skipped_in_the_kernel(case: Case, found: Losses) -> Diagnosis | None:
    """Seen from the kernel: some of its own places have no gradient."""
    axes = [a for a, n in enumerate(case.shape) if n > 1 and _is_kernel_axis(case, a)]
    dead, alive = found.lost.any(axis=0), found.kept.any(axis=0)  # (elements,)
    for chosen in subsets(axes):
        gone = {tuple(p) for p in found.places[dead][:, chosen].tolist()}
        left = {tuple(p) for p in found.places[alive][:, chosen].tolist()}
        if gone and left and not gone & left:
            places = sorted(gone)
            where = f"{places[:4]}{' …' if len(places) > 4 else ''} along {axes_in_words(chosen)}"
            return Diagnosis("window_offset_skipped", f"is 0 for {len(places)} of {len(gone | left)} places of the kernel "
                             f"({where}): a loop over the kernel leaves them out",
                             {"axes": chosen, "places": places[:9]})  # fmt: skip
    return None


def _skipped_in_the_input(case: Case, found: Losses) -> Diagnosis | None:
    """Seen from the input: lost is what some offsets between an output and an element would have added."""
    for offsets, names in _offsets(case, found):
        groups: dict[tuple[int, ...], set[bool]] = {}
        for (o, e), key in offsets.items():
            groups.setdefault(key, set()).add(bool(found.lost[o, e]))
        missing = sorted(key for key, states in groups.items() if states == {True})
        if not missing or len(missing) == len(groups) or any(len(states) > 1 for states in groups.values()):
            continue
        if len(offsets) >= 3 * len(groups) or len(groups) <= 9:
            return Diagnosis("window_offset_skipped", f"lacks all contributions of {len(missing)} of {len(groups)} places "
                             f"of the kernel (offsets {names}: {missing[:4]}): a loop over the kernel leaves them out",
                             {"offsets": missing[:9]})  # fmt: skip
    return None


def _is_kernel_axis(case: Case, a: int) -> bool:
    """Whether an input axis runs over the places of a kernel.

    Either every output meets all of it, while windows move over another input; or two axes of this input, place in the
    window and place of the window, move along one axis of the output.
    """
    kinds = [case.relation(b, a) for b in range(len(case.out_shape))]
    if all(kind == "full" for kind in kinds):
        return _others_have_windows(case)
    for b, kind in enumerate(kinds):
        others = [k for k in range(len(case.shape)) if k != a and case.relation(b, k) == "band"]
        if kind == "band" and any(case.shape[k] >= case.shape[a] for k in others):
            return True
    return False


def _others_have_windows(case: Case) -> bool:
    """Whether windows move over another input, so that this one is a kernel."""
    for k, i in enumerate(case.subject.wanted):
        shape = case.subject.values[i].shape
        jacobians = [v.others[k] for v in case.views if v.others[k] is not None]
        if i == case.input or not jacobians:
            continue
        other = Case(case.subject, k, case.views, None, case.rng, case.deadline)
        other.out_shape = case.out_shape
        support = np.any([np.abs(j) > 1e-9 * (np.abs(j).max(initial=0) or 1) for j in jacobians if j is not None], axis=0)
        pairs = itertools.product(range(len(case.out_shape)), range(len(shape)))
        if any(other.relation(b, a, support) == "band" for b, a in pairs):
            return True
    return False


def _offsets(case: Case, found: Losses) -> Iterator[tuple[dict[tuple[int, int], tuple[int, ...]], str]]:
    """For every nonzero entry its place in the kernel, under several assumptions on stride and direction."""
    band = case.pairs["band"]
    entries = np.argwhere(found.lost | found.kept)
    for count in range(len(band), 0, -1):
        for pairs in itertools.combinations(band, count):
            for stride, backwards in [(s, d) for s in (1, 2, 3, 4) for d in (False, True) if s > 1 or not d]:
                o, i = found.indices[entries[:, 0]], found.places[entries[:, 1]]
                offsets = np.stack([(o[:, b] - stride * i[:, a]) if backwards else (i[:, a] - stride * o[:, b])
                                    for b, a in pairs], axis=1)  # fmt: skip
                keys = {(int(r), int(c)): tuple(int(n) for n in t) for (r, c), t in zip(entries, offsets, strict=True)}
                name = "output − stride · input" if backwards else "input − stride · output"
                yield keys, f"{name}, stride {stride}" if stride > 1 else name
