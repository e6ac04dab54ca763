"""Whole networks: the paper's, and the baseline that it compares with."""

from minires.models.registry import arguments as arguments
from minires.models.registry import build as build
from minires.models.registry import names as names
from minires.models.registry import register as register
from minires.models.residual_attention import *  # noqa: F403
from minires.models.resnet import *  # noqa: F403
