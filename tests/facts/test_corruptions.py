"""The fifteen corruptions: what all of them promise, and the published numbers of each."""

from __future__ import annotations

import colorsys
import io
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from normwise.data import CORRUPTIONS, Digits
from normwise.data.corruptions import blur, corrupted
from normwise.data.corruptions.rows import strip
from normwise.data.corruptions.weather import plasma, rime
from normwise.seeding import generator
from normwise.types import Batch
from toys import images

RANDOM = {
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "glass_blur",
    "motion_blur",
    "snow",
    "frost",
    "fog",
    "elastic_transform",
}
RISING = set(CORRUPTIONS) - {"glass_blur", "motion_blur", "frost", "elastic_transform"}  # published settings that only grow


def natural(rows: int = 4, shape: tuple[int, int, int] = (3, 32, 32)) -> torch.Tensor:
    """Smooth pictures with edges, of whole 1/255: more like photographs than noise is."""
    rng = np.random.default_rng(0)
    side = max(shape[1:])
    made = [[plasma(side, 1.6, rng)[: shape[1], : shape[2]] for _ in range(shape[0])] for _ in range(rows)]
    x = torch.tensor(np.array(made), dtype=torch.float32)
    for row in range(rows):  # a darker or brighter band at a place of its own
        x[row, :, 3 + 2 * row : 11 + 3 * row] = 1 - x[row, :, 3 + 2 * row : 11 + 3 * row]
    return (255 * x).round() / 255


def changed(name: str, severity: int, x: torch.Tensor, seed: int = 0) -> torch.Tensor:
    return CORRUPTIONS[name](x, severity, generator=generator(seed))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_every_kind_keeps_what_all_promise(name):
    for shape in ((1, 8, 8), (1, 28, 28), (3, 32, 32), (2, 6, 6), (3, 40, 64), (3, 96, 96)):
        x = images(2, shape)
        before, state = x.clone(), torch.random.get_rng_state()
        made = changed(name, 3, x)
        assert made.shape == x.shape
        assert made.dtype == torch.float32
        assert made.is_contiguous()
        assert made.min() >= 0
        assert made.max() <= 1
        assert torch.equal((255 * made).round() / 255, made), "whole 1/255, as files hold"
        assert not torch.equal(made, (255 * x).floor() / 255)
        assert torch.equal(x, before)
        assert torch.equal(torch.random.get_rng_state(), state)
        assert torch.equal(made, changed(name, 3, x))
        assert torch.equal(made, changed(name, 3, x, seed=1)) == (name not in RANDOM)


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("source", ["digits", "natural"])
def test_severity_grows(name, source):
    x = Digits().test(batch_size=30)[0].x if source == "digits" else natural()
    steps = [float((changed(name, severity, x) - x).abs().mean()) for severity in range(1, 6)]
    if name in RISING and not (source == "digits" and name == "pixelate"):  # shares of 8 pixels round to the same
        assert steps == sorted(steps)
    if name != "elastic_transform":  # its three points move less and less, as published
        assert steps[4] > steps[0]


def test_a_batch_is_its_rows_whatever_batch_they_are_in():
    x, y, ids = natural(4), torch.zeros(4, dtype=torch.long), torch.tensor([5, 2, 9, 7])
    whole = corrupted(Batch(x, y, ids), CORRUPTIONS["fog"], 2, seed=3)
    part = corrupted(Batch(x[2:3], y[2:3], ids[2:3]), CORRUPTIONS["fog"], 2, seed=3)
    assert torch.equal(whole.x[2:3], part.x)
    assert not torch.equal(whole.x[0], whole.x[1])


@pytest.mark.parametrize(
    ("x", "severity", "said"),
    [
        (images(1, (3, 4, 32, 32)), 1, "single frames"),
        (images(1, (3, 3, 9)), 1, "4 pixels a side"),
        (images(1, (3, 8, 8)), 6, "from 1 to 5; got 6"),
        (images(1, (3, 8, 8)), 0, "from 1 to 5; got 0"),
    ],
)
def test_what_cannot_be_corrupted_is_refused(x, severity, said):
    with pytest.raises(ValueError, match=said):
        changed("fog", severity, x)


def test_settings_follow_the_size_of_the_image():
    one = CORRUPTIONS["motion_blur"]
    assert [one.at(side, 1) for side in (8, 32, 64)] == [((6, 1), 1), ((6, 1), 1), ((6, 1), 2)]
    assert [one.at(side, 1) for side in (112, 224)] == [((10, 3), 0.5), ((10, 3), 1)]


