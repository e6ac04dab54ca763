"""What an experiment is: a claim of the paper, the networks that are compared for it, and what is measured on each.

Every experiment is one small file beside this one. It says which variants there are at each scale, what a trained network is
measured by, and which differences have to come out above 0; training, storing, tables and the verdict are the same for all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from minires.training.experiments.statistics import Contrast
from minires.training.metrics import Evaluation
from minires.training.presets import Job
from minires.training.sources import Source
from minires.training.trainer import Trainer

__all__ = ["Column", "Experiment", "Measured", "Results", "Trained", "Variant"]


@dataclass(frozen=True)
class Variant:
    """One of the networks that are compared.

    Attributes:
        name: what it is called in tables and figures.
        job: how it is trained; the seed is that of each trial.
        settings: what an experiment does beside it, such as the share of wrong labels; plain values.
    """

    name: str
    job: Job
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Trained:
    """A trial that has ended: everything that can be measured on it.

    Attributes:
        variant: which.
        job: its job, with the seed of this trial.
        source: its data.
        trainer: its trainer, with the network in ``trainer.model``.
        evaluation: the network on the test set.
    """

    variant: Variant
    job: Job
    source: Source
    trainer: Trainer
    evaluation: Evaluation


@dataclass(frozen=True)
class Measured:
    """The numbers of one trial.

    Attributes:
        numbers: name → number; those that every experiment has are in :mod:`minires.training.experiments.trial`.
        extra: what the figure shows beside them; plain values.
    """

    numbers: Mapping[str, float]
    extra: Mapping[str, Any] = field(default_factory=dict)


#: Name of a variant → its trials, one for each seed, in the order of the seeds.
Results = Mapping[str, Sequence[Measured]]


@dataclass(frozen=True)
class Column:
    """A column of the table.

    Attributes:
        metric: name of the number.
        title: the head of the column, with the unit.
        factor: what numbers are multiplied by to have that unit.
        digits: decimal places; None for whole numbers with commas.
    """

    metric: str
    title: str
    factor: float = 1.0
    digits: int | None = 2


ERROR = Column("error", "test error, %", 100.0)
PARAMETERS = Column("parameters", "parameters", digits=None)
MACS = Column("macs", "million MAC", 1e-6, 1)


class Experiment(ABC):
    """A claim and how it is tested; subclass it, and list the subclass in :mod:`minires.training.experiments`.

    Attributes:
        name: as the command knows it.
        claim: what the paper (or the article) says, in one line.
        source: where it says so.
        columns: of the table, after that of the variants.
    """

    name: ClassVar[str]
    claim: ClassVar[str]
    source: ClassVar[str]
    columns: ClassVar[tuple[Column, ...]] = (ERROR, PARAMETERS, MACS)

    @abstractmethod
    def variants(self, scale: str) -> list[Variant]:
        """What is compared at a scale, in the order of the table."""

    @abstractmethod
    def contrasts(self, variants: Sequence[Variant]) -> list[Contrast]:
        """The differences that have to be above 0, by the names of the table's rows."""

    def rows(self, results: Results) -> Results:
        """The rows of the table; the variants, unless an experiment says otherwise."""
        return results

    @abstractmethod
    def draw(self, results: Results, variants: Sequence[Variant], path: str) -> None:
        """Write the figure."""

    def change_source(self, source: Source, variant: Variant, seed: int) -> None:  # noqa: B027
        """Change the data before training, in place; nothing unless an experiment says otherwise."""

    def change_model(self, model: Any, variant: Variant) -> None:  # noqa: B027
        """Change the network before training, in place, without new parameters; nothing unless told otherwise."""

    def measure(self, trained: Trained) -> Measured:
        """What only this experiment measures, on a trained network; nothing unless told otherwise."""
        return Measured({})
