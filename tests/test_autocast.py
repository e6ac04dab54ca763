"""Which ops run in 16 bits under ``autocast``, that gradients come back in float32, and that nothing happens outside."""

from __future__ import annotations

import builtins
import importlib
import threading

import numpy as np
import pytest

import minires as mr
from minires import functional as F
from minires import nn, precision
from minires.modes import state
from minires.op import Op

HAS_BFLOAT16 = importlib.util.find_spec("ml_dtypes") is not None
BFLOAT16 = pytest.param(
    "bfloat16", marks=pytest.mark.skipif(not HAS_BFLOAT16, reason="ml_dtypes is not installed (pip install ml_dtypes)")
)
half = pytest.mark.parametrize("half", ["float16", BFLOAT16])


def random(*shape, seed=0, dtype=np.float32):
    values = np.random.default_rng(seed).standard_normal(shape).astype(dtype)
    return mr.Tensor(values, requires_grad=True)


IMAGES = (2, 4, 6, 5)

#: Each gets its float32 inputs in 16 bits.
LOW = {
    "conv2d": lambda x: F.conv2d(x, random(3, 4, 3, 3, seed=1), random(3, seed=2), padding=1),
    "conv2d, groups": lambda x: F.conv2d(x, random(4, 2, 3, 2, seed=1), None, stride=2, groups=2),
    "conv_transpose2d": lambda x: F.conv_transpose2d(x, random(4, 3, 2, 2, seed=1), random(3, seed=2), stride=2),
    "linear": lambda x: F.linear(x, random(3, 5, seed=1), random(3, seed=2)),
    "matmul": lambda x: F.matmul(x, random(5, 3, seed=1)),
    "@": lambda x: x @ random(5, 3, seed=1),
    "einsum": lambda x: F.einsum("nchw,oc->nohw", x, random(3, 4, seed=1)),
    "bilinear": lambda x: F.bilinear(x, x, random(3, 5, 5, seed=1), random(3, seed=2)),
}

#: Each gets 16-bit inputs in float32.
HIGH = {
    "softmax": lambda x: F.softmax(x, 1),
    "log_softmax": lambda x: F.log_softmax(x, 1),
    "logsumexp": lambda x: F.logsumexp(x, 1),
    "exp": F.exp,
    "log": lambda x: F.log(x * x + 1),
    "pow": lambda x: x**2,
    "softplus": F.softplus,
    "sum": lambda x: x.sum((2, 3)),
    "prod": lambda x: x.prod(3),
    "cumsum": lambda x: x.cumsum(1),
    "var": lambda x: x.var(1),
    "std": lambda x: x.std(1),
    "norm": lambda x: x.norm(),
    "layer_norm": lambda x: F.layer_norm(x, (5,), random(5, seed=1), random(5, seed=2)),
    "group_norm": lambda x: F.group_norm(x, 2),
    "instance_norm": lambda x: F.instance_norm(x),
    "spatial_attention": F.spatial_attention,
    "channel_attention": F.channel_attention,
    "cross_entropy": lambda x: F.cross_entropy(x, np.ones((2, 6, 5), int), mr.Tensor(np.full(4, 0.7, np.float32))),
    "cross_entropy, probabilities": lambda x: F.cross_entropy(x, F.softmax(random(*IMAGES, seed=1), 1).detach()),
    "nll_loss": lambda x: F.nll_loss(x, np.ones((2, 6, 5), int)),
    "mse_loss": lambda x: F.mse_loss(x, random(*IMAGES, seed=1).detach()),
    "l1_loss": lambda x: F.l1_loss(x, random(*IMAGES, seed=1).detach()),
    "smooth_l1_loss": lambda x: F.smooth_l1_loss(x, random(*IMAGES, seed=1).detach()),
    "binary_cross_entropy": lambda x: F.binary_cross_entropy(F.sigmoid(x), mr.ones(IMAGES)),
    "binary_cross_entropy_with_logits": lambda x: F.binary_cross_entropy_with_logits(x, mr.ones(IMAGES)),
    "kl_div": lambda x: F.kl_div(x, mr.ones(IMAGES) * 0.5),
}