def test_the_table_in_the_docs_holds_the_settings():
    text = (Path(__file__).parents[2] / "docs/reference/shifts.md").read_text()
    for name, one in CORRUPTIONS.items():
        row = re.search(rf"^\| `{name}` \|.*$", text, re.M)
        assert row, name
        for column in (one.small, one.large):
            listed = "; ".join(" ".join(f"{v:.4g}" for v in (s if isinstance(s, tuple) else (s,))) for s in column)
            assert listed in row[0], f"{name}: {listed}"


# What makes each kind itself: known values.


@pytest.mark.parametrize(("severity", "deviation"), [(1, 0.04), (3, 0.08), (5, 0.10)])
def test_gaussian_noise_has_the_published_deviation(severity, deviation):
    x = torch.full((4, 3, 64, 64), 128 / 255)
    noise = changed("gaussian_noise", severity, x) - x + 0.5 / 255  # cut down: half a step too dark
    assert float(noise.std()) == pytest.approx(deviation, rel=0.03)
    assert abs(float(noise.mean())) < 0.001


def test_shot_noise_counts_photons():
    x = torch.full((4, 3, 64, 64), 51 / 255)
    made = changed("shot_noise", 5, x)
    assert float(made.var()) == pytest.approx(0.2 / 50, rel=0.05)  # of a Poisson count, mean 0.2 * 50, over 50
    assert set((made * 255).round().unique().tolist()) <= {float(np.floor(255 * k / 50 + 1e-6)) for k in range(60)}


def test_impulse_noise_strikes_its_share_half_white_half_black():
    x = torch.full((4, 3, 64, 64), 0.4)
    made = changed("impulse_noise", 5, x)
    white, black = float((made == 1).float().mean()), float((made == 0).float().mean())
    assert white + black == pytest.approx(0.07, rel=0.06)
    assert white == pytest.approx(black, rel=0.15)


@settings(max_examples=20, deadline=None)
@given(radius=st.floats(0.3, 12), soften=st.floats(0.1, 2), angle=st.floats(-180, 180), sigma=st.floats(0.5, 15))
def test_blurs_keep_the_light(radius, soften, angle, sigma):
    kernel = blur.disc(radius, soften)
    assert kernel.sum() == pytest.approx(1)
    assert np.allclose(kernel, kernel.T)
    assert np.allclose(kernel, kernel[::-1])
    dot = np.zeros((61, 61, 1))
    dot[30, 30] = 1
    smeared = blur.streak(dot, min(radius, 12), sigma, angle)
    assert smeared.sum() == pytest.approx(1)
    assert np.allclose(blur.streak(np.full((9, 7, 2), 0.3), radius, sigma, angle), 0.3)


def test_a_disc_of_radius_three_is_a_disc_and_a_streak_is_a_line():
    kernel = blur.disc(3, 0.1)
    assert np.isclose(kernel, 1 / 29).sum() == 29  # the pixels within 3 of the middle
    dot = np.zeros((41, 41, 1))
    dot[20, 20] = 1
    smeared = blur.streak(dot, 3, 2.0, 0.0)[..., 0]
    weights = np.exp(-(np.arange(7) ** 2) / 8)
    assert np.allclose(smeared[20, 14:21][::-1], weights / weights.sum())
    assert np.isclose(smeared[20].sum(), 1)


def test_glass_takes_pixels_from_near_and_leaves_the_border():
    x = (torch.arange(32 * 32).view(1, 1, 32, 32) % 251) / 255
    made = changed("glass_blur", 1, x)  # its blur is of a twentieth of a pixel: none
    assert torch.equal(made[..., :2, :], x[..., :2, :])
    assert torch.equal(made[..., :, 0], x[..., :, 0])
    assert set(made.unique().tolist()) <= set(x.unique().tolist())
    assert not torch.equal(made, x)


def test_zoom_blur_is_the_mean_of_zooms_of_the_middle():
    x = torch.zeros(1, 1, 32, 32)
    x[..., 14:18, 14:18] = 1
    made = changed("zoom_blur", 5, x)
    assert made[0, 0, 16, 16] == 1
    assert made[..., :4, :].max() == 0
    assert 0 < made[0, 0, 16, 18] < 1
    assert len(np.arange(1, *CORRUPTIONS["zoom_blur"].small[0])) == 7  # 1.06 is reached in floating point, as published


