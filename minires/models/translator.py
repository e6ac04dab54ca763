"""An encoder–decoder with attention: from a sentence to a sentence (Bahdanau, Cho and Bengio, ICLR 2015).

The encoder reads the source sentence in both directions and leaves one vector for each word, which knows the word and what
stands around it. The decoder writes one word after the other. Before each it looks back at the encoder's vectors, takes the
weighted sum that fits its state, and goes on with that and its last word::

    h₁ … h_S = GRU(source), both directions joined          the memory
    c_t = attention(s_{t-1}, h₁ … h_S)                      the context: where to look
    s_t = GRU cell([word t-1, c_t], s_{t-1})                the decoder's state
    p(word t) = softmax(V·tanh(U·[s_t, c_t, word t-1]))

Without attention (``attention="none"``) the network is the same, but every c_t is the end of the encoder, (→h_S, ←h₁): one
vector of fixed size has to carry the sentence, however long it is (Cho et al., EMNLP 2014). That is what attention was
invented against.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from minires import functional as F
from minires.data.sentences import BEGIN, END, PAD
from minires.device import bring
from minires.errors import ShapeError
from minires.modes import no_grad
from minires.nn import GRU, AdditiveAttention, DotProductAttention, Embedding, GRUCell, Linear, Module
from minires.operators import raw
from minires.tensor import Tensor

__all__ = ["Encoded", "Translation", "Translator"]

KINDS = ("additive", "dot", "none")


class Encoded(NamedTuple):
    """What the decoder knows of source sentences.

    Attributes:
        memory: one vector for each word, (N, S, 2·hidden).
        keys: what attention makes of them once and for all, or None.
        mask: (N, S) booleans, True at words, False at padding.
        ends: the last states of both directions, (N, 2·hidden).
        state: with which the decoder begins, (N, hidden).
    """

    memory: Tensor
    keys: Tensor | None
    mask: Any
    ends: Tensor
    state: Tensor


@dataclass(frozen=True)
class Translation:
    """One translated sentence.

    Attributes:
        words: the numbers of its words, without BEGIN and END.
        score: ln of its probability, END included.
        alignment: how much each word (rows; the last is END) looked at each source word (columns); rows add up to 1. None
            without attention.
    """

    words: list[int]
    score: float
    alignment: np.ndarray[Any, Any] | None


class Translator(Module):
    """Reads a sentence of one language and writes one of another; the formulas are in the head of this module.

    Children, in forward order: ``source``, ``encoder``, ``bridge``, ``target``, ``attention``, ``cell``, ``readout``,
    ``output``.

    Args:
        source_size: how many numbers of source words there are, see :class:`minires.data.Vocabulary`.
        target_size: the same of the target language.
        embedding: size of a word's vector.
        hidden: size of the states of the decoder and of either direction of the encoder.
        attention: "additive", "dot" (scaled, with a learned matrix) or "none".

    Attributes:
        config: the arguments by name.
    """

    attention: AdditiveAttention | DotProductAttention | None

    def __init__(
        self, source_size: int, target_size: int, embedding: int = 48, hidden: int = 96, attention: str = "additive"
    ) -> None:
        super().__init__()
        if attention not in KINDS:
            raise ValueError(f"Translator: attention must be one of {', '.join(KINDS)}, got {attention!r}")
        self.config = {
            "name": "translator", "source_size": source_size, "target_size": target_size, "embedding": embedding,
            "hidden": hidden, "attention": attention,
        }  # fmt: skip
        self.source = Embedding(source_size, embedding, padding_idx=PAD)
        self.encoder = GRU(embedding, hidden, batch_first=True, bidirectional=True)
        self.bridge = Linear(2 * hidden, hidden)
        self.target = Embedding(target_size, embedding)
        kinds = {"additive": AdditiveAttention, "dot": DotProductAttention}
        self.attention = None if attention == "none" else kinds[attention](hidden, 2 * hidden)
        self.cell = GRUCell(embedding + 2 * hidden, hidden)
        self.readout = Linear(hidden + 2 * hidden + embedding, hidden)
        self.output = Linear(hidden, target_size)

    # -------------------------------------------------------------------------------- one pass

    def forward(self, source: Any, target: Any) -> Tensor:
        """Teacher forcing: the scores of every next word, where the words before are given, not those it would choose.

        Args:
            source: (N, S) numbers of words, filled up with PAD; one word at least in each row.
            target: (N, T): BEGIN and the words before each word to be scored.

        Returns:
            Scores (N, T, target_size); softmax makes probabilities of them.
        """
        encoded, state = self._start(source)
        words = F.split(self.target(target), 1, 1)  # T times (N, 1, embedding)
        states, contexts = [], []
        for word in words:
            context, _, state = self.step(F.squeeze(word, 1), state, encoded)
            states.append(state)
            contexts.append(context)
        return self.scores(F.stack(states, 1), F.stack(contexts, 1), F.cat(list(words), 1))

    def encode(self, source: Any) -> Encoded:
        """Read source sentences, (N, S) numbers of words filled up with PAD."""
        numbers = bring(raw(source), self.source.weight.data)
        mask = numbers != PAD  # (N, S)
        if mask.ndim != 2 or not mask.any(axis=1).all():
            rule = "expected a row for each sentence, with one word at least"
            raise ShapeError("Translator", rule, source=(mask.shape, "N S"))
        memory, finals = self.encoder(self.source(numbers), lengths=mask.sum(axis=1))
        ends = F.cat((finals[0], finals[1]), 1)  # (N, 2·hidden)
        keys = None if self.attention is None else self.attention.project(memory)
        return Encoded(memory, keys, mask, ends, F.tanh(self.bridge(ends)))

    def step(self, word: Tensor, state: Tensor, encoded: Encoded) -> tuple[Tensor, Tensor | None, Tensor]:
        """One word further.

        Args:
            word: the vectors of the words before, (N, embedding).
            state: (N, hidden).
            encoded: the sources.

        Returns:
            The context (N, 2·hidden), its weights (N, S) (None without attention), and the new state.
        """
        context, weights = encoded.ends, None
        if self.attention is not None:
            context, weights = self.attention(state, encoded.memory, encoded.mask, encoded.keys)
        return context, weights, self.cell(F.cat((word, context), 1), state)

    def scores(self, state: Tensor, context: Tensor, word: Tensor) -> Tensor:
        """The scores of the next word, (..., target_size), out of what :meth:`step` got and made, (..., ·) each."""
        scores: Tensor = self.output(F.tanh(self.readout(F.cat((state, context, word), -1))))
        return scores

    def _start(self, source: Any) -> tuple[Encoded, Tensor]:
        encoded = self.encode(source)
        return encoded, encoded.state

    def extra_repr(self) -> str:
        """The kind of attention."""
        return f"attention={self.config['attention']!r}"

    # -------------------------------------------------------------------------------- translating

    def _next(self, words: Any, state: Tensor, encoded: Encoded) -> tuple[np.ndarray[Any, Any], Any, Tensor]:
        """After ``words`` (N,): ln p of every next word (N, target_size), the weights (N, S) or None, the new state."""
        vectors = self.target(words)
        context, weights, state = self.step(vectors, state, encoded)
        scores = self.scores(state, context, vectors)
        log_p = np.array(F.log_softmax(scores, -1).cpu().numpy())
        log_p[:, [PAD, BEGIN]] = -np.inf  # no words: a network that has learnt little might choose them
        return log_p, None if weights is None else weights.cpu().numpy(), state

    @no_grad()
    def greedy(self, source: Any, longest: int = 60) -> list[Translation]:
        """Translate sentences together, each time writing the most probable word.

        Args:
            source: (N, S) numbers of words, filled up with PAD.
            longest: where to stop a sentence that does not end by itself.
        """
        encoded, state = self._start(source)
        count = len(encoded.mask)
        words, chosen, total = np.full(count, BEGIN), [], np.zeros(count)
        looked: list[Any] = []
        alive = np.ones(count, bool)
        for _ in range(longest):
            log_p, weights, state = self._next(words, state, encoded)
            words = log_p.argmax(axis=1)  # (N,)
            total += np.where(alive, log_p[np.arange(count), words], 0)
            chosen.append(words)
            looked.append(weights)
            alive = alive & (words != END)
            if not alive.any():
                break
        rows, lengths = np.stack(chosen, 1), encoded.mask.sum(axis=1)  # (N, T)
        weights = None if self.attention is None else np.stack(looked, 1)  # (N, T, S)
        return [
            _finished(row.tolist(), float(total[n]), [] if weights is None else list(weights[n]), int(lengths[n]))
            for n, row in enumerate(rows)
        ]

    @no_grad()
    def beam(self, source: Sequence[int], width: int = 5, longest: int = 60) -> list[Translation]:
        """Translate one sentence, keeping the ``width`` most probable beginnings at each step.

        Greedy search cannot take a word back. This one finds sentences whose first words are not the most probable ones; it
        never does worse than greedy search does with ``width`` 1, which is the same.

        Args:
            source: the numbers of the words.
            width: how many beginnings to keep.
            longest: where to stop.

        Returns:
            Up to ``width`` translations, the most probable first.
        """
        if width < 1:
            raise ValueError(f"beam: expected a width of at least 1, got {width}")
        one, _ = self._start(np.array([source]))
        found: list[Translation] = []
        paths: list[tuple[float, list[int], list[Any]]] = [(0.0, [BEGIN], [])]
        state = one.state
        for _ in range(longest):
            encoded = _repeated(one, len(paths))
            log_p, weights, state = self._next(np.array([path[1][-1] for path in paths]), state, encoded)
            total = log_p + np.array([[path[0]] for path in paths])  # (paths, target_size)
            best = np.argsort(-total, axis=None, kind="stable")[: width - len(found)]
            going, rows = [], []
            for row, word in zip(*np.unravel_index(best, total.shape), strict=True):
                score, words = float(total[row, word]), [*paths[row][1], int(word)]
                looked = [] if weights is None else [*paths[row][2], weights[row]]
                if word == END:
                    found.append(_finished(words[1:], score, looked, len(source)))
                else:
                    going.append((score, words, looked))
                    rows.append(int(row))
            if not going:
                break
            paths, state = going, state[rows]
        else:
            found += [_finished(words[1:], score, looked, len(source)) for score, words, looked in paths]
        return sorted(found, key=lambda each: -each.score)


def _finished(words: list[int], score: float, looked: list[Any], length: int) -> Translation:
    """A translation out of its words, with whatever comes after END, and the weights at each step."""
    end = words.index(END) if END in words else len(words)
    rows = looked[: end + 1]
    return Translation(words[:end], score, np.stack(rows)[:, :length] if rows else None)


def _repeated(one: Encoded, count: int) -> Encoded:
    """The same sentence ``count`` times."""
    same = [0] * count
    keys = None if one.keys is None else one.keys[same]
    return Encoded(one.memory[same], keys, one.mask[same], one.ends[same], one.state[same])
