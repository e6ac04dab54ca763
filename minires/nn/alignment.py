"""Attention as in translation: a decoder looks back at all the encoder has read, and takes a weighted sum of it.

One question (the query: what the decoder is about to write) meets one vector for each source word (the keys). A score says
how well the two fit, a softmax over the words makes weights of the scores, and the answer (the context) is the sum of the
keys with these weights. The weights of all target words make a matrix which shows what was translated from where; nobody
tells the network, it finds out. Two ways to score are here:

* additive, vᵀ·tanh(W·q + U·k): a small network of its own (Bahdanau, Cho and Bengio, ICLR 2015, section 3.1 and A.1.2);
* the scalar product qᵀ·k, or qᵀ·W·k where the sizes differ (Luong, Pham and Manning, EMNLP 2015, section 3.1, "dot" and
  "general"), divided by √(size), which keeps the softmax from saturating (Vaswani et al., 2017, section 3.2.1).
"""

from __future__ import annotations

import math
from typing import Any

from minires import functional as F
from minires.errors import ShapeError
from minires.nn.layers import Linear
from minires.nn.module import Module
from minires.operators import raw
from minires.precision import is_half
from minires.tensor import Tensor

__all__ = ["AdditiveAttention", "DotProductAttention"]

#: Below every score, so that its weight is exactly 0; float16 has to do with -6e4.
NEVER = -1e30



class _Attention(Module):
    """What both share: weights out of scores, and the weighted sum."""

    def project(self, memory: Tensor) -> Tensor:
        """What the scores need of the keys, (N, S, K) → (N, S, ·); it is the same for all queries, so make it once."""
        raise NotImplementedError

    def scores(self, query: Tensor, projected: Tensor) -> Tensor:
        """(N, T, Q) and (N, S, ·) → (N, T, S)."""
        raise NotImplementedError

    def forward(
        self, query: Tensor, memory: Tensor, mask: Any = None, projected: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Look back.

        Args:
            query: (N, Q), or several for each sentence, (N, T, Q).
            memory: the keys, which are also what is summed, (N, S, K).
            mask: (N, S) booleans, True at real words, False at padding, whose weight is then 0; every sentence has one
                real word at least. None: all are real.
            projected: ``project(memory)``, if that is known already.

        Returns:
            The contexts, (N, K) or (N, T, K), and the weights, (N, S) or (N, T, S); they are positive and add up to 1.

        Raises:
            ShapeError: the shapes do not fit.
        """
        self._check(query, memory, mask)
        keys = self.project(memory) if projected is None else projected
        scores = self.scores(query if query.ndim == 3 else F.unsqueeze(query, 1), keys)
        if mask is not None:
            scores = F.where(raw(mask)[:, None], scores, -6e4 if is_half(scores) else NEVER)  # (N, 1, S)
        weights = F.softmax(scores, -1)  # (N, T, S)
        context = F.matmul(weights, memory)  # (N, T, S) x (N, S, K)
        return (context, weights) if query.ndim == 3 else (F.squeeze(context, 1), F.squeeze(weights, 1))

    def _check(self, query: Tensor, memory: Tensor, mask: Any) -> None:
        if query.ndim not in (2, 3) or memory.ndim != 3 or query.shape[0] != memory.shape[0]:
            axes = "N Q" if query.ndim == 2 else "N T Q"
            rule = "query and memory must have one entry for each sentence"
            raise ShapeError(type(self).__name__, rule, query=(query.shape, axes), memory=(memory.shape, "N S K"))
        if mask is not None and tuple(mask.shape) != memory.shape[:2]:
            rule = "the mask must have one element for each source word"
            raise ShapeError(type(self).__name__, rule, memory=(memory.shape, "N S K"), mask=(mask.shape, "N S"))


class AdditiveAttention(_Attention):
    """score = vᵀ·tanh(W·q + U·k + b).

    Args:
        query_size: Q.
        key_size: K.
        hidden_size: how many tanh units there are; None for Q.

    Attributes:
        query: W, a linear layer (Q → hidden_size) without a bias.
        key: U and b, a linear layer (K → hidden_size).
        score: v, a linear layer (hidden_size → 1) without a bias, which would change no weight.
    """

    def __init__(self, query_size: int, key_size: int, hidden_size: int | None = None) -> None:
        super().__init__()
        hidden = query_size if hidden_size is None else hidden_size
        self.query = Linear(query_size, hidden, bias=False)
        self.key = Linear(key_size, hidden)
        self.score = Linear(hidden, 1, bias=False)

    def project(self, memory: Tensor) -> Tensor:
        """U·k + b, (N, S, K) → (N, S, hidden_size)."""
        projected: Tensor = self.key(memory)
        return projected

    def scores(self, query: Tensor, projected: Tensor) -> Tensor:
        """(N, T, Q) and (N, S, hidden_size) → (N, T, S)."""
        # (N, T, 1, hidden_size) + (N, 1, S, hidden_size)
        fit = F.tanh(F.unsqueeze(self.query(query), 2) + F.unsqueeze(projected, 1))
        return F.squeeze(self.score(fit), 3)


class DotProductAttention(_Attention):
    """score = qᵀ·k/√Q, or qᵀ·W·k/√Q.

    Args:
        query_size: Q.
        key_size: K, if the keys are to be mapped to size Q by a learned W (also where K = Q); None: they are of size Q.
        scaled: divide by √Q.

    Attributes:
        key: W, a linear layer (K → Q) without a bias, or None.
    """

    key: Linear | None

    def __init__(self, query_size: int, key_size: int | None = None, scaled: bool = True) -> None:
        super().__init__()
        self.query_size, self.scaled = query_size, scaled
        self.key = None if key_size is None else Linear(key_size, query_size, bias=False)

    def project(self, memory: Tensor) -> Tensor:
        """W·k, (N, S, K) → (N, S, Q)."""
        projected: Tensor = memory if self.key is None else self.key(memory)
        return projected

    def scores(self, query: Tensor, projected: Tensor) -> Tensor:
        """(N, T, Q) and (N, S, Q) → (N, T, S)."""
        if self.scaled:
            query = query * (1 / math.sqrt(self.query_size))
        return F.matmul(query, F.transpose(projected, 1, 2))  # (N, T, Q) x (N, Q, S)

    def extra_repr(self) -> str:
        """The options."""
        return f"{self.query_size}, scaled={self.scaled}"
