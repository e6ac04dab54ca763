"""One real photograph that comes with the package, for pictures of what convolutions and attention do to an image."""

from __future__ import annotations

from pathlib import Path

from minires.data.image_folder import Bytes, read_image

__all__ = ["photograph"]


def photograph() -> Bytes:
    """The face of the cat Chelsea, (3, 96, 96) uint8.

    Photograph by Stéfan van der Walt, dedicated to the public domain (CC0); it is ``chelsea`` of scikit-image. The file
    holds the square of 300 pixels from column 76 on, scaled to 96 pixels.
    """
    return read_image(Path(__file__).with_name("photo.png"))