#: Each keeps the dtype of its input.
SAME = {
    "batch_norm": lambda x: F.batch_norm(x, mr.zeros(4), mr.ones(4), random(4, seed=1), random(4, seed=2), True),
    "batch_norm_relu": lambda x: F.batch_norm_relu(x, mr.zeros(4), mr.ones(4), random(4, seed=1), None, True),
    "batch_norm, evaluation": lambda x: F.batch_norm(x, mr.zeros(4), mr.ones(4), random(4, seed=1), None),
    "relu": F.relu,
    "sigmoid": F.sigmoid,
    "tanh": F.tanh,
    "add": lambda x: x + x,
    "mul": lambda x: x * 0.5,
    "gated_residual": lambda x: F.gated_residual(x, x * 0.5),
    "residual_attention": lambda x: F.residual_attention(x, F.mixed_attention(x)),
    "max_pool2d": lambda x: F.max_pool2d(x, 2),
    "avg_pool2d": lambda x: F.avg_pool2d(x, 2),
    "adaptive_avg_pool2d": lambda x: F.adaptive_avg_pool2d(x, 1),
    "bilinear interpolation": lambda x: F.interpolate(x, size=(9, 7), mode="bilinear"),
    "nearest interpolation": lambda x: F.interpolate(x, scale_factor=2),
    "mean": lambda x: x.mean((2, 3)),
    "max": lambda x: x.max(1).values,
    "reshape": lambda x: x.reshape(2, -1),
    "cat": lambda x: F.cat([x, x], 1),
    "getitem": lambda x: x[[0, 0, 1]],
    "where": lambda x: F.where(x > 0, x, 0),
}


def wanted(half):
    return np.dtype(np.float16) if half == "float16" else precision.bfloat16()


def gradients(function, x, seed=5):
    """The output and the gradient of x for a random upstream gradient."""
    y = function(x)
    upstream = np.random.default_rng(seed).standard_normal(y.shape).astype(np.float32)
    x.grad = None
    y.backward(mr.Tensor(upstream).to(y.dtype))
    return y, x.grad


def assert_close(found, expected, half):
    scale = float(abs(expected).max()) + 1e-6
    limit = 4e-3 if half == "float16" else 3e-2
    np.testing.assert_allclose(found.astype(np.float32), expected.astype(np.float32), rtol=0, atol=limit * scale)


@half
@pytest.mark.parametrize("function", LOW.values(), ids=LOW.keys())
def test_products_run_in_16_bits(function, half):
    expected, expected_gradient = gradients(function, random(*IMAGES))
    x = random(*IMAGES)
    with mr.autocast(half):
        y, gradient = gradients(function, x)  # the backward pass inside the block: rules are not cast again
    assert y.dtype == wanted(half) and gradient.dtype == x.dtype == np.float32
    assert_close(y.data, expected.data, half)
    assert_close(gradient.data, expected_gradient.data, half)


@half
@pytest.mark.parametrize("function", HIGH.values(), ids=HIGH.keys())
def test_sums_and_losses_run_in_float32(function, half):
    x = random(*IMAGES)
    low = mr.Tensor(x.data.astype(wanted(half)), requires_grad=True)
    expected, expected_gradient = gradients(function, mr.Tensor(low.data.astype(np.float32), requires_grad=True))
    with mr.autocast(half):
        y, gradient = gradients(function, low)
    assert y.dtype == np.float32 and gradient.dtype == low.dtype
    # but for the logarithm, the square and the sigmoid in 16 bits that go before the op itself
    assert_close(y.data, expected.data, half)
    assert_close(gradient.data, expected_gradient.data, half)


@half
@pytest.mark.parametrize("function", SAME.values(), ids=SAME.keys())
def test_the_rest_takes_what_comes(function, half):
    x = random(*IMAGES)
    low = mr.Tensor(x.data.astype(wanted(half)), requires_grad=True)
    expected, expected_gradient = gradients(function, mr.Tensor(low.data.astype(np.float32), requires_grad=True))
    for enabled in (True, False):  # the op itself is the same outside
        with mr.autocast(half, enabled=enabled):
            y, gradient = gradients(function, low)
            assert function(x).dtype == np.float32
        assert y.dtype == gradient.dtype == low.dtype
        assert_close(y.data, expected.data, half)
        assert_close(gradient.data, expected_gradient.data, half)


@half
def test_mixed_operands_become_the_wider(half):
    wide, low = random(*IMAGES), mr.Tensor(random(*IMAGES, seed=1).data.astype(wanted(half)), requires_grad=True)
    functions = {
        "add": lambda a, b: a + b, "mul": lambda a, b: a * b, "cat": lambda a, b: F.cat([a, b], 1), "maximum": F.maximum,
        "where": lambda a, b: F.where(a > 0, a, b), "residual": F.residual_attention, "gated": F.gated_residual,
    }  # fmt: skip
    with mr.autocast(half):
        for name, function in functions.items():
            for first, second in ((wide, low), (low, wide)):
                first.grad = second.grad = None
                y = function(first, second)
                assert y.dtype == np.float32, name
                y.sum().backward()
                assert (first.grad.dtype, second.grad.dtype) == (first.dtype, second.dtype), name


