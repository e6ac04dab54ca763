"""The progress bar of a training run: one bar for the whole run, so that the time left is that until the end."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any

from tqdm.std import tqdm

__all__ = ["Progress"]

_FORMAT = "{desc} {percentage:3.0f}%|{bar:20}| {rate_fmt}, {remaining} left{postfix}"


class Progress:
    """Loss, accuracy, images per second and time left, on standard error.

    Args:
        label: what the bar says first, such as the name of the network.
        total: images in the whole run, all epochs together.
        quiet: show nothing.
        initial: images before this run was resumed; they count for the bar, not for the rate.
        unit: what is counted.
    """

    def __init__(self, label: str, total: int, quiet: bool, initial: int = 0, unit: str = " images") -> None:
        self._label = f"{label}, " if label else ""
        # Where lines cannot be overwritten (a log file), a bar every ten seconds is enough.
        live = sys.stderr.isatty() or "ipykernel" in sys.modules
        self._bar: Any = tqdm(
            total=total, initial=initial, disable=quiet, unit=unit, bar_format=_FORMAT, dynamic_ncols=True,
            smoothing=0.05, mininterval=0.2 if live else 10, file=sys.stderr,
        )  # fmt: skip

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.close()

    def advance(self, images: int, epoch: int, epochs: int, shown: tuple[float, float] | None) -> None:
        """Count a batch; ``shown``: loss and accuracy, the means of the epoch so far, None where they are not known yet."""
        self._bar.set_description_str(f"{self._label}epoch {epoch + 1}/{epochs}", refresh=False)
        if shown is not None:
            self._bar.set_postfix_str(f"loss {shown[0]:.3f}, accuracy {shown[1]:.1%}", refresh=False)
        self._bar.update(images)
