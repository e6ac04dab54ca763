"""Whole networks: the paper's, the baseline that it compares with, and a translator."""

from minires.models.registry import arguments as arguments
from minires.models.registry import build as build
from minires.models.registry import names as names
from minires.models.registry import register as register
from minires.models.registry import register_unit as register_unit
from minires.models.registry import units as units
from minires.models.registry import usual_side as usual_side
from minires.models.residual_attention import *  # noqa: F403
from minires.models.resnet import *  # noqa: F403
from minires.models.resnet50 import *  # noqa: F403
from minires.models.translator import *  # noqa: F403
