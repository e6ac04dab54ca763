"""Modules: layers with parameters, the containers that nest them, and the units of the Residual Attention Network."""

from minires.nn import init as init
from minires.nn.activation import *  # noqa: F403
from minires.nn.alignment import *  # noqa: F403
from minires.nn.attention import *  # noqa: F403
from minires.nn.containers import *  # noqa: F403
from minires.nn.layers import *  # noqa: F403
from minires.nn.loss import *  # noqa: F403
from minires.nn.module import *  # noqa: F403
from minires.nn.normalization import *  # noqa: F403
from minires.nn.recurrent import *  # noqa: F403
from minires.nn.residual import *  # noqa: F403
from minires.nn.shape import *  # noqa: F403
from minires.nn.summary import *  # noqa: F403
