"""One entry of the table of sample inputs, from which the tests of every op are made."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from minires import Tensor
from minires.device import bring


@dataclass(frozen=True)
class Sample:
    """How to call an op, and what to compare it with.

    Attributes:
        name: unique, for example "conv2d-stride2-groups".
        function: the public function, for example ``F.conv2d``.
        make: ``make(rng)`` returns ``(args, kwargs)`` for it. Floating point arrays (float64) among the values, also
            inside lists, are the differentiable inputs; integer and boolean arrays are constants.
        reference: the same computation, slow and readable (loops, plain NumPy), on the same arguments.
        torch: ``torch(torch, *args, **kwargs)`` calls the peer; None looks the function's name up in
            torch.nn.functional and torch; a string is the reason why there is no peer.
        complex: the op can be evaluated on complex input (for the complex-step derivative).
        second: the second derivative is checked too.
        smooth: False at a kink or a tie, where no numeric derivative exists: there are several right gradients.
        derivative: False where the gradient is another thing by definition (none for the padding row of a table).
    """

    name: str
    function: Callable[..., Any]
    make: Callable[[np.random.Generator], tuple[tuple[Any, ...], dict[str, Any]]]
    reference: Callable[..., Any] | None = None
    torch: Callable[..., Any] | str | None = None
    complex: bool = True
    second: bool = True
    smooth: bool = True
    derivative: bool = True

    def rng(self) -> np.random.Generator:
        """The generator for this sample: it depends on the name alone."""
        return np.random.default_rng(zlib.crc32(self.name.encode()))


def beside(x: Any, array: Any) -> Any:
    """``array``, a constant that a sample's function makes itself, on the device of its input ``x``."""
    if isinstance(array, Tensor):
        return array.to(x.device) if isinstance(x, Tensor) else array
    return bring(array, x.data if isinstance(x, Tensor) else x)


@dataclass(frozen=True)
class BadCall:
    """A call that must raise ``error`` with a message that matches ``match``."""

    name: str
    call: Callable[[], Any]
    match: str
    error: type[Exception] = ValueError
