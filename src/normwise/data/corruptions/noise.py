"""Noise of the sensor: Gaussian, of photon counts, and of broken pixels."""

from __future__ import annotations

import numpy as np

from .kind import Corruption, Picture


def _gaussian(x: Picture, deviation: float, scale: float, rng: np.random.Generator) -> Picture:
    return x + rng.normal(scale=deviation, size=x.shape)


def _shot(x: Picture, photons: float, scale: float, rng: np.random.Generator) -> Picture:
    return rng.poisson(x * photons) / photons


def _impulse(x: Picture, share: float, scale: float, rng: np.random.Generator) -> Picture:
    struck = rng.random(x.shape) < share  # each channel by itself
    return np.where(struck, rng.integers(0, 2, x.shape), x)


GAUSSIAN_NOISE = Corruption(
    name="gaussian_noise",
    family="noise",
    about="adds noise of this standard deviation",
    small=(0.04, 0.06, 0.08, 0.09, 0.10),
    large=(0.08, 0.12, 0.18, 0.26, 0.38),
    change=_gaussian,
)
SHOT_NOISE = Corruption(
    name="shot_noise",
    family="noise",
    about="noise of counted photons; this many make a white pixel",
    small=(500, 250, 100, 75, 50),
    large=(60, 25, 12, 5, 3),
    change=_shot,
)
IMPULSE_NOISE = Corruption(
    name="impulse_noise",
    family="noise",
    about="sets this share of the values to 0 or 1",
    small=(0.01, 0.02, 0.03, 0.05, 0.07),
    large=(0.03, 0.06, 0.09, 0.17, 0.27),
    change=_impulse,
)
