"""Whatever network a person brings: the right figure, or one clear line; and the network and the images stay as they are."""

from __future__ import annotations

import functools
import warnings
from contextlib import suppress

import pytest
import torch
from torch import nn

import normwise as nw
from networks import FEW, KINDS, images
from normwise.attacks import APGD, FAB, Square
from normwise.diagnostics import DIAGNOSES
from normwise.diagnostics.drift import Drift
from normwise.diagnostics.flips import Flips
from normwise.diagnostics.gamma import Gamma
from normwise.diagnostics.margins import Margins
from normwise.diagnostics.saturation import Saturation
from normwise.diagnostics.slices import Slices
from normwise.diagnostics.smoothness import Smoothness
from normwise.evaluation.acceleration import EAGER
from normwise.evaluation.evaluator import searched
from normwise.seeding import generator
from normwise.types import Batch, Search
from normwise.utils.forward import logits_in
from normwise.utils.model_state import digest, modes_of
from toys import some

pytestmark = (
    pytest.mark.filterwarnings(  # torch's, by rights: of quantized layers, what torch.compile looks at, exported copies
        r"ignore:quantized..linear_dynamic. an autograd kernel:UserWarning",
        r"ignore:The .grad attribute of a Tensor:UserWarning",
        r"ignore:.isinstance.treespec, LeafSpec.:FutureWarning",
    )
)
THREAT = nw.Linf(eps=0.08)
REACH = [name for name, kind in KINDS.items() if not kind.refused]
SEARCH = [nw.PGD(steps=5), Square(steps=20)]
STRONGEST = [APGD(steps=5), FAB(steps=5, targets=1)]


class Beside(nn.Module):
    """Asks a network that nothing else can see: what is searched and judged here is what the network answers, and no more."""

    def __init__(self, network):
        super().__init__()
        self.held = (network,)

    def forward(self, x):
        return logits_in(self.held[0](x.clone()), len(x))


def one_line(error):
    assert str(error)
    assert "\n" not in str(error)


def answer(model, x):
    with torch.no_grad():
        return logits_in(model(x.clone()), len(x)).double()


