"""Recipes: losses as in the papers, streams, images that leave the ball in training alone, the sentinel of one step."""

import json

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from normwise.attacks import PGD
from normwise.data.augment import chains, colour_distortion
from normwise.evaluation import sanity_checks
from normwise.models import NFResNet
from normwise.models.abnn import Adaptive, abnn
from normwise.norms import MBN, NoNorm, on_route
from normwise.norms.surgery.folding import fold
from normwise.seeding import generator
from normwise.threats import L2, Linf
from normwise.training.loop import fit
from normwise.training.options import FitOptions
from normwise.training.recipes import FGSMRS, NFGSM, RECIPES, TRADES, Mixed, NoFrost, NoFrostStar, Routes, Standard, crafting
from normwise.training.recipes.trades import Diverge
from normwise.training.schedule import Schedule
from normwise.training.validation import overfitted
from normwise.utils.model_state import digest
from toys import Linear, Stripes, Watched, images, labels, trained

THREAT, X, Y = Linf(eps=0.1), images(16), labels(16)


def watched(recipe, model, threat=THREAT):
    """One training step in eval mode (no dropout): the cost, and the batches of the training forwards, which come last."""
    model = Watched(model)
    return recipe.loss(model, X, Y, threat, generator=generator(0)), model.asked


@pytest.mark.parametrize("batches", ["separate", "concatenated"])
def test_the_mixture_is_its_formula(batches):
    model = trained()
    cost, asked = watched(Mixed(lam=0.3, batches=batches), model)
    clean, adversarial = asked[-2:] if batches == "separate" else asked[-1].split(16)
    assert torch.equal(clean, X)
    assert (adversarial - X).abs().amax() <= 0.1 + 1e-6
    ce = [F.cross_entropy(model(x), Y, label_smoothing=0.1) for x in (clean, adversarial)]
    torch.testing.assert_close(cost.loss, 0.7 * ce[0] + 0.3 * ce[1])
    torch.testing.assert_close(cost.logits, model(adversarial).detach())


def test_nofrost_is_the_same_loss_for_networks_without_norms():
    model = trained(NoNorm())
    ours = NoFrost(lam=0.3).loss(model, X, Y, THREAT, generator=generator(0))
    same = Mixed(lam=0.3).loss(model, X, Y, THREAT, generator=generator(0))
    assert torch.equal(ours.loss, same.loss)
    network = NFResNet(depth=8, width=4)(classes=3, mean=(0.5,) * 2, std=(0.5,) * 2)
    assert NoFrost().prepare(network) is not network


@pytest.mark.parametrize(
    ("model", "path"),
    [
        (nn.Sequential(nn.Flatten(), nn.RMSNorm(72), nn.Linear(72, 3)), "1"),
        (nn.Sequential(nn.LocalResponseNorm(2), nn.Flatten(), nn.Linear(72, 3)), "0"),
        (
            abnn(trained(NoNorm()), trained(NoNorm()), Adaptive(source="statistics", taps=("conv2",)), shape=(2, 6, 6)),
            "adaptive.0",
        ),
    ],
    ids=["root mean square", "local response", "delivered statistics"],
)
def test_nofrost_refuses_whatever_normalizes(model, path):
    for recipe in (NoFrost(), NoFrostStar()):
        with pytest.raises(ValueError, match=rf"networks that normalize nothing; this one has 1 norms \({path}, "):
            recipe.prepare(model)


def test_the_attack_of_a_mixture_raises_the_loss_without_smoothing():
    """In a ball so small that the model is linear there, one step of one radius goes along the sign of that gradient."""
    model, x = trained().double(), (0.1 + 0.8 * images(16)).double()
    crafted = Mixed(steps=8, relative_step=1.0).craft(model, x, Y, Linf(eps=1e-5), generator(0)).x_adv
    leaf = x.clone().requires_grad_()
    grad = torch.autograd.grad(F.cross_entropy(model(leaf), Y, reduction="sum"), leaf)[0]
    agrees = (crafted - x).sign() == grad.sign()
    assert agrees.double().mean() > 0.99


@pytest.mark.parametrize(
    ("threat", "steps", "expected"),
    [(Linf(eps=8 / 255), 10, 0.125), (Linf(eps=8 / 255), 20, 0.0625), (Linf(eps=32 / 255), 10, 0.1125), (L2(), 5, 0.25)],
)
def test_steps_are_as_long_as_in_the_authors_code(threat, steps, expected):
    assert Mixed(steps=steps).attack(threat).relative_step == pytest.approx(expected)