def test_brightness_adds_to_the_value_of_hsv():
    x = natural(1, (3, 8, 8))
    made = changed("brightness", 4, x)
    for before, after in zip(x[0].flatten(1).T.tolist(), made[0].flatten(1).T.tolist(), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*before)
        assert after == pytest.approx(colorsys.hsv_to_rgb(hue, saturation, min(value + 0.2, 1)), abs=1.1 / 255)
    assert torch.allclose(changed("brightness", 4, torch.zeros(1, 3, 8, 8)), torch.tensor(51 / 255))


def test_contrast_keeps_a_share_of_the_distance_from_the_mean():
    x = natural(2)
    mean = x.mean((2, 3), keepdim=True)
    assert torch.allclose(changed("contrast", 5, x), 0.15 * (x - mean) + mean, atol=1.01 / 255)


def test_fog_adds_a_landscape_and_keeps_the_brightest_in_range():
    x = torch.full((1, 3, 32, 32), 200 / 255)
    made = changed("fog", 3, x)[0]
    assert torch.equal(made[0], made[1])
    assert made.max() == pytest.approx(200 / 255, abs=1.01 / 255)
    assert made.min() == pytest.approx((200 / 255) ** 2 / (200 / 255 + 0.75), abs=1.01 / 255)
    land = plasma(32, 2.0, np.random.default_rng(0))
    assert land.shape == (32, 32)
    assert land.min() == 0
    assert land.max() == 1
    rough = [np.abs(np.diff(plasma(64, decay, np.random.default_rng(0)))).mean() for decay in (1.2, 2, 3)]
    assert rough == sorted(rough, reverse=True)


def test_frost_is_a_share_of_the_image_and_ice_of_the_right_colour():
    x = torch.zeros(200, 3, 8, 8)
    made = changed("frost", 5, x) / 0.45  # the ice alone
    assert made.mean((0, 2, 3)).tolist() == pytest.approx([0.572, 0.676, 0.722], abs=0.03)  # mean of the five photographs
    ice = rime((32, 32), 1.0, np.random.default_rng(0))
    assert ice.mean() == pytest.approx(0, abs=1e-9)
    assert ice.std() == pytest.approx(1)
    assert CORRUPTIONS["frost"].stand_in
    assert not any(one.stand_in for one in CORRUPTIONS.values() if one.name != "frost")


def test_snow_brightens_and_whitens():
    x = natural(4)
    made = changed("snow", 5, x)
    assert float((made - x).min()) >= -1.01 / 255
    assert float((made - x).mean()) > 0.1
    assert float(made.std(1).mean()) < float(x.std(1).mean())  # less colour


def test_elastic_moves_and_makes_no_new_brightness():
    flat = torch.full((1, 3, 32, 32), 77 / 255)
    assert torch.equal(changed("elastic_transform", 3, flat), flat)
    x = torch.zeros(1, 1, 64, 64)
    x[..., 30:34, 30:34] = 1
    centre = [(changed("elastic_transform", 1, x, seed)[0, 0] * torch.arange(64)).sum() for seed in range(3)]
    assert len({round(float(one), 1) for one in centre}) == 3


def test_pixelate_makes_blocks_of_equal_pixels_with_the_mean_of_what_was_there():
    x = natural(1, (3, 224, 224))
    made = changed("pixelate", 2, x)  # half the side: blocks of two pixels
    blocks = made.unfold(2, 2, 2).unfold(3, 2, 2).flatten(4)
    assert float((blocks.amax(-1) - blocks.amin(-1)).max()) == 0
    assert torch.allclose(blocks[..., 0], torch.nn.functional.avg_pool2d(x, 2), atol=1.01 / 255)


def test_jpeg_is_pillows_of_the_published_quality():
    x = natural(1)
    file = io.BytesIO()
    Image.fromarray((255 * x[0]).round().byte().movedim(0, -1).numpy()).save(file, "JPEG", quality=40)
    want = torch.from_numpy(np.asarray(Image.open(file)).copy()).movedim(-1, 0) / 255
    assert torch.allclose(changed("jpeg_compression", 5, x)[0], want)


def test_a_strip_holds_its_columns_side_by_side():
    shown = Image.open(io.BytesIO(strip([torch.zeros(2, 1, 8, 8), torch.ones(2, 1, 8, 8)])))
    pixels = np.asarray(shown)
    assert pixels.shape == (128, 128, 3)
    assert pixels[:, :64].max() == 0
    assert pixels[:, 64:].min() == 255
