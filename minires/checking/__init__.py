"""The gradient checker: says whether a gradient is right, and if not, where it is wrong and what kind of mistake it is."""

from minires.checking.check import gradcheck as gradcheck
from minires.checking.check import gradcheck_pair as gradcheck_pair
from minires.checking.network import gradcheck_model as gradcheck_model
from minires.checking.report import Coverage as Coverage
from minires.checking.report import Diagnosis as Diagnosis
from minires.checking.report import InputReport as InputReport
from minires.checking.report import Report as Report