def test_nofrost_star_is_the_mean_over_clean_streams_and_adversarial_images():
    model = trained(NoNorm())
    cost, asked = watched(NoFrostStar(steps=2), model)
    clean, *streams, adversarial = asked[-4:]
    assert torch.equal(clean, X)
    assert all(not torch.equal(stream, X) for stream in streams)
    assert (adversarial - X).abs().amax() <= 0.1 + 1e-6
    terms = [F.cross_entropy(model(x), Y, label_smoothing=0.1) for x in asked[-4:]]
    torch.testing.assert_close(cost.loss, sum(terms) / 4)


def test_trades_is_its_formula_and_its_attack_raises_the_divergence():
    model = trained()

    def divergence(x_adv):
        p, q = model(X).softmax(1), model(x_adv).softmax(1)
        return (p * (p / q).log()).sum(1).mean()

    cost, asked = watched(TRADES(beta=2.0), model)
    torch.testing.assert_close(cost.loss, F.cross_entropy(model(X), Y) + 2 * divergence(asked[-1]))
    assert (asked[1] - X).abs().amax() < 0.006  # begins at 0.001 times a normal draw
    assert divergence(asked[-1]) > 1.5 * divergence(THREAT.around(X, generator=generator(1)).start())
    got = torch.autograd.grad(cost.loss, list(model.parameters()))  # gradients go through the clean images too
    loss = F.cross_entropy(model(X), Y) + 2 * divergence(asked[-1])
    for ours, theirs in zip(got, torch.autograd.grad(loss, list(model.parameters())), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    assert Diverge(steps=2)(model, X, Y, THREAT, generator=generator(0)).backwards == 2 * 16


def test_one_step_recipes_take_the_steps_of_their_papers():
    """On a linear model the step is known: x + u, then relative_step * eps along the sign of w, up for class 0."""
    model, x = Linear((2, 6, 6)), torch.full((64, 2, 6, 6), 0.5)
    y = torch.zeros(64, dtype=torch.long)
    way = model.w.detach().sign()
    threat = Linf(eps=0.1)
    shift = FGSMRS().attack()(model, x, y, threat, generator=generator(0)).x_adv - x
    assert shift.abs().amax() <= 0.1 + 1e-6
    assert shift.mul(way).amin() == pytest.approx(0.025, abs=1e-3)  # from -0.1: a step of 0.125
    shift = (NFGSM().attack()(model, x, y, threat, generator=generator(0)).x_adv - x) * way
    assert shift.amax() == pytest.approx(0.3, abs=1e-3)  # beyond the ball
    assert shift.amin() == pytest.approx(-0.1, abs=1e-3)
    edges = NFGSM().attack()(model, torch.ones_like(x), y, threat, generator=generator(0)).x_adv
    assert edges.amax() <= 1
    with pytest.raises(ValueError, match="n-fgsm needs linf; got l2"):
        NFGSM().attack()(model, x, y, L2(), generator=generator(0))


def test_of_a_mixture_the_adversarial_route_chooses_the_checkpoint():
    def fitted(model, recipe, lr=1e-9):
        schedule = Schedule(epochs=3, batch_size=16, lr=lr)
        return fit(model, Stripes(validation_size=24), recipe, THREAT, schedule, seed=0)

    def score(model, recipe):
        return fitted(model, recipe).training.validation

    model = fitted(trained(MBN()), Standard(), lr=0.05).model  # the clean route alone has learned
    for route in (0, 1):
        assert score(on_route(model, route), Routes(steps=1)) == score(model, Routes(steps=1))
    other, same = (score(on_route(model, route), Standard())["clean"] for route in (0, 1))
    assert score(model, Routes(steps=1))["clean"] == same < other


def test_crafting_in_train_mode_lets_the_norm_read_the_batch():
    seen = []

    class Spy(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = trained()

        def forward(self, x):
            seen.append(self.inner.norm.training)
            return self.inner(x)

    for name in ("mixed", "trades", "fgsm-rs", "n-fgsm"):
        for mode in ("eval", "train"):
            seen.clear()
            RECIPES[name](craft_in=mode).loss(Spy().train(), X, Y, THREAT, generator=generator(0))
            assert seen[0] == (mode == "train")
            assert seen[-1]


@pytest.mark.parametrize(
    "attack", [PGD(steps=5, keep="last"), Diverge(steps=5), NFGSM().attack()], ids=lambda attack: attack.name
)
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_a_folded_copy_is_attacked_as_the_model_would_be(attack, mode, monkeypatch):
    made, model, x = [], trained().double().train(), X.double()
    before = digest(model)

    def folded(one):
        made.append(fold(one))
        return made[-1]

    def crafted():
        return crafting.craft(attack, model, x, Y, THREAT, mode, generator=generator(0))

    expected = crafted()
    monkeypatch.setattr(crafting, "FOLDS", 0)
    monkeypatch.setattr(crafting, "fold", folded)
    got = crafted()
    torch.testing.assert_close(got.x_adv, expected.x_adv)
    assert (got.forwards, got.backwards) == (expected.forwards, expected.backwards)
    assert [type(one.norm) for one in made] == [nn.Identity] * (mode == "eval")
    assert model.training
    assert digest(model) == before
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


@pytest.mark.parametrize("change", [colour_distortion, chains])
@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 8, 8), (3, 4, 8, 8)], ids=str)
def test_streams_stay_in_the_box_repeat_with_the_generator_and_leave_the_global_state(change, shape):
    x, state = torch.rand(400, *shape, generator=generator(0)), torch.random.get_rng_state()
    before = x.clone()
    one = change(x, generator(1))
    assert torch.equal(one, change(x, generator(1)))
    assert not torch.equal(one, change(x, generator(2)))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(x, before)
    assert one.shape == x.shape
    assert one.amin() >= 0
    assert one.amax() <= 1
    assert torch.isfinite(one).all()