@functools.cache
def world(name):
    """The network, and two batches of which it gets most right: the labels are its own answers, but for two."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model, x = KINDS[name].make(), images(12, shape=KINDS[name].shape)
        y = torch.cat([answer(model, part).argmax(1) for part in x.split(6)])
    y[::6] = (y[::6] + 1) % 3
    parts = zip(x.split(6), y.split(6), torch.arange(12).split(6), strict=True)
    return model, [Batch(*part) for part in parts]


@pytest.fixture
def unchanged():
    """Compare a network, its modes and its images before and after."""
    kept = []

    def watch(model, batches):
        kept.append((model, batches, digest(model), modes_of(model), [batch.x.clone() for batch in batches]))

    yield watch
    for model, batches, before, modes, x in kept:
        assert (digest(model), modes_of(model)) == (before, modes)
        assert all(torch.equal(batch.x, one) for batch, one in zip(batches, x, strict=True))


@pytest.mark.parametrize("name", some(REACH, *FEW))
def test_every_kind_of_network_is_judged_as_one_of_which_nothing_is_known(name, unchanged):
    model, batches = world(name)
    unchanged(model, batches)
    kind = KINDS[name]
    search, strongest = ([Square(steps=20)], [Square(steps=40)]) if kind.blind else (SEARCH, STRONGEST)
    found = searched(model, batches, nw.AttackPlan(THREAT, search, strongest=strongest)).evaluation
    truth = searched(Beside(model), batches, nw.AttackPlan(THREAT, search, strongest=strongest, speed=EAGER)).evaluation
    assert found.clean_accuracy.value == truth.clean_accuracy.value == pytest.approx(10 / 12)
    assert found.coupled == truth.coupled == kind.coupled
    assert abs(found.robust_accuracy.value - truth.robust_accuracy.value) <= 1 / 12 + 1e-9
    coupling = nw.measure_coupling(model, [batch.x for batch in batches])
    assert coupling.coupled == kind.coupled


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.refused])
def test_what_cannot_be_asked_is_refused_in_one_line(name):
    model, x = KINDS[name].make(), images(6)
    batches = [Batch(x, torch.arange(6) % 3, torch.arange(6))]
    for ask in (
        lambda: nw.evaluate(model, batches, THREAT, SEARCH),
        lambda: nw.curve(model, batches, nw.AttackPlan(THREAT, SEARCH), "eps", [0.1]),
    ):
        with pytest.raises(ValueError, match=KINDS[name].refused) as refusal:
            ask()
        one_line(refusal.value)


def path_of(model, name):
    """Where a layer is, whatever is around it."""
    return next((path for path, _ in model.named_modules() if path.rpartition(".")[2] == name), name)


def with_substitute(model, x):
    substitute = KINDS["clips" if x[0].ndim == 5 else "plain"].make()
    options = nw.Adaptive(taps=(path_of(model, "conv2"),), substitute_taps=(path_of(substitute, "conv2"),))
    return nw.abnn(model, substitute, options, shape=x[0].shape[1:])


SAME = {  # surgery that leaves the function as it is
    "fold": lambda model, x: nw.fold(model),
    "bn": lambda model, x: nw.convert(model, nw.NORMS.make("bn")),
    "sync": lambda model, x: nw.convert_sync(model),
    "affine": lambda model, x: nw.only(model, "affine"),
    "share": lambda model, x: nw.with_share(model, 0.0),
    "insert": lambda model, x: nw.insert(model, nw.NORMS.make("none"), [path_of(model, "linear")]),
    "straight": lambda model, x: nw.straight_through(model, {}),
}
OTHER = {  # surgery that does not
    "gn": lambda model, x: nw.convert(model, nw.NORMS.make("gn")),
    "rnt": lambda model, x: nw.recalibrate(nw.convert(model, nw.NORMS.make("rnt")), x),
    "recalibrate": nw.recalibrate,
    "head": lambda model, x: nw.only(model, "head"),
    "abnn": with_substitute,
    "alone": lambda model, x: nw.abnn(
        model, None, nw.Adaptive(source="plain", taps=(path_of(model, "conv1"),)), shape=x[0].shape[1:]
    ),
}
REFUSALS = {  # in which words, where the network can be copied
    "fold": "cannot be copied",
    "bn": "has no norm layer to convert|does not know its running_mean",
    "sync": "may hold norms that cannot be seen|cannot be synchronized",
    "affine": "has nothing that 'affine' lets train",
    "share": "has no norms with running statistics that could be mixed",
    "insert": "cannot insert after '",
    "straight": "cannot be copied",
    "gn": "has no norm layer to convert|cannot divide a site of (4|12) channels",
    "rnt": "has no norm layer to convert|there is nothing to recalibrate",
    "recalibrate": "there is nothing to recalibrate",
    "head": "has nothing that 'head' lets train",
    "abnn": "no module of the target is named|of the target was (not )?passed|features cannot be read",
    "alone": "no module of the target is named|of the target was (not )?passed|features cannot be read",
}


def operated(name, done, operation, batches):
    """The answers after an operation; None if networks of this kind refuse it, in its words and one line."""
    model, x = world(name)[0], [batch.x for batch in batches]

    def work():
        made = operation(model, x)
        made.train(False)
        return answer(made, x[0])

    if done in KINDS[name].may_refuse:
        with suppress(ValueError):
            return work()
    if done not in (*KINDS[name].refuses, *KINDS[name].may_refuse):
        return work()
    with pytest.raises(
        ValueError, match=f"{REFUSALS[done]}|cannot be copied"
    ) as refusal:  # from the surgery, or a layer that lacks its statistics
        work()
    one_line(refusal.value)
    return None


@pytest.mark.parametrize("name", REACH)
def test_surgery_that_changes_nothing_changes_nothing(name, unchanged):
    model, batches = world(name)
    unchanged(model, batches)
    before = answer(model, batches[0].x)
    for done, operation in SAME.items():
        after = operated(name, done, operation, batches)
        if after is None:
            continue
        apart = (after - before).abs().max() / (before - before.mean(1, keepdim=True)).abs().max()
        assert apart <= KINDS[name].apart, f"{done} changes the answers by {apart:.2g}"


@pytest.mark.parametrize("name", REACH)
def test_surgery_that_changes_something_answers_or_says_why_not(name, unchanged):
    model, batches = world(name)
    unchanged(model, batches)
    for done, operation in OTHER.items():
        after = operated(name, done, operation, batches)
        assert after is None or torch.isfinite(after).all(), done
    assert set(nw.norm_reads(model)) <= {"running", "batch", "sample", "none"}
    assert len(nw.sites(model)) >= sum(nw.norm_reads(model).values())


@pytest.mark.parametrize("name", some(REACH, *FEW))
def test_every_kind_of_network_is_diagnosed(name, unchanged):
    """What cannot be measured is named in the table; nothing raises."""
    model, batches = world(name)
    unchanged(model, batches)
    few = [
        Drift(steps=(1,)),
        Flips(steps=2),
        Gamma(),
        Margins(steps=5),
        Slices(rows=1, cells=5),
        Smoothness(steps=(1,)),
        Saturation(steps=1),
    ]
    assert {type(one) for one in few} == set(DIAGNOSES.values())
    (patient,) = nw.diagnose({name: model}, batches, THREAT, few)
    assert patient.coupled == KINDS[name].coupled
    for called, table in patient.tables.items():
        assert table.rows or table.note, called


@pytest.mark.parametrize("attack", [name for name in nw.ATTACKS if name not in ("autoattack",)])
@pytest.mark.parametrize("name", ["float64_far_from_zero", "bfloat16", "float16", "subtracts_in_place", "a_dict"])
def test_every_attack_answers_on_other_dtypes_forms_and_writers(name, attack, unchanged):
    from toys import fitting, quick

    model, batches = world(name)
    unchanged(model, batches)
    made = quick(nw.ATTACKS[attack])
    threat = next(
        one
        for one in (THREAT, *(fitting(nw.THREATS[kind]) for kind in nw.THREATS))
        if not made.kinds or one.name in made.kinds
    )
    x, y, _ = batches[0]
    found = made(model, x, y, threat, generator=generator(0), search=Search(independent=True))
    assert found.x_adv.dtype == x.dtype
    assert threat.around(x, generator=generator(0)).contains(found.x_adv).all()
    fell = answer(model, found.x_adv).argmax(1) != y
    assert not (found.first_hit[~fell] >= 0).any() or name in ("bfloat16", "float16")  # what it saw fall has fallen
