"""How large an experiment is: the data, the schedule and the network at each scale.

``tiny`` runs on the embedded cluttered digits, on two CPU cores, in minutes. ``cifar`` is the paper's network on CIFAR-10
with a schedule of a seventh of the paper's, ``paper`` the paper's own recipe; both are meant for a GPU. ``micro`` takes
seconds and proves nothing: it is for tests of the machinery.
"""

from __future__ import annotations

from typing import Any

from minires.training.presets import CIFAR, DIGITS, Job

__all__ = ["SCALES", "network"]

#: What ``--scale`` offers; "micro" is there, too.
SCALES = ("tiny", "cifar", "paper")

_TINY = DIGITS.with_(
    canvas=17, digit=12, clutter=1, train_images=1600, test_images=2000, epochs=6, test_every=0,
    options={"widths": (64, 128), "depths": (2, 1), "stem": 32, "stem_stride": 2, "after": 0, "p": 0, "t": 1, "r": 1},
)  # fmt: skip

_MICRO = DIGITS.with_(
    canvas=17, digit=12, clutter=1, train_images=32, test_images=24, batch_size=16, epochs=2, test_every=0,
    options={"widths": (8, 8), "depths": (2, 1), "stem": 4, "stem_stride": 2, "after": 0, "p": 0, "t": 1, "r": 1},
)  # fmt: skip

#: 30 epochs of 128 images with one rise and fall of the rate, in place of 205 epochs of 64.
_CIFAR = CIFAR.with_(epochs=30, batch_size=128, weight_decay=5e-4, schedule="cosine", warmup=0.1, test_every=0)

_JOBS = {"micro": _MICRO, "tiny": _TINY, "cifar": _CIFAR, "paper": CIFAR.with_(test_every=0)}


def network(scale: str, attention: str = "residual", **options: Any) -> Job:
    """The job of an attention network at a scale.

    Args:
        scale: "tiny", "cifar", "paper" or "micro".
        attention: "residual" (ARL), "naive" (NAL) or "none".
        **options: of the network, such as ``m=3`` or ``upsample="deconv"``.
    """
    job = _JOBS[scale]
    return job.with_(attention=attention, options={**job.options, **options})
