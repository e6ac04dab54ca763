"""The gradient checker."""

from minires.checking.gradcheck import InputReport as InputReport
from minires.checking.gradcheck import Report as Report
from minires.checking.gradcheck import gradcheck as gradcheck
