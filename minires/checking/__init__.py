"""The gradient checker."""

from minires.checking.check import InputReport as InputReport
from minires.checking.check import Report as Report
from minires.checking.check import gradcheck as gradcheck
