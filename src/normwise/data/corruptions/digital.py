"""What processing does: less contrast, stretched pixels, coarse pixels, JPEG."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np

from .kind import Corruption, Picture


def _contrast(x: Picture, share: float, scale: float, rng: np.random.Generator) -> Picture:
    mean = x.mean((0, 1), keepdims=True)
    return (x - mean) * share + mean


def _elastic(x: Picture, setting: tuple[float, float, float], scale: float, rng: np.random.Generator) -> Picture:
    """Move three points of the image at random, and each pixel by smoothed noise; settings are shares of the side."""
    from scipy.ndimage import gaussian_filter, map_coordinates

    height, width, channels = x.shape
    strength, smooth, jitter = (share * min(height, width) for share in setting)
    centre, reach = np.array([height // 2, width // 2]), min(height, width) // 3
    points = centre + reach * np.array([[1, 1], [1, -1], [-1, -1]])
    moved = points + rng.uniform(-jitter, jitter, points.shape)
    back = np.linalg.solve(np.c_[moved, np.ones(3)], points)  # from where a pixel of the moved image comes
    rows, columns = np.mgrid[:height, :width].astype(float)
    came = np.stack([rows, columns, np.ones_like(rows)], -1) @ back
    for edge in ("mirror", "reflect"):  # first the three points, then each pixel
        places = np.moveaxis(came, -1, 0)
        x = np.stack([map_coordinates(x[..., c], places, order=1, mode=edge) for c in range(channels)], -1)
        shift = [gaussian_filter(rng.uniform(-1, 1, (height, width)), smooth, mode="reflect", truncate=3) for _ in range(2)]
        came = np.stack([rows + strength * shift[0], columns + strength * shift[1]], -1)
    return x


def _by_pillow(x: Picture, change: Callable[[Any], Any]) -> Picture:
    """Apply to an image as pillow holds it; where the channels are not three, to each as a grey image."""
    from PIL import Image

    pixels = np.round(255 * x).astype(np.uint8)
    if x.shape[2] == 3:
        return np.asarray(change(Image.fromarray(pixels))) / 255
    return np.stack([np.asarray(change(Image.fromarray(pixels[..., c]))) for c in range(x.shape[2])], -1) / 255


def _pixelate(x: Picture, share: float, scale: float, rng: np.random.Generator) -> Picture:
    from PIL.Image import Resampling

    height, width, _ = x.shape
    small = int(width * share), int(height * share)
    return _by_pillow(x, lambda image: image.resize(small, Resampling.BOX).resize((width, height), Resampling.BOX))


def _jpeg(x: Picture, quality: int, scale: float, rng: np.random.Generator) -> Picture:
    def stored(image: Any) -> Any:
        from PIL import Image

        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        return Image.open(file)

    return _by_pillow(x, stored)


CONTRAST = Corruption(
    name="contrast",
    family="digital",
    about="keeps this share of the distance from each channel's mean",
    small=(0.75, 0.5, 0.4, 0.3, 0.15),
    large=(0.4, 0.3, 0.2, 0.1, 0.05),
    change=_contrast,
)
_OFF = 244 / 224  # the published code counts in sides of 244 pixels
ELASTIC_TRANSFORM = Corruption(
    name="elastic_transform",
    family="digital",
    about="displacements of this strength, smoothed over this length, after three points moved by up to this much; in shares of the side",
    small=((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
    large=tuple(
        tuple(_OFF * share for share in setting)
        for setting in ((2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02))
    ),
    change=_elastic,
)
PIXELATE = Corruption(
    name="pixelate",
    family="digital",
    about="shrinks to this share of the side, by means over boxes, and enlarges again",
    small=(0.95, 0.9, 0.85, 0.75, 0.65),
    large=(0.6, 0.5, 0.4, 0.3, 0.25),
    change=_pixelate,
)
JPEG_COMPRESSION = Corruption(
    name="jpeg_compression",
    family="digital",
    about="JPEG of this quality",
    small=(80, 65, 58, 50, 40),
    large=(25, 18, 15, 10, 7),
    change=_jpeg,
)
