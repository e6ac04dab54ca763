"""The translator on the GPU: training steps, and what it then writes, are the CPU's."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest

from minires.training.translation import TranslationTrainer, measure_translator, open_corpus
from tests.cuda.compare import as_host
from tests.training.tiny_translation import TINY_NUMERALS


@pytest.mark.parametrize("attention", ["additive", "dot", "none"])
def test_a_translator_is_the_same_on_both_devices(attention: str, cuda: ModuleType) -> None:
    job = TINY_NUMERALS.with_(attention=attention)
    corpus = open_corpus(job)
    trainers = [TranslationTrainer(job.with_(device=device), corpus, quiet=True) for device in ("cpu", "cuda")]
    batch = corpus.sets["train"].batch(range(5))
    for _ in range(2):
        losses = [trainer._make_step(batch) for trainer in trainers]
        assert losses[0][0] == pytest.approx(losses[1][0], rel=1e-4) and losses[0][1:] == losses[1][1:]
    for (name, a), b in zip(
        trainers[0].model.state_dict().items(), trainers[1].model.state_dict().values(), strict=True
    ):  # fmt: skip
        np.testing.assert_allclose(as_host(b), as_host(a), rtol=1e-2, atol=1e-3, err_msg=name)
    scores = [measure_translator(trainer.model, corpus.sets["test"]) for trainer in trainers]
    assert scores[0].by_length.keys() == scores[1].by_length.keys()
    sources = corpus.sets["test"].source[0]
    found = trainers[1].model.beam(sources, 3, longest=8)
    assert len(found) == 3 and (found[0].alignment is None) == (attention == "none")
