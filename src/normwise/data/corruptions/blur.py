"""Blur: a lens out of focus, frosted glass, a moving camera, a zooming one."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from .kind import Corruption, Picture


def disc(radius: float, soften: float) -> NDArray[np.float64]:
    """A disc whose edge is softened by a Gaussian of 3 x 3 entries (5 x 5 above radius 8); its mass is 1."""
    from scipy.ndimage import correlate1d

    reach = math.ceil(radius) + 2
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    kernel = (x**2 + y**2 <= radius**2).astype(float)
    taps = np.arange(-1, 2) if radius <= 8 else np.arange(-2, 3)
    bell = np.exp(-((taps / max(soften, 1e-6)) ** 2) / 2)
    for axis in (0, 1):
        kernel = correlate1d(kernel, bell, axis, mode="constant")
    return kernel / kernel.sum()


def streak(x: Picture, radius: float, sigma: float, degrees: float) -> Picture:
    """Smear along a line: half a Gaussian over 2 radius + 1 pixels, each tap at the nearest pixel of the line; edges repeat.

    Source: what ImageMagick's motion blur does, which the published code calls.
    """
    taps = 2 * math.ceil(radius) + 1
    weights = np.exp(-((np.arange(taps) / sigma) ** 2) / 2)
    angle = math.radians(degrees)
    wide = np.pad(x, [(taps, taps), (taps, taps), (0, 0)], mode="edge")
    smeared = np.zeros_like(x)
    for i, weight in enumerate(weights / weights.sum()):
        down, right = (taps + math.ceil(i * part - 0.5) for part in (math.sin(angle), math.cos(angle)))
        smeared += weight * wide[down : down + x.shape[0], right : right + x.shape[1]]
    return smeared


def enlarged(x: Picture, factor: float) -> Picture:
    """Zoom into the middle, bilinearly; the size stays."""
    from scipy.ndimage import zoom

    height, width = x.shape[:2]
    rows, columns = math.ceil(height / factor), math.ceil(width / factor)
    top, left = (height - rows) // 2, (width - columns) // 2
    large = zoom(x[top : top + rows, left : left + columns], (factor, factor, 1), order=1)
    top, left = (large.shape[0] - height) // 2, (large.shape[1] - width) // 2
    return np.asarray(large[top : top + height, left : left + width])


def _defocus(x: Picture, setting: tuple[float, float], scale: float, rng: np.random.Generator) -> Picture:
    from scipy.ndimage import correlate

    radius, soften = setting
    return np.asarray(correlate(x, disc(radius * scale, soften * scale)[..., None], mode="mirror"))


def _glass(x: Picture, setting: tuple[float, int, int], scale: float, rng: np.random.Generator) -> Picture:
    """Each pixel takes the value of a near one, from the lower right to the upper left, between two Gaussian blurs.

    The published code means to swap the two, but swaps views of one array, which copies; so do we.
    """
    from scipy.ndimage import gaussian_filter

    sigma, rounds = setting[0] * scale, setting[2]
    reach = max(1, round(setting[1] * scale))
    height, width, channels = x.shape
    blur = (sigma, sigma, 0)
    soft = np.floor(255 * gaussian_filter(x, blur, mode="nearest") + 1e-6) / 255
    source = list(range(height * width))
    for _ in range(rounds):
        steps = rng.integers(-reach, reach, (height, width, 2)).tolist()
        for row in range(height - reach, reach, -1):
            for column in range(width - reach, reach, -1):
                right, down = steps[row][column]
                source[row * width + column] = source[(row + down) * width + column + right]
    shuffled = soft.reshape(-1, channels)[source].reshape(x.shape)
    return np.asarray(gaussian_filter(shuffled, blur, mode="nearest"))


def _motion(x: Picture, setting: tuple[float, float], scale: float, rng: np.random.Generator) -> Picture:
    return streak(x, setting[0] * scale, setting[1] * scale, rng.uniform(-45, 45))


def _zoom(x: Picture, setting: tuple[float, float], scale: float, rng: np.random.Generator) -> Picture:
    factors = np.arange(1, *setting)
    return (x + sum(enlarged(x, float(factor)) for factor in factors)) / (len(factors) + 1)


DEFOCUS_BLUR = Corruption(
    name="defocus_blur",
    family="blur",
    about="a disc of this radius, with its edge softened by this much",
    small=((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
    large=((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    change=_defocus,
)
GLASS_BLUR = Corruption(
    name="glass_blur",
    family="blur",
    about="Gaussian blur of this deviation; each pixel is replaced by one at most this near, this many times",
    small=((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
    large=((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    change=_glass,
)
MOTION_BLUR = Corruption(
    name="motion_blur",
    family="blur",
    about="half a Gaussian along a line, of this radius and deviation, up to 45 degrees from level",
    small=((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
    large=((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    change=_motion,
)
ZOOM_BLUR = Corruption(
    name="zoom_blur",
    family="blur",
    about="the mean of zooms from 1 up to this factor, in steps of this size",
    small=((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
    large=((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
    change=_zoom,
)
