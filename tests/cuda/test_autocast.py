"""Mixed precision on the GPU: the CUDA kernels in 16 bits beside float32, and how such steps are made and captured."""

from __future__ import annotations

import importlib.util
import warnings

import numpy as np
import pytest

import minires as mr
from minires import functional as F
from minires import kernels, nn, optim, precision
from minires.training import build_trainer
from minires.training.sources import open_source
from tests.cuda import shim
from tests.cuda import standin as stand_in
from tests.training.tiny import TINY

pytestmark = pytest.mark.skipif(shim.available() is not None, reason=str(shim.available()))

HAS_BFLOAT16 = importlib.util.find_spec("ml_dtypes") is not None
needs_bfloat16 = pytest.mark.skipif(not HAS_BFLOAT16, reason="ml_dtypes is not installed (pip install ml_dtypes)")
half = pytest.mark.parametrize("half", ["float16", pytest.param("bfloat16", marks=needs_bfloat16)])
PRECISION = {"float16": 2.0**-11, "bfloat16": 2.0**-8}

#: 2 steps an epoch.
JOB = TINY.with_(
    device="cuda", batch_size=4, train_images=8, test_images=4, epochs=3, lr=1e-3,
    options={"widths": (4, 4), "depths": (1, 1), "stem": 4, "after": 0, "p": 0, "t": 1, "r": 1},
)  # fmt: skip


@pytest.fixture
def gpu(cuda):
    return cuda


def trainer(**changes):
    job = JOB.with_(**changes)
    return build_trainer(job, open_source(job), None, quiet=True)


