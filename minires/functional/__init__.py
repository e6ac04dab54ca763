"""Every op of minires: what it computes, and the backward rule derived by hand right under it."""

import sys
import typing

from minires import operators
from minires.functional.activation import *  # noqa: F403
from minires.functional.arithmetic import *  # noqa: F403
from minires.functional.attention import *  # noqa: F403
from minires.functional.convolution import *  # noqa: F403
from minires.functional.linear import *  # noqa: F403
from minires.functional.loss import *  # noqa: F403
from minires.functional.normalization import *  # noqa: F403
from minires.functional.pooling import *  # noqa: F403
from minires.functional.recurrent import *  # noqa: F403
from minires.functional.reduction import *  # noqa: F403
from minires.functional.sequence import *  # noqa: F403
from minires.functional.shaping import *  # noqa: F403
from minires.functional.upsampling import *  # noqa: F403
from minires.functional.windows import *  # noqa: F403

operators.functional = typing.cast(typing.Any, sys.modules[__name__])
