"""How fast a training step is, beside PyTorch's, and how near each kernel comes to what the machine can do.

``minires bench`` is the front door (:mod:`minires.bench.command`). A comparison is only worth something if both sides do
the same work: so both start from the same weights, compute with the same precision, and their losses are compared before
anything is timed; they take turns; the spread is shown beside the median; and what could not be measured is said.

``minires profile``, or :func:`profile`, says where the time of a step goes (:mod:`minires.bench.profiling`).
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minires.bench.profiling import ModuleRow, Profile, Row, profile

__all__ = ["ModuleRow", "Profile", "Row", "profile"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'minires.bench' has no attribute {name!r}")
    from minires.bench import profiling  # when it is first used: the command's parser needs this package, but no network

    return getattr(profiling, name)
