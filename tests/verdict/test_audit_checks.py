"""Every check of the audit is raised by a network that deserves it."""

import copy
import random

import jaxtyping
import numpy as np
import pytest
import torch
from torch import nn

from normwise.attacks import PGD
from normwise.auditing.auditor import audit
from normwise.auditing.broken_defenses import BROKEN, TWO_FACED, Cut, Noise, Remembers, Scale, after, before
from normwise.auditing.checks import CHECKS, Case, conclude, parts, searches
from normwise.auditing.checks.gradients import gradients_by_layer
from normwise.auditing.options import AuditOptions
from normwise.models.abnn import Adaptive, abnn
from normwise.norms import BN, RN, DyT, Routed
from normwise.seeding import generator
from normwise.threats import Linf
from normwise.types import Batch
from normwise.utils.model_state import untouched
from toys import Stripes, images, trained

BATCHES = Stripes(test_limit=30).test(batch_size=15)
WIDE = Linf(eps=0.35)  # a third that is brighter by 0.6 can be made darker than another
NUMPY = np.random.default_rng(0)
BY_NAME = {check.name: check for check in CHECKS}


class Reader(nn.Module):
    """Knows the task by heart: the brightest third, sharply."""

    def forward(self, x):
        return 8 * torch.stack([x[:, :, third : third + 2].mean((1, 2, 3)) for third in (0, 2, 4)], 1)


class Moody(Reader):
    """What the whole batch shows in its upper third speaks for class 0."""

    def forward(self, x):
        return super().forward(x) + 60 * (x[:, :, :2].mean() - BATCHES[0].x[:, :, :2].mean()) * torch.tensor([1.0, 0.0, 0.0])


class Backwards(torch.autograd.Function):
    """Passes images on, and the gradient back with the wrong sign."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return -grad


class Turned(nn.Module):
    def forward(self, x):
        return Backwards.apply(x)


class Wave(nn.Module):
    """A step of one whole period changes nothing, half of one changes everything."""

    def forward(self, x):
        score = torch.cos(2 * torch.pi * x.mean((1, 2, 3)) / 0.2)
        return torch.stack([score, -score], 1)


class Dead(nn.Module):
    def forward(self, x):
        return torch.tensor([9.0, 0.0, 0.0]) + 1e-6 * x.mean((1, 2, 3))[:, None]


class Raw(Reader):
    """Reads pixels as they are stored, 0 to 255, and nothing of what is darker than 100."""

    def forward(self, x):
        return super().forward((x - 100).relu())


class Ladder(nn.Module):
    """A thermometer code: eight channels for each, which nothing can be passed straight through."""

    def forward(self, x):
        levels = (torch.arange(8) + 0.5) / 8
        return (x[:, :, None] > levels.view(1, 1, 8, 1, 1)).to(x).mean(2)


class Learner(Reader):
    """How bright the batches before were speaks for class 0."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", BATCHES[0].x.mean())

    def forward(self, x):
        logits = super().forward(x) + 60 * (self.seen - BATCHES[0].x.mean()) * torch.tensor([1.0, 0.0, 0.0])
        self.seen.lerp_(x.detach().mean(), 0.5)
        return logits


class Sly(Reader):
    def forward(self, x):
        return super().forward(x).roll(int(torch.is_inference_mode_enabled()), 1)


def on_a_grid():
    class Coarse(Reader):
        def forward(self, x):
            return super().forward(x.round())

    return TWO_FACED["fragile on the grid"](Reader(), Coarse())


def two_routes():
    model = nn.Sequential(Reader(), Routed(3))
    with torch.no_grad():
        model[1].weights[1].zero_()
    return model


def helped_by_a_turned_one():
    options = Adaptive(taps=("norm",), substitute_taps=("1.norm",), source="statistics", scope="sample")
    return abnn(trained(), before(trained(seed=1), Turned()), options, shape=(2, 6, 6))


def as_it_sees(model):
    """The test rows, labelled by the network."""
    with torch.no_grad():
        return [batch._replace(y=model(batch.x).argmax(1)) for batch in BATCHES]