def test_batch_norm_keeps_its_statistics_and_the_gradients_of_its_weights_in_float32():
    """All of them sum over many values; in float16 they would overflow or stand still at 2048."""
    x = mr.Tensor((np.random.default_rng(0).standard_normal((16, 3, 32, 32)) * 20 + 300).astype(np.float16))
    weight, bias = mr.ones(3, requires_grad=True), mr.zeros(3, requires_grad=True)
    mean, variance = mr.zeros(3), mr.ones(3)
    y = F.batch_norm_relu(x, mean, variance, weight, bias, True, momentum=1.0)
    values = x.data.astype(np.float64)
    np.testing.assert_allclose(mean.data, values.mean((0, 2, 3)), rtol=1e-4)
    np.testing.assert_allclose(variance.data, values.var((0, 2, 3), ddof=1), rtol=1e-3)
    y.backward(mr.Tensor(np.full(y.shape, 1024, np.float16)))
    assert bias.grad.dtype == weight.grad.dtype == np.float32
    np.testing.assert_allclose(bias.grad.data, 1024 * (y.data > 0).sum((0, 2, 3)), rtol=1e-3)
    assert bias.grad.data.min() > 65504


def test_sums_of_float16_add_up_in_float32():
    x = mr.Tensor(np.full((64, 4096), 0.1, np.float16), requires_grad=True)
    bias = mr.Tensor(np.zeros(4096, np.float16), requires_grad=True)
    assert float(x.sum()) == pytest.approx(64 * 4096 * 0.1, rel=1e-3) and x.sum().dtype == np.float16
    assert float(x.mean()) == pytest.approx(0.1, rel=1e-3)
    (x + bias).backward(mr.Tensor(np.full(x.shape, 0.1, np.float16)))  # broadcasting undone by the engine
    np.testing.assert_allclose(bias.grad.data.astype(float), 6.4, rtol=1e-3)
    assert np.isinf(float((x * 100).sum())), "what float16 cannot hold is infinite, without a warning"


def test_which_dtypes_are_cast():
    weight = random(3, 5, seed=1)
    with mr.autocast("float16"):
        for dtype in (np.float64, np.complex64):
            x = mr.Tensor(np.ones((2, 5), dtype))
            assert F.linear(x, mr.Tensor(np.ones((3, 5), dtype))).dtype == dtype, "only float32 and 16 bits are"
        assert F.matmul(mr.Tensor(np.ones((2, 5), int)), mr.Tensor(np.ones((5, 2), int))).dtype.kind == "i"
        assert F.linear(np.ones((2, 5), np.float32), np.ones((3, 5), np.float32)).dtype == np.float32, "no Tensor, no cast"
        assert F.linear(np.ones((2, 5), np.float32), weight).dtype == np.float16, "an array beside a Tensor is"
        assert F.softmax(np.ones((2, 5), np.float16), 1).dtype == np.float16
    if HAS_BFLOAT16:
        x = mr.Tensor(np.ones((2, 5), precision.bfloat16()))
        with mr.autocast("float16"):
            assert F.linear(x, weight).dtype == np.float16


def test_an_op_of_ones_own_is_left_alone():
    @mr.op
    def linear(input: mr.Array) -> mr.Array:
        return input * 2

    with mr.autocast():
        assert linear(random(3)).dtype == np.float32


def test_every_name_in_the_lists_is_an_op():
    ops = set()
    for module in ("activation", "arithmetic", "attention", "convolution", "linear", "loss", "normalization", "reduction"):
        found = vars(importlib.import_module(f"minires.functional.{module}")).values()
        ops |= {each.name for each in found if isinstance(each, Op) and each.casts}
    assert ops == {*precision._IN_16_BITS, *precision._IN_FLOAT32}


def test_nested_disabled_and_after_an_error():
    x, weight = random(2, 5), random(3, 5, seed=1)
    assert not mr.is_autocast_enabled() and mr.get_autocast_dtype() is None
    with mr.autocast("float16"):
        assert mr.is_autocast_enabled() and mr.get_autocast_dtype() == np.float16
        low = F.linear(x, weight)
        with mr.autocast(enabled=False):
            assert not mr.is_autocast_enabled() and F.linear(x, weight).dtype == np.float32
            assert F.softmax(low, 1).dtype == np.float16
        with mr.autocast(mr.float16):
            assert F.linear(x, weight).dtype == np.float16
        assert F.linear(x, weight).dtype == np.float16
        with pytest.raises(ZeroDivisionError), mr.autocast(enabled=False):
            raise ZeroDivisionError
        assert mr.is_autocast_enabled()
    assert state.autocast is None and F.linear(x, weight).dtype == np.float32


