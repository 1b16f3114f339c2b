"""Attacks with patches, frames and few pixels, where the right result is known."""

import pytest
import torch

from normwise.attacks import APGD, ATTACKS, LOAP, PGD, ROA, PatchAttack, SigmaZero, SparseRS, Square, worst_case
from normwise.cli.defaults import for_evaluate
from normwise.data import Digits
from normwise.evaluation.blind import beyond_gradients
from normwise.evaluation.evaluator import evaluate
from normwise.evaluation.plan import AttackPlan, planned
from normwise.experiments.evaluation_run import Evaluate
from normwise.losses import margin
from normwise.seeding import generator
from normwise.threats import SPA, Frame, Linf, Patch
from normwise.threats.multav import MultAV
from normwise.types import Batch, Proposal, Search
from toys import Linear, OverFrames, batches, images, trained

ALONE = Search(independent=True)


class Corner(torch.nn.Module):
    """The pixels of one square, at the last place of the picture, decide; that all others become brighter hardly counts."""

    def __init__(self, size: int = 2, needed: float = 0.9) -> None:
        super().__init__()
        self.size, self.needed = size, needed

    def forward(self, x):
        score = self.needed - x[..., -self.size :, -self.size :].flatten(1).mean(1) - 1e-4 * x.flatten(1).mean(1)
        return torch.stack([torch.zeros_like(score), score], 1)


class Misleading(torch.nn.Module):
    """The same network with a false gradient: it decides alike, and says that darker is better."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        logits = self.inner(x)
        return logits.detach() + 1e-9 * (x - x.detach()).flatten(1).sum(1)[:, None] * torch.tensor([0.9, 1.0])


class Leaning(torch.nn.Module):
    """Logits with a little of the batch's mean: rows are coupled, and hardly ever change their class by it."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        logits = self.inner(x)
        return logits + 0.01 * logits.mean(0)


def fallen(attack, model, x, y, threat, search=ALONE):
    x_adv = attack(model, x, y, threat, generator=generator(0), search=search).x_adv
    assert threat.around(x, generator=generator(0)).contains(x_adv).all()
    return model(x_adv).argmax(1) != y


@pytest.mark.parametrize("shape", [(1, 12, 12), (1, 2, 12, 12), (1, 40, 40)], ids=["picture", "clip", "large"])
def test_roa_finds_the_last_place(shape):
    """One place of 121, or 1,521, and it is the last: a sticker has to lie there."""
    x, y = 0.2 * images(6, shape), torch.ones(6, dtype=torch.long)
    one = ROA(steps=5, repeats=1, tested=4)
    assert fallen(one, Corner(), x, y, Patch(size=2)).all()
    assert fallen(one, Corner(), x, y, Patch(size=2), Search()).all()
    assert not fallen(PGD(steps=5), Corner(), x, y, Patch(size=2)).any()


def test_of_a_patch_that_moves_more_fall():
    model, x, y = Corner(needed=0.5), 0.2 * images(24, (1, 8, 8)), torch.ones(24, dtype=torch.long)
    moving = fallen(LOAP(steps=40, restarts=1), model, x, y, Patch(size=3)).sum()
    assert moving > fallen(PGD(steps=40), model, x, y, Patch(size=3)).sum()


@pytest.mark.parametrize("threat", [Patch(size=2), Frame(width=1), SPA(pixels=4)], ids=lambda t: t.name)
@pytest.mark.parametrize("search", [ALONE, Search()], ids=["independent", "whole batch"])
def test_random_search_needs_no_gradient(threat, search):
    model, x, y = Misleading(Corner(size=1)), 0.2 * images(8, (1, 6, 6)), torch.ones(8, dtype=torch.long)
    hidden = fallen(PGD(steps=20), model, x, y, threat, search).sum()
    found = fallen(SparseRS(steps=1000), model, x, y, threat, search).sum()
    assert found >= hidden + 3


