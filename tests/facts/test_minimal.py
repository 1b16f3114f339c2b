"""The minimal-norm attacks: the distance known on paper, one search for two verbs."""

import pytest
import torch

from normwise.attacks import ATTACKS, CW, DDN
from normwise.attacks.minimal import MinimalNorm
from normwise.losses import margin
from normwise.seeding import generator
from normwise.threats import L2, THREATS, Linf
from normwise.types import Search
from normwise.utils.model_state import digest
from normwise.utils.per_row import l2
from toys import Linear, Neighbours, Watched, decided, images, labels, quick, shortest, trained

SHAPES = [(20,), (4, 5), (2, 4, 4), (2, 3, 3, 3)]
MINIMAL = [attack for attack in ATTACKS.values() if issubclass(attack, MinimalNorm)]
PAIRS = [(attack, THREATS[kind]) for attack in MINIMAL for kind in attack.kinds if kind in ("linf", "l2")]
SURE = CW(steps=80, binary_steps=7, lr=0.08, initial_const=0.3, early_abort=False)  # enough for a linear model
each = pytest.mark.parametrize(("attack", "threat"), PAIRS, ids=lambda part: part.name)


@pytest.mark.parametrize(("rows", "shape"), [(3, shape) for shape in SHAPES] + [(1, SHAPES[2]), (8, SHAPES[2])], ids=str)
@each
def test_the_distance_to_a_linear_boundary_is_found_within_5_percent_of_the_shortest_in_the_box(attack, threat, shape, rows):
    model, x = Linear(shape), images(rows, shape)
    y = (model(x)[:, 1] > 0).long()
    attack = SURE if attack is CW else attack()
    x_adv, distance = attack.distances(model, x, y, threat(), generator=generator(0), search=Search(independent=rows != 3))
    ratio = distance / shortest(model, x, threat.name)
    assert ((ratio > 1 - 1e-4) & (ratio < 1.05)).all()
    assert (margin(model(x_adv), y) >= 0).all()
    assert ((x_adv >= 0) & (x_adv <= 1)).all()


@each
def test_one_search_serves_the_radius_and_the_distance(attack, threat):
    model, x, y = decided()
    attack = CW(steps=40, binary_steps=4, lr=0.05, initial_const=0.1) if attack is CW else attack()
    x_adv, distance = attack.distances(model, x, y, threat(), generator=generator(0), search=Search(independent=True))
    assert torch.isfinite(distance).all()
    assert (model(x_adv).argmax(1) != y).all()
    region = threat().around(x, generator=generator(0))
    torch.testing.assert_close(region.distance(x_adv), distance)
    eps = 1.0001 * float(distance.median())
    proposal = attack(model, x, y, threat(eps=eps), generator=generator(0), search=Search(independent=True))
    fallen = model(proposal.x_adv).argmax(1) != y
    assert fallen[distance <= eps].all()
    assert not fallen[distance > 1.5 * eps].any()
    assert torch.equal(fallen, proposal.first_hit >= 0)
    assert torch.equal(proposal.x_adv[~fallen], x[~fallen])
    assert 0 < fallen.sum() < 40
    wide = attack(model, x, y, threat(eps=1.0), generator=generator(0), search=Search(independent=True))
    if attack.name != "deepfool":  # which ends where a row falls, however far
        assert wide.backwards < proposal.backwards  # rows left earlier
        assert region.distance(wide.x_adv).mean() > distance.mean()


def test_a_point_beyond_the_radius_is_tried_once_more_after_projection():
    """DDN's first misclassified point lies at its first radius, far beyond; clipped to the region it fools as well."""
    model, x = Linear((20,)), images(6, (20,)).clamp(0.4, 0.6)
    y = (model(x)[:, 1] > 0).long()
    eps = 1.5 * float(shortest(model, x, "l2").max())
    proposal = DDN(steps=1, init_norm=3 * eps)(
        model, x, y, L2(eps=eps), generator=generator(0), search=Search(independent=True)
    )
    assert (proposal.first_hit > 0).all()
    torch.testing.assert_close(l2(proposal.x_adv - x), torch.full((6,), eps))