def random(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def running(x):
    return mr.zeros(8, device=x.device), mr.ones(8, device=x.device)


#: What a network is made of: function(input, weight, bias), and the shapes of the three.
FAMILIES = {
    "conv2d": (lambda x, w, b: F.conv2d(x, w, b, padding=1), (8, 8, 3, 3), (8,)),
    "conv2d, strided": (lambda x, w, b: F.conv2d(x, w, b, stride=2), (8, 8, 3, 3), (8,)),
    "conv2d, 1x1": (lambda x, w, b: F.conv2d(x, w, b), (4, 8, 1, 1), (4,)),
    "conv2d, groups": (lambda x, w, b: F.conv2d(x, w, b, groups=2), (4, 4, 3, 2), (4,)),
    "conv2d, depthwise": (lambda x, w, b: F.conv2d(x, w, b, groups=8), (8, 1, 3, 3), (8,)),
    "conv_transpose2d": (lambda x, w, b: F.conv_transpose2d(x, w, b, stride=2), (8, 4, 2, 2), (4,)),
    "linear": (lambda x, w, b: F.linear(x, w, b), (3, 6), (3,)),
    "batch_norm": (lambda x, w, b: F.batch_norm(x, *running(x), w, b, True), (8,), (8,)),
    "batch_norm_relu": (lambda x, w, b: F.batch_norm_relu(x, *running(x), w, b, True), (8,), (8,)),
    "gated_residual": (lambda x, w, b: F.gated_residual(x, F.conv2d(x, w, b)), (8, 8, 1, 1), (8,)),
    "max_pool2d": (lambda x, w, b: F.max_pool2d(F.conv2d(x, w, b), 3, 2, 1), (8, 8, 1, 1), (8,)),
    "avg_pool2d": (lambda x, w, b: F.avg_pool2d(F.conv2d(x, w, b), 2), (8, 8, 1, 1), (8,)),
    "interpolate": (lambda x, w, b: F.interpolate(F.conv2d(x, w, b), size=(9, 7), mode="bilinear"), (8, 8, 1, 1), (8,)),
    "cross_entropy": (lambda x, w, b: F.cross_entropy(F.conv2d(x, w, b), mr.ones(2, 5, 6, device=x.device).to("int64")),
                      (8, 8, 1, 1), (8,)),
}  # fmt: skip


@half
@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_of_ops(gpu, half, name):
    """Against float32 on the CPU, from inputs that 16 bits can hold."""
    function, *shapes = FAMILIES[name]
    dtype = np.dtype(half) if half == "float16" else precision.bfloat16()
    results = []
    for device in ("cpu", "cuda"):
        arrays = [random(*shape, seed=i).astype(dtype).astype(np.float32) for i, shape in enumerate([(2, 8, 5, 6), *shapes])]
        inputs = [mr.tensor(a, requires_grad=True, device=device) for a in arrays]
        x = inputs[0] if device == "cpu" else inputs[0].to(dtype)
        with mr.autocast(half, enabled=device == "cuda"):
            y = function(x, *inputs[1:])
        assert y.dtype == (np.float32 if device == "cpu" or name == "cross_entropy" else dtype)
        y.backward(mr.tensor(np.asarray(random(*y.shape, seed=7)), device=device).to(y.dtype))
        assert all(each.grad.dtype == np.float32 for each in inputs)
        results.append([each.cpu().numpy().astype(np.float32) for each in (y.detach(), *(i.grad for i in inputs))])
    for expected, found in zip(*results, strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=4 * PRECISION[half] * max(abs(expected).max(), 0.1))


@half
def test_gradients_of_batch_norm_are_sums_in_float32(gpu, half):
    x = mr.tensor(random(8, 4, 16, 16) * 10 + 50, device="cuda").to(half if half == "float16" else mr.bfloat16)
    bias = mr.zeros(4, device="cuda", requires_grad=True)
    y = F.batch_norm(x, None, None, None, bias, True)
    y.backward(mr.tensor(np.full(y.shape, 512, np.float32), device="cuda").to(y.dtype))
    np.testing.assert_array_equal(bias.grad.cpu().numpy(), np.full(4, 512.0 * 8 * 256))


def test_float16_steps_are_ordinary_ones_with_one_warning(gpu):
    t = trainer(autocast="float16")
    with pytest.warns(RuntimeWarning, match="without a CUDA graph, more slowly: float16 needs a look") as caught:
        t.fit(3)
    assert len(caught) == 1 and t.steps.step.replays == 0
    cpu = trainer(autocast="float16", device="cpu")
    cpu.fit(3)
    assert t.mixed.scaler.get_scale() == cpu.mixed.scaler.get_scale() >= 2**13
    for row, expected in zip(t.history, cpu.history, strict=True):
        assert row["train_loss"] == pytest.approx(expected["train_loss"], rel=2e-2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trainer(autocast="float16", graph=False).fit(2)  # nothing to be said where nobody asked for a graph


def test_float16_steps_that_overflow_are_left_out(gpu):
    t = trainer(autocast="float16", graph=False)
    t.mixed.scaler.update(2.0**60)
    before = [p.cpu().numpy().copy() for p in t.model.parameters()]
    t.fit(1)
    assert t.mixed.scaler.get_scale() == 2.0**58
    for parameter, old in zip(t.model.parameters(), before, strict=True):
        np.testing.assert_array_equal(parameter.cpu().numpy(), old)


@needs_bfloat16
def test_a_graph_in_bfloat16_makes_the_same_numbers(gpu):
    both = [trainer(autocast="bfloat16"), trainer(autocast="bfloat16", graph=False)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for t in both:
            t.fit(3)
    assert both[0].steps.step.replays == 4 and both[0].steps.step.reason is None and both[0].mixed.scaler is None
    states = [{name: tensor.cpu().numpy() for name, tensor in t.model.state_dict().items()} for t in both]
    for name, array in states[0].items():
        np.testing.assert_array_equal(array, states[1][name], err_msg=name)
    exact = trainer()
    exact.fit(3)
    assert both[0].history[-1]["train_loss"] == pytest.approx(exact.history[-1]["train_loss"], rel=0.1)
    assert both[0].history[-1]["train_loss"] != exact.history[-1]["train_loss"]


def test_the_scaler_waits_once_for_a_step(gpu):
    if gpu.ndarray is not stand_in.ndarray:
        pytest.skip("only the stand-in counts")
    model = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)).to("cuda")
    optimizer, scaler = optim.SGD(model.parameters(), lr=0.1), mr.GradScaler()
    with mr.autocast("float16"):
        loss = model(mr.tensor(random(6, 5), device="cuda")).sum()
    scaler.scale(loss).backward()
    before = stand_in.total_syncs()
    scaler.step(optimizer)
    scaler.update()
    assert stand_in.total_syncs() == before + 1


def test_counting_right_answers_of_float16_logits(gpu):
    numbers = gpu.zeros(6, np.float64)
    logits = gpu.asarray(np.array([[1, 2], [3, 1], [0, 5]], np.float16))
    kernels.of(numbers).tally(numbers, logits, gpu.asarray(np.float32(0.5)), gpu.asarray(np.array([1, 1, 1])))
    assert numbers.get().tolist() == [1.5, 2, 3, 1, 0, 0]