def test_sigma_zero_finds_the_pixels_of_a_linear_model():
    """As many as are needed to turn its answer, and no more, are known on paper: those with the largest weights, at their ends."""
    model, x = Linear((2, 6, 6)), images(10)
    y = model(x).argmax(1)
    toward = torch.where(y.bool().view(-1, 1, 1, 1), -model.w, model.w).detach()
    gains = (toward * ((toward > 0).float() - x)).sum(1).flatten(1).sort(descending=True).values.cumsum(1)
    needed = 1 + (gains < -margin(model(x), y).detach()[:, None]).sum(1)
    for row, count in enumerate(needed.tolist()):
        one, own = x[row : row + 1], y[row : row + 1]
        assert fallen(SigmaZero(), model, one, own, SPA(pixels=count + 1)).all()
        if count > 1:
            assert not fallen(SigmaZero(steps=50), model, one, own, SPA(pixels=count - 1)).any()


@pytest.mark.parametrize("threat", [Patch(size=3), Frame(width=1)], ids=lambda t: t.name)
@pytest.mark.parametrize("clips", [False, True], ids=["images", "clips"])
def test_the_verdict_is_the_worst_of_its_parts(threat, clips):
    model, shape = (OverFrames(trained()), (2, 2, 6, 6)) if clips else (trained(), (2, 6, 6))
    x = images(16, shape)
    inner = model.inner if clips else model
    with torch.no_grad():
        inner.linear.weight.mul_(5)
        inner.linear.bias.sub_(model(x).mean(0))
    y, attack = model(x).argmax(1), PatchAttack(steps=5, repeats=2, queries=50)
    proposal = attack(model, x, y, threat, generator=generator(0), search=ALONE)
    fell = model(proposal.x_adv).argmax(1) != y
    assert fell.sum() >= max(fallen(part, model, x, y, threat).sum() for part in (APGD(steps=5), *attack.parts)) - 1
    assert fell.any()
    assert proposal.part is not None
    assert proposal.part[fell].max() < len(attack.parts)


def test_settings_that_were_not_published_are_in_its_label():
    assert PatchAttack().label == "patchattack-standard"
    assert PatchAttack(queries=10).label == "patchattack-standard-queries10"
    with pytest.raises(ValueError, match=r"version of .*patchattack.* is 'plus'"):
        ATTACKS.make({"name": "patchattack", "version": "plus"})


@pytest.mark.parametrize("coupled", [False, True])
@pytest.mark.parametrize(
    ("attacks", "strongest"),
    [
        ((PatchAttack(steps=5, repeats=1, queries=400),), ()),
        ((PGD(steps=5), SparseRS(steps=400)), ()),
        ((PGD(steps=5),), (SparseRS(steps=400),)),
        ((PGD(steps=5),), (PatchAttack(steps=5, repeats=1, queries=400),)),
    ],
    ids=["parts", "attacks", "strongest", "parts-of-strongest"],
)
def test_the_record_says_where_a_search_without_gradients_finds_much_more(attacks, strongest, coupled):
    x = 0.2 * images(8, (1, 6, 6))
    data = [Batch(x, torch.ones(8, dtype=torch.long), torch.arange(8))]
    plan = AttackPlan(Frame(width=1), attacks, strongest=strongest)
    for inner, status in ((Misleading(Corner(size=1)), "warn"), (Corner(size=1), "pass")):
        model = Leaning(inner) if coupled else inner
        e = evaluate(model.eval(), data, plan).evaluation
        assert e.coupled == coupled
        (found,) = [one for one in e.checks if one.name == "gradients are not masked"]
        assert found.status == status, found.measured
        assert "sparse_rs-400" in found.measured


def test_without_both_kinds_of_search_nothing_is_said():
    verdict = evaluate(trained(), batches(1), AttackPlan(Patch(size=2), (PGD(steps=2),)))
    assert not [one for one in verdict.evaluation.checks if one.name == "gradients are not masked"]