@each
def test_distances_leave_the_model_as_it_was(attack, threat):
    model = trained().train()
    for p in model.parameters():
        p.grad = torch.full_like(p, 7.0)
    before, buffers, state = digest(model), {n: id(b) for n, b in model.named_buffers()}, torch.random.get_rng_state()
    with torch.inference_mode():
        quick(attack).distances(model, images(), labels(), threat(), generator=generator(0))
    assert digest(model) == before
    assert {n: id(b) for n, b in model.named_buffers()} == buffers
    assert all((p.grad == 7).all() for p in model.parameters())
    assert model.training
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("independent", [True, False], ids=["independent", "whole batch"])
@each
def test_clean_images_are_exact(attack, threat, independent):
    """Where nothing can be found, where a row is wrong already, and at radius 0."""

    class Stubborn(Linear):
        def forward(self, x):
            return 0 * super().forward(x) + torch.tensor([1.0, 0.0])

    x, y, short = images(5), torch.tensor([0, 1, 0, 1, 0]), quick(attack)
    kept, distance = short.distances(
        Stubborn(x[0].shape), x, y, threat(), generator=generator(0), search=Search(independent=independent)
    )
    assert distance.tolist() == [torch.inf, 0, torch.inf, 0, torch.inf]
    assert torch.equal(kept, x)
    proposal = short(trained(), x, y, threat(eps=0.0), generator=generator(0), search=Search(independent=independent))
    assert torch.equal(proposal.x_adv, x)
    none, empty = short.distances(Stubborn(x[0].shape), x[:0], y[:0], threat(), generator=generator(0))
    assert none.shape == x[:0].shape
    assert empty.shape == (0,)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
@each
def test_any_precision(attack, threat, dtype):
    model, x = Linear((20,)).to(dtype), images(8, (20,)).to(dtype)
    y = model(x).argmax(1)
    attack = CW(steps=100, binary_steps=4, lr=0.1, initial_const=1.0) if attack is CW else attack()
    x_adv, distance = attack.distances(model, x, y, threat(), generator=generator(0), search=Search(independent=True))
    assert x_adv.dtype == distance.dtype == dtype
    assert torch.isfinite(distance).all()
    assert (model(x_adv).argmax(1) != y).all()


@each
def test_coupled_rows_fall_in_a_batch_that_the_model_saw(attack, threat):
    inner, x, _ = decided()
    model = Watched(Neighbours(inner))
    with torch.no_grad():
        y = model(x).argmax(1)
    around = threat(eps=0.02 if threat is Linf else 0.15)
    attack = CW(steps=30, binary_steps=3, lr=0.05, initial_const=1.0) if attack is CW else attack()
    x_adv = attack(model, x, y, around, generator=generator(0)).x_adv
    assert any(torch.equal(one, x_adv) for one in model.asked)
    assert all(len(one) == 40 for one in model.asked)
    alone = attack(inner, x, y, around, generator=generator(0), search=Search(independent=True)).x_adv
    fallen = int((model(x_adv).argmax(1) != y).sum())
    assert fallen >= 0.7 * int((inner(alone).argmax(1) != y).sum()) > 0


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("cw", {"steps": 0}),
        ("cw", {"binary_steps": 0}),
        ("cw", {"lr": 0.0}),
        ("cw", {"initial_const": float("inf")}),
        ("cw", {"confidence": -1.0}),
        ("ddn", {"gamma": 1.0}),
        ("ddn", {"init_norm": 0.0}),
        ("fmn", {"alpha": -1.0}),
        ("fmn", {"gamma_last": 1.5}),
        ("deepfool", {"overshoot": -0.1}),
        ("deepfool", {"targets": -1}),
    ],
    ids=str,
)
def test_impossible_options_are_refused(name, options):
    with pytest.raises(ValueError, match=f"of {name} is"):
        ATTACKS.make({"name": name, **options})


@pytest.mark.parametrize("attack", MINIMAL, ids=lambda attack: attack.name)
def test_distances_refuse_other_geometries(attack):
    class Other:
        name = "other"

        def around(self, x, *, generator):
            region = Linf().around(x, generator=generator)
            region.kind = "other"
            return region

    with pytest.raises(ValueError, match=rf"{attack.name} needs .*{attack.kinds[-1]}; got other"):
        attack().distances(trained(), images(), labels(), Other(), generator=generator(0))
