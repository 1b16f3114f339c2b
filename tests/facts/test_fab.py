"""FAB: what makes it itself."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog, minimize

from normwise.attacks import FAB
from normwise.attacks.fab import shortest_way
from normwise.losses import margin
from normwise.seeding import generator
from normwise.threats import L1, L2, Linf
from normwise.types import Search
from toys import Linear, Neighbours, decided, images, labels, trained


def linear_programme(x, w, gap):
    """The smallest linf length of d with w . d = gap and x + d in [0, 1]; None if there is no such d."""
    n = len(x)
    ones = np.ones((n, 1))
    result = linprog(
        np.r_[np.zeros(n), 1.0],
        A_ub=np.block([[np.eye(n), -ones], [-np.eye(n), -ones]]),
        b_ub=np.zeros(2 * n),
        A_eq=np.r_[w, 0.0][None],
        b_eq=[gap],
        bounds=[*zip(-x, 1 - x, strict=True), (0, None)],
    )
    return result.fun if result.status == 0 else None


def sparse_programme(x, w, gap):
    """The smallest l1 length of d = up - down with w . d = gap and x + d in [0, 1]; None if there is no such d."""
    bounds = [*((0, 1 - pixel) for pixel in x), *((0, pixel) for pixel in x)]
    result = linprog(np.ones(2 * len(x)), A_eq=np.r_[w, -w][None], b_eq=[gap], bounds=bounds)
    return result.fun if result.status == 0 else None


def quadratic_programme(x, w, gap, start):
    """The smallest l2 length of d with w . d = gap and x + d in [0, 1], from a first guess."""
    result = minimize(
        lambda d: d @ d,
        start,
        jac=lambda d: 2 * d,
        bounds=list(zip(-x, 1 - x, strict=True)),
        constraints={"type": "eq", "fun": lambda d: w @ d - gap, "jac": lambda d: w},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    return float(np.sqrt(result.fun)) if result.success else None


@st.composite
def problems(draw):
    n = draw(st.integers(1, 8))
    pixels = st.one_of(st.sampled_from([0.0, 0.5, 1.0]), st.floats(0, 1))
    weights = st.one_of(st.sampled_from([0.0, 1.0, -1.0]), st.floats(-3, 3).map(lambda v: round(v, 3)))
    x = np.array(draw(st.lists(pixels, min_size=n, max_size=n)))
    w = np.array(draw(st.lists(weights, min_size=n, max_size=n)))
    return x, w, draw(st.floats(-1.2, 1.2))


@pytest.mark.parametrize("kind", ["linf", "l2", "l1"])
@settings(max_examples=60, deadline=None, derandomize=True)
@given(problem=problems())
def test_the_way_to_a_plane_is_the_shortest_inside_the_box(kind, problem):
    x, w, share = problem
    most = np.where(w * share > 0, 1 - x, x) @ np.abs(w)  # what can be gained in this direction
    gap = share * most
    d = shortest_way(*(torch.from_numpy(part)[None] for part in (x, w)), torch.tensor([gap], dtype=torch.float64), kind)
    d = d[0].numpy()
    assert ((x + d >= -1e-9) & (x + d <= 1 + 1e-9)).all()
    if abs(share) > 1:  # out of reach: as near as can be
        assert abs(w @ d) == pytest.approx(most, abs=1e-6)
        return
    assert w @ d == pytest.approx(gap, abs=1e-5)
    if kind == "linf":
        shortest = linear_programme(x, w, gap)
        if shortest is not None:
            assert np.abs(d).max() == pytest.approx(shortest, abs=1e-5)
    elif kind == "l1":
        shortest = sparse_programme(x, w, gap)
        if shortest is not None:
            assert np.abs(d).sum() == pytest.approx(shortest, abs=1e-5)
    else:
        shortest = quadratic_programme(x, w, gap, d + 0.0)
        if shortest is not None:
            assert np.linalg.norm(d) <= shortest + 1e-4


def test_rows_do_not_disturb_each_other():
    x, w, gap = torch.rand(50, 30), torch.randn(50, 30), torch.randn(50)
    for kind in ("linf", "l2", "l1"):
        together = shortest_way(x, w, gap, kind)
        alone = torch.cat([shortest_way(x[i : i + 1], w[i : i + 1], gap[i : i + 1], kind) for i in range(50)])
        torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("independent", [True, False], ids=["independent", "whole batch"])
@pytest.mark.parametrize("threat", [Linf, L2])
@pytest.mark.parametrize("shape", [(20,), (4, 5), (2, 4, 4), (2, 3, 3, 3)], ids=len)
def test_the_distance_to_a_linear_boundary_is_found_within_5_percent(threat, shape, independent):
    """|w . x| / |w|_dual where the box does not bind: just above it the row falls, just below it nothing can."""
    model, x = Linear(shape), 0.5 + 0.02 * (images(6, shape) - 0.5)
    model.w.data -= model.w.mean()  # so that the boundary is near
    logit = model(x)[:, 1].detach()
    y = (logit > 0).long()
    dual = (model.w.abs().sum() if threat is Linf else model.w.norm()).detach()
    for row in range(6):
        distance = float(logit[row].abs() / dual)
        for factor, falls in ((1.05, True), (0.99, False)):
            attack, around = FAB(steps=10), threat(eps=factor * distance)
            one = slice(row, row + 1)
            x_adv = attack(
                model, x[one], y[one], around, generator=generator(0), search=Search(independent=independent)
            ).x_adv
            assert bool(margin(model(x_adv), y[one]) > 0) == falls


@pytest.mark.parametrize("kind", ["linf", "l2"])
def test_the_distance_is_found_where_the_box_binds_too(kind):
    model, x = Linear((20,)), images(12, (20,), seed=3)  # many pixels at 0 and 1
    w, logit = model.w.detach().double(), model(x)[:, 1].detach().double()
    y = (logit > 0).long()
    way = shortest_way(x.double(), w.expand(12, -1).contiguous(), -logit, kind)
    length = way.abs().amax(1) if kind == "linf" else way.norm(dim=1)
    for row in range(12):
        threat = (Linf if kind == "linf" else L2)(eps=1.05 * float(length[row]))
        one = slice(row, row + 1)
        x_adv = FAB(steps=20)(model, x[one], y[one], threat, generator=generator(0), search=Search(independent=True)).x_adv
        assert margin(model(x_adv), y[one]) >= 0


def fallen(model, proposal, y):
    return int((model(proposal.x_adv).argmax(1) != y).sum())


@pytest.mark.parametrize("threat", [Linf(eps=0.02), L2(eps=0.15), L1(eps=1)], ids=str)
def test_untargeted_targeted_and_restarted_searches_agree(threat):
    model, x, y = decided()
    counts = [
        fallen(
            model, attack(model, x, y, threat, generator=generator(0), search=Search(independent=True, give_up=give_up)), y
        )
        for give_up in (True, False)
        for attack in (FAB(steps=30), FAB(steps=30, targets=0), FAB(steps=30, restarts=3))
    ]
    assert min(counts) > 0
    assert max(counts) < 40
    assert max(counts) - min(counts) <= 2
    assert counts[0] <= counts[2]
    assert counts[0] <= counts[3]


def test_rows_that_fell_are_not_paid_for_again_and_hopeless_targets_are_left():
    model, x, y = decided()
    whole = FAB(steps=40)(model, x, y, Linf(eps=0.001), generator=generator(0))
    stubborn = FAB(steps=40)(
        model, x, y, Linf(eps=0.001), generator=generator(0), search=Search(independent=True, give_up=False)
    )
    rows = FAB(steps=40)(model, x, y, Linf(eps=0.001), generator=generator(0), search=Search(independent=True))
    assert whole.backwards == 2 * 40 * 40  # two wrong classes
    assert rows.backwards < 0.5 * stubborn.backwards
    assert stubborn.backwards == whole.backwards
    easy = FAB(steps=40)(model, x, y, Linf(eps=0.5), generator=generator(0), search=Search(independent=True))
    assert easy.backwards < 40 * 8
    assert (easy.first_hit > 0).all()


def test_coupled_rows_fall_in_a_batch_that_the_model_saw():
    inner, x, _ = decided()

    class Watched(Neighbours):
        def forward(self, x):
            seen.append(x.detach().clone())
            return super().forward(x)

    seen = []
    model = Watched(inner)
    with torch.no_grad():
        y = model(x).argmax(1)
    proposal = FAB(steps=20)(model, x, y, Linf(eps=0.02), generator=generator(0))
    assert any(torch.equal(one, proposal.x_adv) for one in seen)
    alone = FAB(steps=20)(inner, x, y, Linf(eps=0.02), generator=generator(0), search=Search(independent=True))
    assert fallen(model, proposal, y) >= 0.7 * fallen(inner, alone, y) > 0


def test_a_radius_of_zero_changes_nothing():
    x, y = images(), labels()
    for threat in (Linf(eps=0), L2(eps=0), L1(eps=0)):
        for independent in (True, False):
            proposal = FAB(steps=5)(trained(), x, y, threat, generator=generator(0), search=Search(independent=independent))
            assert torch.equal(proposal.x_adv, x)


@pytest.mark.parametrize(
    "options",
    [{"steps": 0}, {"targets": -1}, {"restarts": 0}, {"alpha_max": 1.5}, {"eta": 0.9}, {"beta": 1.0}],
    ids=str,
)
def test_impossible_options_are_refused(options):
    with pytest.raises(ValueError, match="fab"):
        FAB(**options)


def test_other_geometries_are_refused():
    class Other:
        name = "other"

        def around(self, x, *, generator):
            region = Linf().around(x, generator=generator)
            region.kind = "other"
            return region

    with pytest.raises(ValueError, match="fab needs linf, l2 or l1; got other"):
        FAB()(trained(), images(), labels(), Other(), generator=generator(0))
