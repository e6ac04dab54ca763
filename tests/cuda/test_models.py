"""Whole networks on the GPU: a training step is the CPU's, moving a model moves all of it, and the host hardly waits."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest

import minires as mr
import minires.functional as F
from minires import nn, optim
from minires.models import small_attention
from tests.cuda import standin as stand_in
from tests.cuda.compare import as_host, on_cuda
from tests.functional.problem import assert_close


def network() -> nn.Module:
    """A network with every kind of layer of the large ones, of a few thousand weights."""
    mr.manual_seed(0)
    return small_attention(
        widths=(4, 8), depths=(1, 1), stem=4, stem_stride=1, in_channels=3, num_classes=5, t=1, after=0, min_size=8
    )


def batch(rng: np.random.Generator, size: int = 2) -> tuple[np.ndarray, np.ndarray]:
    return rng.standard_normal((size, 3, 9, 8)), rng.integers(0, 5, size)


OPTIMIZERS: dict[str, Any] = {
    "sgd": lambda p: optim.SGD(p, lr=0.05), "nesterov": lambda p: optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=1e-4,
                                                                              nesterov=True),
    "adam": lambda p: optim.Adam(p, lr=1e-3), "adamw": lambda p: optim.AdamW(p, lr=1e-3, weight_decay=0.1),
}  # fmt: skip


def train(device: str, optimizer: str, steps: int) -> tuple[list[float], dict[str, np.ndarray]]:
    """The losses of a few steps, and the state of the model and of its gradients after them."""
    model = network().double().to(device)
    opt = OPTIMIZERS[optimizer](model.parameters())
    rng, losses = np.random.default_rng(1), []
    for _ in range(steps):
        images, labels = (on_cuda(each, device) for each in batch(rng))
        opt.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optim.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        losses.append(loss.item())
    state = {name: as_host(value) for name, value in model.state_dict().items()}
    return losses, state | {f"grad of {name}": as_host(p.grad) for name, p in model.named_parameters()}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_training_steps_are_those_of_the_cpu(optimizer: str, cuda: ModuleType) -> None:
    losses, state = train("cuda", optimizer, 2)
    expected_losses, expected = train("cpu", optimizer, 2)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-10)
    assert state.keys() == expected.keys()
    for name, value in state.items():
        scale = max(float(np.abs(expected[name]).max()), 1e-3)
        np.testing.assert_allclose(value, expected[name], rtol=0, atol=1e-7 * scale, err_msg=name)


def test_evaluation_is_that_of_the_cpu(cuda: ModuleType) -> None:
    model = network().eval()
    images = batch(np.random.default_rng(2))[0].astype(np.float32)
    expected = model(on_cuda(images, "cpu"))
    with mr.no_grad():
        actual = model.to("cuda")(on_cuda(images))
    assert actual.device == "cuda:0" and actual.dtype == np.float32
    assert_close(as_host(actual), expected.data, "logits")


def test_a_model_moves_as_a_whole_and_back(cuda: ModuleType) -> None:
    model = network()
    before = {name: value.data.copy() for name, value in model.state_dict().items()}
    assert model.to("cuda") is model
    tensors = [*model.parameters(), *model.buffers()]
    assert {t.device for t in tensors} == {"cuda:0"}
    for name, value in model.cpu().state_dict().items():
        assert value.device == "cpu"
        np.testing.assert_array_equal(value.data, before[name])


def test_a_state_dict_goes_from_device_to_device(cuda: ModuleType) -> None:
    source, target = network(), network().to("cuda")
    for p in source.parameters():
        p.data[...] += 1
    target.load_state_dict(source.state_dict())
    for (name, a), (_, b) in zip(source.state_dict().items(), target.state_dict().items(), strict=True):
        assert b.device == "cuda:0"
        np.testing.assert_array_equal(a.data, as_host(b), err_msg=name)
    source.load_state_dict(target.state_dict())
    assert {t.device for t in source.parameters()} == {"cpu"}


@pytest.mark.parametrize("optimizer", ["nesterov", "adam"])
def test_an_optimizer_goes_on_from_a_saved_state(optimizer: str, cuda: ModuleType) -> None:
    results = []
    for device in ("cpu", "cuda"):
        saved = OPTIMIZERS[optimizer]([mr.tensor(np.ones(3)).requires_grad_()])
        weight = mr.tensor(np.ones(3), device=device).requires_grad_()
        opt = OPTIMIZERS[optimizer]([weight])
        saved.param_groups[0]["params"][0].grad = mr.tensor(np.arange(3.0))
        saved.step()
        opt.load_state_dict(saved.state_dict())
        weight.grad = mr.tensor(np.arange(3.0) - 1, device=device)
        opt.step()
        state = opt.state_dict()["state"][0]
        results.append((as_host(weight), {name: v if name == "step" else as_host(v) for name, v in state.items()}))
    (cpu, cpu_state), (gpu, gpu_state) = results
    np.testing.assert_allclose(gpu, cpu, rtol=1e-14)
    assert cpu_state.keys() == gpu_state.keys()
    for name in cpu_state:
        np.testing.assert_allclose(gpu_state[name], cpu_state[name], rtol=1e-14)


# ------------------------------------------------------------------------------------ the host does not wait


def test_a_step_makes_the_host_wait_for_the_labels_check_alone(standin: ModuleType) -> None:
    model = network().to("cuda")
    opt = OPTIMIZERS["nesterov"](model.parameters())
    rng = np.random.default_rng(1)

    def step() -> None:
        images, labels = batch(rng)
        opt.zero_grad()
        F.cross_entropy(model(on_cuda(images.astype(np.float32))), on_cuda(labels)).backward()
        opt.step()

    step()  # tables and kernels are made once
    uploads, before = stand_in.meter.uploads, stand_in.meter.syncs.copy()
    step()
    assert stand_in.meter.syncs - before == {"bool()": 1}
    assert stand_in.meter.uploads - uploads == 2, "the batch, and nothing else, comes from the host"


def test_activations_stay_channels_last(standin: ModuleType) -> None:
    """A kernel that gets another order has to turn its images around first, which costs as much as it does itself."""
    model = network().to("cuda")
    turned: list[str] = []

    def look(module: nn.Module, inputs: Any, output: Any) -> None:
        if output.ndim == 4 and not output.data.transpose(0, 2, 3, 1).flags.c_contiguous and min(output.shape[1:]) > 1:
            turned.append(type(module).__name__)

    for module in model.modules():
        if isinstance(module, nn.SoftMask):  # with a hook on it, the mask would not be fused
            continue
        module.register_forward_hook(look)
    model(on_cuda(batch(np.random.default_rng(1))[0].astype(np.float32)))
    assert not turned
