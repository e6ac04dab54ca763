"""Every op of minires: what it computes, and the backward rule derived by hand right under it."""

import sys
import typing

from minires import tensor as _tensor
from minires.functional.arithmetic import *  # noqa: F403
from minires.functional.shaping import *  # noqa: F403

_tensor.functional = typing.cast(typing.Any, sys.modules[__name__])
