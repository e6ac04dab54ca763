"""Attention over source words: its formulas in plain NumPy, and what a mask does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minires as mr
from minires import nn
from minires.errors import ShapeError

RNG = np.random.default_rng(6)
QUERY, MEMORY = RNG.standard_normal((2, 3, 4)), RNG.standard_normal((2, 5, 6))  # (N, T, Q), (N, S, K)
MASK = np.array([[True, True, True, False, False], [True] * 5])


def softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores)
    return powers / powers.sum(-1, keepdims=True)


def additive(layer: Any, n: int, t: int, s: int) -> float:
    q = layer.query.weight.numpy() @ QUERY[n, t]
    k = layer.key.weight.numpy() @ MEMORY[n, s] + layer.key.bias.numpy()
    return float(layer.score.weight.numpy()[0] @ np.tanh(q + k))


def general(layer: Any, n: int, t: int, s: int) -> float:
    return float(QUERY[n, t] @ layer.key.weight.numpy() @ MEMORY[n, s]) / (2 if layer.scaled else 1)


LAYERS = [
    ("additive", nn.AdditiveAttention(4, 6, 7), additive),
    ("dot", nn.DotProductAttention(4, 6), general),
    ("unscaled", nn.DotProductAttention(4, 6, scaled=False), general),
]
every = pytest.mark.parametrize(("layer", "score"), [case[1:] for case in LAYERS], ids=[case[0] for case in LAYERS])


@every
def test_weights_and_contexts_are_those_of_the_formula(layer: Any, score: Any):
    layer.double()
    context, weights = layer(mr.Tensor(QUERY), mr.Tensor(MEMORY), MASK)
    assert context.shape == (2, 3, 6) and weights.shape == (2, 3, 5)
    for n, real in enumerate(MASK.sum(1)):
        for t in range(3):
            expected = softmax(np.array([score(layer, n, t, s) for s in range(real)]))
            np.testing.assert_allclose(weights.numpy()[n, t, :real], expected, rtol=1e-10)
            assert (weights.numpy()[n, t, real:] == 0).all()
            np.testing.assert_allclose(context.numpy()[n, t], expected @ MEMORY[n, :real], rtol=1e-10)


@every
def test_one_query_is_a_sequence_of_one(layer: Any, score: Any):
    layer.double()
    memory = mr.Tensor(MEMORY)
    many = layer(mr.Tensor(QUERY), memory, MASK)
    one = layer(mr.Tensor(QUERY[:, 1]), memory, mr.Tensor(MASK), layer.project(memory))
    for a, b in zip(one, many, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy()[:, 1], rtol=1e-12)


@every
def test_gradients(layer: Any, score: Any):
    layer.double()
    inputs = tuple(RNG.standard_normal(shape) for shape in ((2, 4), (2, 3, 6)))
    report = mr.gradcheck(lambda query, memory: layer(query, memory, MASK[:, 1:4])[0], inputs)
    assert report.verdict == "right", report


@every
def test_padding_is_never_seen(layer: Any, score: Any):
    layer.double()
    noisy = MEMORY.copy()
    noisy[0, 3:] = 50
    results = (layer(mr.Tensor(QUERY), mr.Tensor(memory), MASK) for memory in (noisy, MEMORY))
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-12)


def test_the_plain_scalar_product_has_no_parameters():
    layer = nn.DotProductAttention(6, scaled=False)
    assert not list(layer.parameters())
    _, weights = layer(mr.Tensor(MEMORY[:, 0]), mr.Tensor(MEMORY))
    np.testing.assert_allclose(weights.numpy(), softmax(np.einsum("nk,nsk->ns", MEMORY[:, 0], MEMORY)), rtol=1e-10)


def test_errors():
    layer = nn.AdditiveAttention(4, 6)
    with pytest.raises(ShapeError, match="AdditiveAttention: query and memory must have one entry for each sentence"):
        layer(mr.Tensor(QUERY[:1]), mr.Tensor(MEMORY))
    with pytest.raises(ShapeError, match="one element for each source word"):
        layer(mr.Tensor(QUERY), mr.Tensor(MEMORY), MASK[:, :3])


def test_padding_loses_against_any_score():
    layer = nn.DotProductAttention(1, scaled=False)
    _, weights = layer(mr.tensor([[-300.0]]), mr.tensor([[[300.0], [0.5]]]), np.array([[True, False]]))
    assert weights.data.tolist() == [[1.0, 0.0]]