def test_decorator_and_generator():
    @mr.autocast("float16")
    def forward(x):
        return F.linear(x, random(3, 5, seed=1))

    assert forward(random(2, 5)).dtype == np.float16 and not mr.is_autocast_enabled()
    with pytest.raises(TypeError, match="is a generator"):

        @mr.autocast("float16")
        def batches():
            yield 1


def test_each_thread_for_itself():
    seen = []
    with mr.autocast("float16"):
        thread = threading.Thread(target=lambda: seen.append(F.linear(random(2, 5), random(3, 5)).dtype))
        thread.start()
        thread.join()
    assert seen == [np.float32]


@pytest.mark.parametrize("dtype", ["float32", np.float64, "half", 16, None])
def test_other_dtypes_are_refused(dtype):
    with pytest.raises(ValueError, match="dtype must be 'float16' or 'bfloat16', got"):
        mr.autocast(dtype)


def test_bfloat16_without_its_package(monkeypatch):
    real = builtins.__import__

    def missing(name, *args, **kwargs):
        if name == "ml_dtypes":
            raise ModuleNotFoundError("No module named 'ml_dtypes'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(precision.importlib, "import_module", missing)
    for attempt in (lambda: mr.autocast("bfloat16"), lambda: mr.bfloat16):
        with pytest.raises(ImportError, match=r"bfloat16 needs the package ml_dtypes: pip install ml_dtypes"):
            attempt()
    mr.autocast("bfloat16", enabled=False)  # nothing is needed for nothing


@pytest.mark.skipif(not HAS_BFLOAT16, reason="ml_dtypes is not installed (pip install ml_dtypes)")
def test_bfloat16_is_a_dtype_like_others(tmp_path):
    x = mr.Tensor(np.array([1.5, -2, 3], np.float32), requires_grad=True)
    y = x.to(mr.bfloat16)
    assert y.dtype == mr.bfloat16 and y.requires_grad and y[0].item() == 1.5 and "bfloat16" in repr(y)
    (y * y).sum().backward()
    np.testing.assert_array_equal(x.grad.data, [3, -4, 6])
    assert (y * 2.0).dtype == mr.bfloat16 and (y + x).dtype == np.float32
    with pytest.raises(TypeError, match="is not supported"):
        mr.Tensor(np.zeros(2, "V2"))
    assert nn.Linear(3, 2).to(mr.bfloat16)(y).dtype == mr.bfloat16 and y.tolist() == [1.5, -2, 3]
    with pytest.raises(TypeError, match=r"save: x is bfloat16, which the file cannot hold; save x.to\('float32'\)"):
        mr.save({"x": y}, tmp_path / "x.safetensors")


def network():
    mr.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(), nn.Flatten(), nn.Linear(8 * 25, 5),
    )  # fmt: skip


@half
def test_gradients_of_a_network_are_float32_and_close(half):
    found = {}
    x, labels = random(4, 3, 10, 10).detach(), np.arange(4)
    for enabled in (True, False):
        model = network()
        with mr.autocast(half, enabled=enabled):
            logits = model(x)
            loss = F.cross_entropy(logits, labels)
        assert loss.dtype == np.float32 and (logits.dtype == np.float32) != enabled
        loss.backward()
        found[enabled] = [p.grad.data for p in model.parameters()]
        assert all(gradient.dtype == np.float32 for gradient in found[enabled])
    limit = 1e-2 if half == "float16" else 0.15
    largest = max(np.linalg.norm(g) for g in found[False])
    for a, b in zip(found[True], found[False], strict=True):
        assert np.linalg.norm(a - b) <= limit * np.linalg.norm(b) + 1e-3 * largest


def test_second_derivatives_through_a_cast():
    x, weight = random(2, 5), random(3, 5, seed=1)
    with mr.autocast("float16"):
        y = F.linear(x, weight)
        y = (y * y).sum()
    (first,) = mr.grad(y, x, create_graph=True)
    (second,) = mr.grad(first.sum(), weight)
    expected_first = 2 * (x.data @ weight.data.T) @ weight.data
    np.testing.assert_allclose(first.data, expected_first, atol=2e-2)
    assert first.dtype == second.dtype == np.float32 and np.isfinite(second.data).all()