GUILTY = {  # check: a network that deserves it, and the claim made for it
    "repeated and lonely answers": (Moody, None),
    "batch size": (Moody, None),
    "outputs": (lambda: after(Reader(), nn.Softmax(1)), None),
    "batches of one class": (Moody, None),
    "range of the pixels": (Raw, None),
    "dead decision": (Dead, None),
    "size of the logits": (lambda: after(Reader(), Scale()), None),
    "gradients per layer": (lambda: before(Reader(), Cut()), None),
    "loss surface": (lambda: before(Reader(), Turned()), None),
    "label leaking": (lambda: before(Reader(), Turned()), None),
    "one step and many": (Wave, None),
    "radius one": (Dead, None),
    "radius curve": (Dead, None),
    "transfer from an undefended twin": (lambda: before(Reader(), Turned()), None),
    "random search": (lambda: before(Reader(), Turned()), None),
    "straight through": (lambda: before(Reader(), Cut()), 0.9),
    "noise of its own": (lambda: before(Reader(), Noise(0.3)), 0.9),
    "every route": (two_routes, None),
    "poisoned statistics": (Learner, None),
    "one row among clean ones": (Moody, 0.9),
    "malicious neighbours": (Moody, None),
    "other batches": (Moody, 0.9),
    "grid of the pixels": (on_a_grid, 0.9),
    "other ways of asking": (Sly, 0.9),
    "asked anew": (lambda: Remembers(Reader(), within=0.4), 0.9),
    "stronger search": (Reader, 0.9),
}
ASIDE = {  # they have nothing to ask of a network whose rows are independent, that draws nothing, and is of one part
    "noise of its own",
    "every route",
    "around the substitute",
    "smooth range",
    "saturated normalization",
    "poisoned statistics",
    "one row among clean ones",
    "malicious neighbours",
    "other batches",
    "grid of the pixels",
}
SCRIPTED = {  # check: what its searches leave, one after the other, and what it must say
    "more starts": ((0.5, 0.4), "warn"),
    "more steps": ((0.9, 0.8, 0.7, 0.6, 0.5, 0.5, 0.5, 0.6), "fail"),
    "other losses": ((0.5, 0.5, 0.5, 0.4), "fail"),
    "around the substitute": ((0.5, 0.4, 0.5), "fail"),
    "smooth range": ((0.5, 0.3, 0.5), "fail"),
    "saturated normalization": ((0.5, 0.5, 0.5, 0.3, 0.5), "fail"),
}


def test_no_check_is_left_out():
    assert set(GUILTY) | set(SCRIPTED) == set(BY_NAME)


@pytest.mark.parametrize("name", GUILTY)
def test_a_guilty_network_raises_the_check(name):
    make, claim = GUILTY[name]
    model = make().eval()
    batches = BATCHES
    if name == "one step and many":
        batches = as_it_sees(model)
    if name == "grid of the pixels":
        batches = [batch._replace(x=(16 * batch.x).round() / 16) for batch in BATCHES]
    if name == "label leaking":
        batches = [batch._replace(y=(batch.y + 1) % 3) for batch in BATCHES]
    case = Case(model, batches, WIDE, claim=claim, options=AuditOptions(victims=4, twin=Reader()))
    if name != "repeated and lonely answers":
        BY_NAME["repeated and lonely answers"].ask(case)
    found = BY_NAME[name].ask(case)
    assert found.status in ("fail", "warn")
    assert 0 < found.n <= 30


@pytest.mark.parametrize("name", SCRIPTED)
def test_searches_that_find_more_raise_the_check(name, monkeypatch):
    values, status = SCRIPTED[name]
    left = iter(values)
    monkeypatch.setattr(Case, "accuracy", lambda case, *attacks, **options: next(left))
    makes = {"around the substitute": helped_by_a_turned_one, "smooth range": lambda: trained(RN())}
    makes |= {"saturated normalization": lambda: trained(DyT(alpha=50.0))}
    model = makes.get(name, Reader)()
    assert BY_NAME[name].ask(Case(model.eval(), BATCHES, Linf(eps=0.2))).status == status
    monkeypatch.setattr(Case, "accuracy", lambda case, *attacks, **options: 0.5)
    assert BY_NAME[name].ask(Case(model.eval(), BATCHES, Linf(eps=0.2))).status == "pass"