def test_colours_are_distorted_in_their_share_of_rows():
    x = 0.2 + 0.6 * torch.rand(4000, 3, 2, 2, generator=generator(0))
    y = colour_distortion(x, generator(1))
    changed = (y != x).flatten(1).any(1).double().mean()
    assert changed == pytest.approx(0.5 * (1 - 0.2 * 0.8), abs=0.03)  # half, less those neither jittered nor greyed
    grey = (y.amax(1) - y.amin(1) < 1e-6).flatten(1).all(1).double().mean()
    assert grey == pytest.approx(0.1, abs=0.02)
    assert torch.equal(colour_distortion(x, generator(1), share=0.0), x)


class Masked(nn.Module):
    """Withstands one step and no more: pixels decide by a wave that a step of 0.1 leaps over, and a short one does not."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        thirds = torch.stack([x[:, :, 2 * k : 2 * k + 2].mean((1, 2, 3)) for k in range(3)], 1)
        wave = torch.sin(2 * torch.pi * x / 0.1).sum(1)
        return self.scale * (5 * thirds + torch.stack([wave[:, 2 * k : 2 * k + 2].mean((1, 2)) for k in range(3)], 1) * 3)


def test_a_planted_model_that_withstands_one_step_alone_triggers_the_sentinel(tmp_path):
    quick = Schedule(epochs=2, batch_size=16, lr=1e-6, decay="constant")
    said = []
    fitted = fit(
        Masked(),
        Stripes(validation_size=48),
        FGSMRS(),
        THREAT,
        quick,
        seed=0,
        options=FitOptions(folder=tmp_path, report=lambda t, *_: said.append(t)),
    )
    line = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[0])
    assert line["validation_one_step"] > 0.8
    assert line["validation_robust"] < 0.4
    assert fitted.training.overfitted_epoch == 1
    assert any("overfitted to one step" in text for text in said)
    (check,) = sanity_checks.of_training(fitted.training)
    assert check.status == "warn"
    assert "first in epoch 1 of 2" in check.measured


def test_a_sound_model_does_not_trigger_it_and_other_recipes_do_not_look():
    schedule = Schedule(epochs=3, batch_size=16, lr=0.05)
    sound = fit(trained(), Stripes(validation_size=24), FGSMRS(), THREAT, schedule, seed=0).training
    assert sound.overfitted_epoch == 0
    assert sanity_checks.of_training(sound)[0].status == "pass"
    other = fit(trained(), Stripes(validation_size=24), TRADES(steps=1), THREAT, schedule, seed=0).training
    assert set(other.validation) == {"clean", "robust"}
    assert not sanity_checks.of_training(other)
    for one, many, raised in ((0.15, 0.06, False), (0.6, 0.31, False), (0.6, 0.29, True), (0.3, 0.1, False)):
        assert overfitted({"clean": 0.8 if one > 0.2 else 0.2, "one_step": one, "robust": many}) == raised


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mixed", {"lam": 1.0}),
        ("nofrost", {"lam": 0.0}),
        ("mixed", {"steps": -1}),
        ("mixed", {"relative_step": 0.0}),
        ("nofrost-star", {"streams": ()}),
        ("trades", {"beta": -1.0}),
        ("trades", {"steps": 0}),
        ("fgsm-rs", {"relative_step": 0.0}),
        ("n-fgsm", {"k": 0.0}),
        ("mixed", {"label_smoothing": 1.0}),
    ],
)
def test_impossible_options_are_refused(name, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        RECIPES.make({"name": name, **options})
