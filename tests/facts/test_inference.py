"""Estimates over seeds and rows: known values, coverage, corrections for many claims and several looks."""

import numpy as np
import pytest

from normwise.experiments.papers.inference import LEVEL, Sample, detectable, estimate, holm, spent


def sample(differences):
    """Differences [seeds, rows] as a sample of one arm."""
    return Sample("", np.asarray(differences, float)[None], lambda means: means[0])


@pytest.mark.parametrize(("values", "quantile"), [([0.1, 0.2, 0.4], 4.303), ([0.1, 0.2, 0.4] * 4, 2.201)])
def test_one_number_per_seed_has_an_interval_of_students_t(values, quantile):
    found = estimate(sample([[value] for value in values]))
    low, high = found.interval()
    half = quantile * np.std(values, ddof=1) / np.sqrt(len(values))
    assert (found.value, high - found.value) == (pytest.approx(np.mean(values)), pytest.approx(half, rel=1e-3))
    assert found.value - low == pytest.approx(high - found.value)
    assert (found.p(low), found.p(high)) == (pytest.approx(LEVEL), pytest.approx(LEVEL))


def test_one_seed_has_the_interval_of_its_rows_and_one_number_none():
    rng = np.random.default_rng(0)
    rows = rng.normal(0.1, 1, (1, 2000))
    low, high = estimate(sample(rows)).interval()
    assert (high - low) / 2 == pytest.approx(1.96 * rows.std() / np.sqrt(2000), rel=0.1)
    assert estimate(sample([[5.0]])).interval() is None


@pytest.mark.parametrize(
    ("seeds", "sd"), [(3, (0.02, 0.5, 0.2)), (5, (0.03, 0.1, 0.4)), (8, (0.02, 0.1, 0.0)), (3, (0.0, 0.3, 0.3))]
)
def test_an_interval_holds_the_truth_about_as_often_as_it_says(seeds, sd):
    rng, held = np.random.default_rng(0), 0
    for _ in range(200):
        parts = rng.normal(0, sd[0], (seeds, 1)), rng.normal(0, sd[1], (1, 200)), rng.normal(0, sd[2], (seeds, 200))
        held += estimate(sample(0.1 + sum(parts))).p(0.1) >= LEVEL
    assert held >= 184  # 95% of 200 is 190, less two deviations


def test_a_search_within_the_figure_is_made_anew_in_each_resample():
    """A figure that depends on the rows twice varies by both: the difference of two arms, squared here."""
    rng = np.random.default_rng(1)
    arms = rng.normal([[[0.5]], [[0.1]]], 1.0, (2, 4, 400))
    whole = estimate(Sample("", arms, lambda means: (means[0] - means[1]) ** 2))
    fixed = estimate(Sample("", (arms[0] - arms[1])[None], lambda means: means[0]))
    slope = 2 * fixed.value  # of the square, at the estimate
    assert whole.draws.std() == pytest.approx(abs(slope) * fixed.draws.std(), rel=0.2)


def test_a_wider_interval_is_asked_more_and_more_seeds_narrow_it():
    rng = np.random.default_rng(2)
    rows = rng.normal(0.1, 0.3, (8, 300)) + rng.normal(0, 0.05, (8, 1))
    widths = [np.ptp(estimate(sample(rows)).interval(level)) for level in (0.2, 0.05, 0.01, 0.001)]
    assert widths == sorted(widths)
    assert np.ptp(estimate(sample(rows)).interval()) < np.ptp(estimate(sample(rows[:3])).interval())
    found = estimate(sample(rows))
    assert [found.p(x) for x in (0.1, 0.2, 0.4)] == sorted((found.p(x) for x in (0.1, 0.2, 0.4)), reverse=True)


def test_holm_is_known_on_four_values_and_never_below_what_it_corrects():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    ps = np.random.default_rng(3).random(20).tolist()
    adjusted = holm(ps)
    assert all(p <= q <= min(1, 20 * p) for p, q in zip(ps, adjusted, strict=True))
    assert sorted(adjusted) == [adjusted[place] for place in np.argsort(ps)]


def test_of_true_hypotheses_the_family_refutes_any_as_seldom_as_one():
    rng = np.random.default_rng(4)
    wrong = sum(min(holm(rng.random(18).tolist())) < 0.05 for _ in range(400))
    assert wrong <= 400 * 0.05 + 2 * np.sqrt(400 * 0.05 * 0.95)


def test_looks_share_the_level_and_only_planned_ones_have_any():
    assert sum(spent((3, 5, 8), look) for look in (3, 5, 8)) == pytest.approx(LEVEL)
    assert spent((3,), 3) == pytest.approx(LEVEL)
    with pytest.raises(ValueError, match="no look is planned at 4 seeds; planned: 3, 5"):
        spent((3, 5), 4)


def test_what_is_detectable_is_found_as_often_as_was_said():
    effect = detectable((0.02, 0.4), 5, 500, 0.05)
    rng, found = np.random.default_rng(5), 0
    for _ in range(200):
        rows = effect + rng.normal(0, 0.02, (5, 1)) + rng.normal(0, 0.4, (1, 500))
        found += estimate(sample(rows)).p(0) < 0.05
    assert 150 <= found <= 180  # 80% of 200, and a little more: the two parts add up
    assert detectable((0.02, 0.4), 8, 500, 0.05) < effect < detectable((0.02, 0.4), 5, 500, 0.001)
    with pytest.raises(ValueError, match="1 seeds say nothing"):
        detectable((0.02, 0.4), 1, 500, 0.05)


def test_seeds_that_differ_by_rounding_alone_do_not_spread():
    found = estimate(Sample("", np.array([[[1.8], [1.8 + 2e-16], [1.8 - 2e-16]]]), lambda means: means[0]))
    assert found.spread == 0
    assert (found.p(1.0), found.interval()) == (0.0, (found.value, found.value))
