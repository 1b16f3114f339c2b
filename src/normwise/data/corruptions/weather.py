"""Weather: snow, frost, fog, and too much light."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from .blur import enlarged, streak
from .kind import Corruption, Picture

ICE = (  # per photograph of frost: mean colour, and standard deviation within 32 pixels of it at a fifth of its size
    ((0.30, 0.58, 0.65), 0.06),
    ((0.79, 0.81, 0.84), 0.07),
    ((0.79, 0.81, 0.84), 0.07),  # the third file shows the second's scene
    ((0.54, 0.60, 0.65), 0.10),
    ((0.44, 0.48, 0.53), 0.14),
)


def plasma(side: int, decay: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """A random landscape in [0, 1], side x side pixels: diamond-square on a torus, roughness divided by `decay` a level."""
    size = 2 ** math.ceil(math.log2(side))
    land, step, rough = np.zeros((size, size)), size, 100.0
    while step > 1:
        half = step // 2
        corners = land[::step, ::step]
        right, below = np.roll(corners, -1, 1), np.roll(corners, -1, 0)
        middle = (corners + right + below + np.roll(right, -1, 0)) / 4
        middle = middle + rough * rng.uniform(-rough, rough, middle.shape)
        between = (corners + right + middle + np.roll(middle, 1, 0)) / 4
        beside = (corners + below + middle + np.roll(middle, 1, 1)) / 4
        land[half::step, half::step] = middle
        land[::step, half::step] = between + rough * rng.uniform(-rough, rough, between.shape)
        land[half::step, ::step] = beside + rough * rng.uniform(-rough, rough, beside.shape)
        step, rough = half, rough / decay
    land = land - land.min()
    return (land / land.max())[:side, :side]


def rime(shape: tuple[int, int], scale: float, rng: np.random.Generator) -> Picture:
    """A texture of ice (h, w, 1), mean 0, deviation 1: noise streaked in five directions, the brightest on top, uneven.

    Its power falls over spatial frequency as that of the authors' photographs does at a fifth of their size (per octave by
    2.0, 1.3 and 0.7 bits; the photographs: 2.1, 1.4 and 0.7).
    """
    noise = rng.normal(size=(*shape, 5))
    needles = [streak(noise[..., i : i + 1], 4 * scale, 1.5 * scale, rng.uniform(0, 360)) for i in range(5)]
    uneven = plasma(max(shape), 1.4, rng)[: shape[0], : shape[1], None]
    ice: Picture = _standard(np.max(needles, axis=0)) + 0.4 * _standard(uneven)
    return _standard(ice)


def _standard(x: Picture) -> Picture:
    return (x - x.mean()) / x.std()


def _snow(x: Picture, setting: tuple[float, ...], scale: float, rng: np.random.Generator) -> Picture:
    mean, deviation, size, least, radius, sigma, kept = setting
    flakes = enlarged(rng.normal(mean, deviation, x.shape[:2])[..., None], max(1.0, size * scale))
    flakes = np.where(flakes < least, 0, flakes).clip(0, 1)
    flakes = np.floor(255 * streak(flakes, radius * scale, sigma * scale, rng.uniform(-135, -45)) + 0.5) / 255
    grey = x @ (0.299, 0.587, 0.114) if x.shape[2] == 3 else x.mean(2)
    whitened = kept * x + (1 - kept) * np.maximum(x, 1.5 * grey[..., None] + 0.5)
    return whitened + flakes + np.rot90(flakes, 2)[: x.shape[0], : x.shape[1]]


def _frost(x: Picture, setting: tuple[float, float], scale: float, rng: np.random.Generator) -> Picture:
    """Lay frost over the image. The frost is a replacement: the authors crop photographs, which we may not distribute.

    In place of a crop: needles in the mean colour and with the local contrast of one of their five photographs, drawn at
    random; the mean brightness varies from crop to crop by 0.04.
    """
    colour, contrast = ICE[rng.integers(len(ICE))]
    tint = np.array(colour) if x.shape[2] == 3 else np.full(x.shape[2], np.mean(colour))
    ice = (tint + rng.normal(0, 0.04) + contrast * rime((x.shape[0], x.shape[1]), scale, rng)).clip(0, 1)
    return setting[0] * x + setting[1] * ice


def _fog(x: Picture, setting: tuple[float, float], scale: float, rng: np.random.Generator) -> Picture:
    thick, decay = setting
    brightest = max(x.max(), 1 / 255)
    fog = plasma(max(x.shape[:2]), decay, rng)[: x.shape[0], : x.shape[1], None]
    return (x + thick * fog) * brightest / (brightest + thick)


def _brightness(x: Picture, more: float, scale: float, rng: np.random.Generator) -> Picture:
    """Add to the value of HSV, hue and saturation as they are: all channels grow by one factor. Black becomes grey."""
    value = x.max(2, keepdims=True)
    raised = np.minimum(value + more, 1)
    return np.where(value > 0, x * raised / np.where(value > 0, value, 1), raised)


SNOW = Corruption(
    name="snow",
    family="weather",
    about="flakes: mean and deviation of the noise, its size, the smallest visible value, radius and deviation of their motion; share of the image that is not whitened",
    small=(
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    ),
    large=(
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    ),
    change=_snow,
)
FROST = Corruption(
    name="frost",
    family="weather",
    about="this share of the image plus this share of frost",
    small=((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
    large=((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
    change=_frost,
    stand_in="ice needles drawn by a program, in the colours, with the contrast and the spectrum of the authors' photographs of frost",
)
FOG = Corruption(
    name="fog",
    family="weather",
    about="adds a random fractal pattern of this thickness, whose roughness falls by this factor per level",
    small=((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
    large=((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
    change=_fog,
)
BRIGHTNESS = Corruption(
    name="brightness",
    family="weather",
    about="adds this to the value in HSV",
    small=(0.05, 0.1, 0.15, 0.2, 0.3),
    large=(0.1, 0.2, 0.3, 0.4, 0.5),
    change=_brightness,
)