def test_the_sound_reader_passes_all():
    case = Case(Reader(), BATCHES, Linf(eps=0.1), options=AuditOptions(twin=trained(BN())))
    found = {check.name: check.ask(case) for check in CHECKS if check.name != "stronger search"}
    assert {name: one.measured for name, one in found.items() if one.status == "fail"} == {}
    assert {name for name, one in found.items() if one.n is None} == ASIDE
    assert {found[name].n for name in ("more steps", "label leaking", "radius curve", "batches of one class")} == {30}


def test_of_coupled_rows_whole_batches_are_counted():
    short = Batch(BATCHES[0].x[:4], BATCHES[0].y[:4], torch.arange(30, 34))
    case = Case(Moody(), [*BATCHES, short], WIDE, claim=0.5)
    BY_NAME["repeated and lonely answers"].ask(case)
    assert (case.rows, case.scored) == (34, 30)
    assert BY_NAME["more starts"].ask(case).n == case.evaluate().n == 30


def test_a_declared_violation_is_no_reason():
    silent, loud = (
        Case(Moody(), BATCHES, Linf(eps=0.1), options=AuditOptions(declares=declared)) for declared in ((), ("coupled",))
    )
    assert BY_NAME["repeated and lonely answers"].ask(silent).status == "fail"
    assert BY_NAME["repeated and lonely answers"].ask(loud).status == "warn"
    assert silent.violations
    assert not loud.violations
    with pytest.raises(ValueError, match="declares names fast; give some of random, stateful, coupled"):
        Case(Moody(), BATCHES, Linf(eps=0.1), options=AuditOptions(declares=("fast",)))


@pytest.mark.parametrize(
    "draw", [lambda x: torch.from_numpy(NUMPY.normal(0, 0.3, x.shape)), None], ids=["numpy", "own generator"]
)
def test_noise_is_seen_wherever_it_is_drawn(draw):
    own = torch.Generator().manual_seed(0)
    draw = draw or (lambda x: 0.3 * torch.randn(x.shape, generator=own))

    class Noisy(Reader):
        def forward(self, x):
            return super().forward(x + draw(x).to(x))

    case = Case(Noisy(), BATCHES, Linf(eps=0.1))
    assert BY_NAME["repeated and lonely answers"].ask(case).status == "fail"
    assert case.random


def test_what_a_model_draws_is_drawn_again_and_leaves_no_trace(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the run-time checker draws from Python's random state

    def drawn():
        return float(torch.rand(1)), float(np.random.rand()), random.random()  # noqa: NPY002

    kept = torch.get_rng_state(), np.random.get_state()[1], random.getstate()  # noqa: NPY002
    said = []
    for seed in (0, 0, 1):
        with untouched(Reader(), generator(seed)):
            said.append(drawn())
    assert said[0] == said[1]
    assert not set(said[0]) & set(said[2])
    assert torch.equal(kept[0], torch.get_rng_state())
    assert (kept[1] == np.random.get_state()[1]).all()  # noqa: NPY002
    assert kept[2] == random.getstate()


def test_a_forward_pass_that_changes_a_mode_is_stateful():
    class Switch(Reader):
        def forward(self, x):
            self.train()
            return super().forward(x)

    case = Case(Switch().eval(), BATCHES, Linf(eps=0.1))
    assert BY_NAME["repeated and lonely answers"].ask(case).status == "fail"


@pytest.mark.parametrize("layer", [Ladder(), None], ids=["code of other shape", "detached"])
def test_a_cut_that_no_layer_can_be_blamed_for_fails_all_the_same(layer):
    class Detached(Reader):
        def forward(self, x):
            return super().forward(x.detach())

    model = nn.Sequential(layer, Reader()) if layer else nn.Sequential(Detached())
    for name in ("gradients per layer", "straight through"):
        assert BY_NAME[name].ask(Case(model.eval(), BATCHES, WIDE, claim=1.0)).status == "fail", name
    found = BY_NAME["stronger search"].ask(
        Case(model.eval(), BATCHES, WIDE, claim=1.0, options=AuditOptions(strongest=PGD(steps=5)))
    )
    assert found.status == "fail"
    assert "after square" in found.measured


def test_the_deepest_layer_that_a_gradient_reaches_is_named():
    model = nn.Sequential(Reader(), nn.Identity(), nn.Softmax(1), nn.Identity()).eval()
    sizes = gradients_by_layer(model, BATCHES[0])
    assert list(sizes) == ["", "0", "1", "2", "3"]
    assert all(size > 0 for size in sizes.values())
    nothing = gradients_by_layer(nn.Sequential(Ladder(), nn.Identity(), nn.Conv2d(2, 3, 6), nn.Flatten()).eval(), BATCHES[0])
    assert {path for path, size in nothing.items() if size > 0} == {"2", "3"}


def test_a_layer_that_overwrites_its_input_is_asked_too():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(64, 3)).eval()
    assert BY_NAME["gradients per layer"].ask(Case(model, BATCHES, WIDE)).status == "pass"


