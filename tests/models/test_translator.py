"""The translator: teacher forcing and searching are the same network, padding is not seen, and a beam finds no less."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minires as mr
from minires import functional as F
from minires.data.sentences import BEGIN, END, PAD, padded
from minires.errors import ShapeError
from minires.models import Translator

KINDS = ("additive", "dot", "none")
every_kind = pytest.mark.parametrize("kind", KINDS)
SOURCES = [[3, 4, 5, 6], [5], [7, 3]]


def small(kind: str) -> Translator:
    return Translator(8, 7, embedding=5, hidden=6, attention=kind).eval()


def loud(kind: str) -> Translator:
    """One whose choices are sharp, and which ends its sentences."""
    network = small(kind)
    for parameter in network.parameters():
        parameter.assign(parameter.data * 3)
    return network


def log_probability(network: Translator, source: list[int], words: list[int]) -> float:
    """By teacher forcing, one sentence at a time, END included."""
    scores = network(np.array([source]), np.array([[BEGIN, *words]]))
    log_p = F.log_softmax(scores, -1).numpy()[0]
    return float(sum(log_p[t, word] for t, word in enumerate([*words, END])))


@every_kind
def test_padding_changes_no_score(kind: str):
    network = small(kind).double()
    before = np.array([[BEGIN, 3, 4], [BEGIN, 5, 0], [BEGIN, 6, 3]])
    together = network(padded(SOURCES), before)
    assert together.shape == (3, 3, 7)
    for n, source in enumerate(SOURCES):
        alone = network(np.array([source]), before[n : n + 1])
        np.testing.assert_allclose(together.numpy()[n], alone.numpy()[0], rtol=1e-10, atol=1e-12)


@every_kind
def test_every_parameter_gets_a_gradient(kind: str):
    network = small(kind).train()
    scores = network(padded(SOURCES), np.array([[BEGIN, 3], [BEGIN, 4], [BEGIN, 5]]))
    F.cross_entropy(scores.reshape(6, 7), np.array([3, END, 4, END, 5, END])).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.numpy().any(), name


@every_kind
def test_gradients_of_the_whole_network(kind: str):
    network = small(kind).double()

    source, before = padded(SOURCES[1:]), np.array([[BEGIN, 3], [BEGIN, 4]])
    scores = network(source, before)
    upstream = np.random.default_rng(0).standard_normal(scores.shape)
    for parameter in (network.source.weight, network.cell.weight_hh, network.encoder.weight_hh_l0_reverse):
        (gradient,) = mr.grad(network(source, before), [parameter], upstream)
        direction = np.random.default_rng(1).standard_normal(parameter.shape)
        values = parameter.data.copy()
        ends = []
        for step in (1e-5, -1e-5):
            parameter.assign(values + step * direction)
            ends.append((network(source, before).numpy() * upstream).sum())
        parameter.assign(values)
        assert (gradient.numpy() * direction).sum() == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-6)


@every_kind
def test_greedy_search_takes_the_most_probable_word_each_time(kind: str):
    network = loud(kind).double()
    for source, found in zip(SOURCES, network.greedy(padded(SOURCES), longest=12), strict=True):
        words = [BEGIN, *found.words]
        scores = np.array(network(np.array([source]), np.array([words])).numpy()[0])
        scores[:, [PAD, BEGIN]] = -np.inf  # which are no words
        assert scores.argmax(1).tolist()[: len(found.words)] == found.words
        if len(found.words) < 12:
            assert scores[-1].argmax() == END
            assert found.score == pytest.approx(log_probability(network, source, found.words), rel=1e-8)


@every_kind
def test_a_beam_of_one_is_greedy_and_a_wide_one_finds_the_best(kind: str):
    network = loud(kind).double()
    for source in SOURCES:
        (greedy,) = network.greedy(np.array([source]), longest=6)
        (narrow,) = network.beam(source, 1, longest=6)
        assert narrow.words == greedy.words and narrow.score == pytest.approx(greedy.score)
        wide = network.beam(source, 4, longest=6)
        assert len(wide) == 4 and [each.score for each in wide] == sorted((each.score for each in wide), reverse=True)
        assert len({tuple(each.words) for each in wide}) == 4
        for each in wide:
            if len(each.words) < 6:
                assert each.score == pytest.approx(log_probability(network, source, each.words), rel=1e-8)


def test_a_beam_finds_what_greedy_search_misses():
    """The first word that is most probable leads to nothing; the second best leads to a sure end."""
    network = small("none")
    table = {(BEGIN,): {3: 0.6, 4: 0.4}, (3,): {5: 0.5, 6: 0.5}, (4,): {END: 1.0}, (5,): {END: 1.0}, (6,): {END: 1.0}}

    def next_words(words: Any, state: Any, encoded: Any) -> Any:
        p = np.full((len(words), 7), 1e-12)
        for row, word in enumerate(words):
            for after, probability in table[(int(word),)].items():
                p[row, after] = probability
        return np.log(p), None, state

    network._next = next_words  # type: ignore[method-assign]
    assert network.greedy(np.array([[3]]))[0].words == [3, 5]
    best, *_ = network.beam([3], 2)
    assert best.words == [4] and best.score == pytest.approx(np.log(0.4))


def test_alignments():
    for kind in ("additive", "dot"):
        network = loud(kind)
        for source, found in zip(SOURCES, network.greedy(padded(SOURCES), longest=9), strict=True):
            assert found.alignment is not None
            assert found.alignment.shape == (min(len(found.words) + 1, 9), len(source))
            np.testing.assert_allclose(found.alignment.sum(1), 1, rtol=1e-5)
            (alone,) = network.beam(source, 1, longest=9)
            np.testing.assert_allclose(alone.alignment, found.alignment, rtol=1e-3, atol=1e-5)
    assert small("none").greedy(np.array([[3]]), longest=3)[0].alignment is None


def test_what_it_is_made_of_and_built_from():
    counts = {kind: sum(p.numel() for p in Translator(35, 18, 32, 64, kind).parameters()) for kind in KINDS}
    assert counts["additive"] - counts["none"] == 64 * 64 + (128 * 64 + 64) + 64
    assert counts["dot"] - counts["none"] == 128 * 64
    network = small("dot")
    again = Translator(**{key: value for key, value in network.config.items() if key != "name"})
    again.load_state_dict(network.state_dict())
    source, before = padded(SOURCES), np.full((3, 1), BEGIN)
    np.testing.assert_array_equal(again(source, before).numpy(), network(source, before).numpy())
    names = list(dict.fromkeys(name.split(".")[0] for name in network.state_dict()))
    assert names == ["source", "encoder", "bridge", "target", "attention", "cell", "readout", "output"]


def test_errors():
    with pytest.raises(ValueError, match="Translator: attention must be one of additive, dot, none, got 'residual'"):
        Translator(5, 5, attention="residual")
    with pytest.raises(ShapeError, match="with one word at least"):
        small("dot").greedy(np.array([[3, 4], [0, 0]]))
    with pytest.raises(ValueError, match="width of at least 1"):
        small("dot").beam([3], 0)


@pytest.mark.parametrize("way", ["greedy", "beam"])
def test_what_is_no_word_is_never_written(way: str):
    mr.manual_seed(0)
    network = Translator(6, 6, embedding=4, hidden=4)
    network.output.bias.assign(np.array([50.0, 50.0, -50.0, 0.0, 0.0, 0.0], np.float32))  # PAD and BEGIN are most probable
    source = np.array([[4, 5, 2]])
    found = network.greedy(source, 5) if way == "greedy" else network.beam([4, 5, 2], 3, 5)
    assert all(word not in (PAD, BEGIN) for each in found for word in each.words)
