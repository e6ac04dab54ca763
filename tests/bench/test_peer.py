"""The network in PyTorch is the same as ours: equal weights give equal losses."""

from __future__ import annotations

import pytest

from minires import models
from minires.bench import networks
from minires.bench.networks import Network
from minires.bench.ours import CpuSide
from minires.bench.rounds import losses_agree

pytestmark = pytest.mark.slow  # PyTorch is no dependency, not even of the tests: run with -m slow where it is installed

TINY = [
    Network("digits", "", lambda: models.small_attention(5, widths=(16, 32)), 8, (1, 29, 29), 5),
    Network("cifar", "", lambda: models.cifar_attention(1, widths=(16, 32, 64)), 8, (3, 32, 32), 10),
    Network("wide", "", models.wide_attention, 8, (3, 32, 32), 10),
    Network("imagenet", "", lambda: models.attention56(7), 4, (3, 64, 64), 7),
]


@pytest.mark.parametrize("network", TINY, ids=lambda network: network.name)
@pytest.mark.parametrize("layout", ["NCHW", "channels_last"])
def test_losses(network, layout):
    pytest.importorskip("torch")
    from minires.bench.torch_side import TorchSide

    strict = networks.precisions("cpu")[0]
    losses = {"ours": CpuSide(network, strict).losses(2), "torch": TorchSide(network, strict, "cpu", layout).losses(2)}
    assert losses_agree(losses, strict.tolerance) == ""


def test_a_network_without_twin_is_refused():
    pytest.importorskip("torch")
    from minires.bench.peer import twin_of

    with pytest.raises(ValueError, match="there is no PyTorch network for"):
        twin_of(models.small_attention(attention="naive"))