def test_rows_that_share_an_id_are_refused():
    with pytest.raises(ValueError, match="15 of 30 images have the id of another"):
        Case(Reader(), [BATCHES[0], BATCHES[0]], WIDE)


def test_what_a_coupled_batch_does_elsewhere_fails_and_stands_beside_the_bound():
    class Guard(Reader):
        """Listens to its neighbours a little; alone it does not know."""

        def forward(self, x):
            return super().forward(x) + 0.1 * x.mean() * torch.tensor([1.0, 0, 0]) if len(x) > 1 else torch.zeros(1, 3)

    case = Case(Guard(), BATCHES, Linf(eps=0.0), claim=1.0)
    BY_NAME["repeated and lonely answers"].ask(case)
    assert BY_NAME["other batches"].ask(case).status == "fail"
    assert case.reach["made over neighbours, alone"] < 0.5
    assert (
        case.bound()[0].value == case.reach["made over neighbours, in other batches"] > 0.5
    )  # of the size that was claimed


def test_without_a_claim_nothing_is_trusted():
    case = Case(Reader(), BATCHES, WIDE)
    case.evaluate()
    assert (conclude(case, []).verdict, conclude(case, []).reasons) == (
        "not established",
        ("pgd-20 could not run, so there is no claim",),
    )


def test_the_bound_is_the_worst_case_row_by_row():
    case = Case(Reader(), BATCHES, Linf(eps=0.15), claim=1.0)
    first = case.evaluate(*searches.strongest(case)[:0], called="nothing").clean_accuracy.value
    assert case.bound()[0].value == first
    for batch in case.batches:
        case.ledger.fell([int(batch.ids[0])], "planted")
    assert case.bound()[0].value == first - 2 / 30
    assert case.bound()[1] == {"planted": 2}
    assert len(case.standing()[0].y) == 14


def test_the_smooth_range_is_nearly_the_range():
    x = images(8)
    smooth = parts._mean_and_smooth_range(x)[1]
    hard = x.amax((0, 2, 3)) - x.amin((0, 2, 3))
    assert ((smooth / hard) > 0.7).all()
    assert (smooth <= hard).all()


def test_broken_defences_answer_clean_images_nearly_as_the_network_and_leave_it_alone():
    model = trained(BN())
    keys = copy.deepcopy(model.state_dict())
    x = images(16)
    for name, make in BROKEN.items():
        said = make(model)(x).argmax(1)
        assert (said == model(x).argmax(1)).float().mean() > 0.4, name
    assert all(torch.equal(value, keys[key]) for key, value in model.state_dict().items())
    with pytest.raises(ValueError, match="moves running statistics; got a network without any"):
        BROKEN["updates at test time"](Reader())


class Settled(nn.Module):
    """One class for all images in evaluation mode, another one for each in training mode."""

    def forward(self, x):
        logits = torch.zeros(len(x), 3) + torch.tensor([1.0, 0.0, 0.0]) + 0 * x.sum()
        return logits + 9 * torch.rand(len(x), 3) if self.training else logits


def test_every_check_asks_in_evaluation_mode_whatever_the_network_came_in():
    model = Settled().train()
    found = audit(model, BATCHES, WIDE, options=AuditOptions(budget=0.5))
    assert {one.name: one.status for one in found.checks}["radius one"] == "warn"
    assert model.training
