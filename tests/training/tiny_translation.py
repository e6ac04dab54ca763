"""A translator's job that takes a second."""

from __future__ import annotations

from minires.training.translation import TranslationJob

TINY_NUMERALS = TranslationJob(
    train_numbers=120, test_numbers=12, longer_numbers=6, embedding=8, hidden=12, epochs=2, batch_size=16, lr=0.01
)