class Bands(torch.nn.Module):
    """Each band of columns votes for the class whose mean it is nearest to; gradients are those of soft votes."""

    WIDTH = 2

    def __init__(self, x, y):
        super().__init__()
        means = torch.stack([x[y == label].mean(0) for label in range(10)])
        self.register_buffer("means", torch.stack([self.band(means, place) for place in range(x.shape[-1])]))

    def band(self, x, place):
        return x.roll(-place, -1)[..., : self.WIDTH].flatten(1)

    def forward(self, x):
        near = torch.stack([-torch.cdist(self.band(x, place), means) for place, means in enumerate(self.means)])
        soft = (5 * near).softmax(2).sum(0)
        return soft - soft.detach() + torch.nn.functional.one_hot(near.argmax(2), 10).sum(0)

    def certified(self, x, y, size):
        """Rows that no patch of this size can turn: it touches size + WIDTH - 1 bands, and a vote can be lost and given to another."""
        votes = self(x).detach()
        own = votes.gather(1, y[:, None])[:, 0]
        others = votes.scatter(1, y[:, None], -1).amax(1)
        return own - others > 2 * (size + self.WIDTH - 1)


def test_no_patch_attack_breaks_what_is_certified():
    """Derandomized smoothing (Levine and Feizi 2020, arXiv:2002.10733, sec. 3.2): a floor that no sound attack goes below."""
    train, rows = next(iter(Digits().train(batch_size=500, generator=generator(0)))), Digits().test(batch_size=30)[0]
    model = Bands(train.x, train.y).eval()
    safe = model.certified(rows.x, rows.y, 1)
    found = evaluate(model, [rows], Patch(size=1), PatchAttack(steps=5, repeats=1, queries=100))
    assert 0.2 < safe.float().mean() <= found.robust_accuracy.value
    assert found.correct[safe].all()
    assert found.robust_accuracy.value < found.clean_accuracy.value - 0.1  # it does attack


def test_a_batch_of_the_gradient_parts_own_is_not_put_down_to_the_search_before_it():
    none = torch.zeros(8, dtype=torch.long)
    proposal = Proposal(torch.zeros(8, 1, 2, 2), none, 0, 0, none, torch.tensor([5, 6]))
    attack, fell = worst_case(Square(steps=5), APGD(steps=5)), torch.ones(1, 8, dtype=torch.bool)
    assert list(beyond_gradients([attack], [proposal], fell, coupled=True).values()) == [0]
    weaker = proposal._replace(fallen=torch.tensor([6, 6]))
    assert list(beyond_gradients([attack], [weaker], fell, coupled=True).values()) == [6]


@pytest.mark.parametrize(
    ("threat", "names"),
    [
        (Patch(size=2), ["patchattack"]),
        (Frame(), ["patchattack"]),
        (SPA(), ["sigma_zero", "sparse_rs"]),
        (MultAV(within="patch"), ["patchattack"]),
        (MultAV(), ["apgd", "apgd"]),
        (Linf(), ["apgd", "apgd"]),
    ],
)
def test_what_is_searched_beyond_the_protocol_suits_the_threat_model(threat, names):
    """APGD alone, where patches may lie anywhere, left 17% of clips of which none stands."""
    assert [attack.name for attack in planned(threat, None).strongest] == names
    assert [attack.name for attack in Evaluate(model="a:b", threat=threat).strongest] == names
    assert Evaluate(model="a:b", threat=threat, strongest=()).strongest == ()


def test_the_attacks_of_a_run_folder_are_not_taken_over_for_another_threat_model(tmp_path):
    (tmp_path / "config.yaml").write_text("attacks: [fgsm]\nstrongest: []\nthreat: {name: linf, eps: 0.1}\nseed: 3\n")
    same, other = (for_evaluate([str(tmp_path)], given)[0] for given in ({}, {"threat": {"name": "patch"}}))
    assert same["attacks"] == ["fgsm"]
    assert same["strongest"] == []
    assert other["seed"] == 3
    assert len(other["attacks"]) == 2
    assert other["strongest"] is None
