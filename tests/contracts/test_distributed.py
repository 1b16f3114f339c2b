"""Several processes that train together make what one makes: every recipe, every norm, uneven batches."""

import dataclasses
import os
from contextlib import suppress
from unittest.mock import patch

import pytest
import torch
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from normwise.attacks.base import BaseAttack
from normwise.experiments.together import joined
from normwise.models.abnn import Adaptive, abnn
from normwise.norms import MBN, NORMS, MultiBN, NoNorm
from normwise.norms.surgery.conversion import convert, convert_sync
from normwise.seeding import Slice, generator, sharing
from normwise.threats import THREATS, Linf
from normwise.training.loop import _Run, fit, processes_of
from normwise.training.options import FitOptions
from normwise.training.recipes import RECIPES, Adversarial, Standard
from normwise.training.schedule import Schedule
from normwise.types import Batch, Proposal
from pair import together
from toys import Stripes, fitting, images, labels, scene, some, trained

OWN = {"nofrost": NoNorm(), "nofrost-star": NoNorm(), "mbn": MBN(), "multibn": MultiBN()}  # recipes that take one norm alone
TRIED = [("standard", norm) for norm in NORMS]  # every norm with one recipe, every other recipe with one norm
TRIED += [(recipe, getattr(OWN.get(recipe), "name", "bn")) for recipe in RECIPES if recipe != "standard"]
TRIED += [("adversarial", "bnwot"), ("trades", "rnm"), ("mixed", "batchrenorm")]  # passes that read what others move
TWENTY = Schedule(epochs=4, batch_size=16, lr=0.02, decay="constant", ema=0.9, crop=1, flip=True)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    with together(str(tmp_path_factory.mktemp("pair") / "store")) as ask:
        yield ask


def quiet(norm=None, seed=0):
    """A network that draws no noise."""
    model = trained(norm, seed).double()
    model.drop.p = 0.0
    return model


def world(recipe, norm):
    norm = NORMS[norm]()
    if recipe == "abnn":
        options = Adaptive(source="statistics", scope="channel", taps=("conv2",))
        return abnn(quiet(norm), quiet(seed=1), options, shape=(2, 6, 6))
    return convert(quiet(), norm) if recipe == "multibn" else quiet(norm)


def few(recipe):
    known = RECIPES[recipe]
    return known(**{field.name: 2 for field in dataclasses.fields(known) if field.name == "steps"})


def rows(*sizes, dtype=torch.float64):
    parts = zip(images(sum(sizes)).to(dtype).split(sizes), labels(sum(sizes)).split(sizes), strict=True)
    return [Batch(x, y, torch.arange(len(y))) for x, y in parts]


UNEVEN = rows(16, 16, 15, 16, 9)


def run(model, recipe, schedule=TWENTY, data=UNEVEN, folder=None, **options):
    """What comes of a training: weights and record."""
    fitted = fit(model, data, recipe, Linf(eps=0.05), schedule, seed=0, options=FitOptions(folder=folder, **options))
    return fitted.model.state_dict(), dataclasses.replace(fitted.training, seconds=0.0)


def apart(ones, others):
    """The largest distance of two sets of tensors, relative to a tensor's length."""
    assert ones.keys() == others.keys()
    lengths = [others[name].double().norm().clamp_min(1e-3) for name in ones]
    return max(
        float((one.double() - others[name].double()).norm() / by)
        for (name, one), by in zip(ones.items(), lengths, strict=True)
    )


def alike(alone, pair, within=1e-8):
    """Whether both of a pair have the same bits, running statistics too, and are within rounding of one that was alone."""
    (weights, single), (first, record), (second, other) = alone, *pair
    assert apart(first, second) == 0
    assert record == other
    assert apart(first, weights) < within
    assert record.loss == pytest.approx(single.loss, rel=within)
    assert dataclasses.replace(record, loss=0.0) == dataclasses.replace(single, loss=0.0)


@pytest.mark.parametrize(("recipe", "norm"), TRIED)
def test_two_processes_train_as_one(both, recipe, norm):
    settings = world(recipe, norm), few(recipe)
    alike(run(*settings), both(run, *settings))


def test_images_are_crafted_with_the_statistics_of_the_whole_batch(both):
    settings = quiet(), Adversarial(steps=2, craft_in="train")
    alike(run(*settings), both(run, *settings))


def given(attack, model, x, y, threat, *, generator, search=None):
    """Images that are the same whoever makes them."""
    return Proposal((x + 0.05 * (1e3 * x).sin().sign()).clamp(0, 1), torch.full_like(y, -1), 0, 0)


def gradients(model, recipe, dtype):
    """What one step would go along, on images that are given."""
    processes = processes_of(torch.device("cpu"), True)
    model = processes.ready(recipe.prepare(model.to(dtype))).train()
    (batch,) = rows(13, dtype=dtype)
    with patch.object(BaseAttack, "__call__", given), processes.share(batch, 0) as (own, share):
        cost = recipe.loss(model, own.x, own.y, Linf(eps=0.05), generator=generator(0))
        (cost.loss * share).backward()
    processes.combine(model)
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(("recipe", "norm"), TRIED)
def test_gradients_of_one_step_are_those_of_one_process(both, recipe, norm):
    settings = world(recipe, norm), few(recipe), torch.float32
    alone = gradients(*settings)
    length = torch.cat([one.flatten() for one in alone.values()]).norm()
    for found in both(gradients, *settings):
        assert found.keys() == alone.keys()
        assert max(float((found[name] - one).norm() / length) for name, one in alone.items()) < 1e-5


ADAPTIVE = {"features": ("batch", "channel", "sample"), "statistics": ("batch", "sample"), "constant": ("sample", "channel")}


@pytest.mark.parametrize(("source", "scope"), [(source, scope) for source, scopes in ADAPTIVE.items() for scope in scopes])
def test_adaptive_layers_and_a_substitute_that_reads_the_batch_read_all_of_it(both, source, scope):
    options = Adaptive(source=source, scope=scope, taps=("conv2",))
    model = abnn(quiet(), quiet(NORMS["bnwot"](), seed=1), options, shape=(2, 6, 6)).double()
    with torch.no_grad():
        for p in model.adaptive.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator(0, source)))
    settings = model, RECIPES["abnn"](), torch.float64
    alone, pair = gradients(*settings), both(gradients, *settings)
    assert apart(*pair) == 0
    assert apart(pair[0], alone) < 1e-9
    schedule = dataclasses.replace(TWENTY, epochs=1)
    alike(run(model, settings[1], schedule), both(run, model, settings[1], schedule))


def test_parts_of_a_batch_and_batches_of_fewer_rows_than_processes(both):
    data, recipe = rows(16, 1, 3), few("mixed")
    for parts in (1, 2):
        schedule = dataclasses.replace(TWENTY, accumulate=parts)
        alike(run(quiet(), recipe, schedule, data), both(run, quiet(), recipe, schedule, data))


PARTLY = {
    "frozen statistics": Adversarial(steps=2, trains="affine", statistics="frozen"),
    "affine": Standard(trains="affine+head"),
}


@pytest.mark.parametrize("what", PARTLY)
def test_a_part_of_the_network_trains_as_in_one_process(both, what):
    settings = quiet(), PARTLY[what]
    alike(run(*settings), both(run, *settings))


def test_processes_train_in_bfloat16_as_one_and_draw_noise_of_their_own(both):
    """Of a batch in parts too."""
    schedule, data = dataclasses.replace(TWENTY, precision="bf16", accumulate=2), rows(16, 15, dtype=torch.float32)
    settings = quiet().float(), Standard(), schedule, data
    (first, _), (second, _) = both(run, *settings)
    assert apart(first, second) == 0
    assert apart(first, run(*settings)[0]) < 0.03  # bfloat16 has 8 bits; without parts it is 0.4
    one, other = both(noise)
    assert not torch.equal(one, other)


def noise():
    """What is drawn inside a model while a batch is shared."""
    with processes_of(torch.device("cpu"), True).share(rows(4)[0], 0):
        return torch.rand(9)


def by_ddp(model):
    """Gradients and buffers of a loop of one's own: two passes forward and one back through DistributedDataParallel."""
    alone = not torch.distributed.is_initialized()
    model = convert_sync(model).train()
    net = model if alone else DistributedDataParallel(model, broadcast_buffers=False)
    (batch,) = rows(12)
    own = slice(None) if alone else slice(6 * torch.distributed.get_rank(), 6 * torch.distributed.get_rank() + 6)
    x, y = batch.x[own], batch.y[own]
    (F.cross_entropy(net(x), y) + F.cross_entropy(net((x + 0.1).clamp(0, 1)), y)).backward()
    return {name: p.grad for name, p in model.named_parameters()} | dict(model.named_buffers())


@pytest.mark.parametrize("norm", some(NORMS, "bn", "rn", "mbn"))
def test_a_loop_of_ones_own_with_torchs_engine_finds_the_gradients_of_one_process(both, norm):
    alone, pair = by_ddp(quiet(NORMS[norm]())), both(by_ddp, quiet(NORMS[norm]()))
    assert apart(*pair) == 0
    assert apart(pair[0], alone) < 1e-9


def leaving():
    """One process ends, and the other asks it."""
    if torch.distributed.get_rank() == 1:
        torch.distributed.destroy_process_group()
    else:
        run(quiet(), Standard())


@pytest.mark.slow
def test_a_process_that_ends_is_told_in_one_line(tmp_path):
    with (
        together(str(tmp_path / "store")) as ask,
        pytest.raises(ValueError, match=r"another process no longer answers .*; start again"),
    ):
        ask(leaving)


@dataclasses.dataclass(frozen=True)
class Settings:
    device: str = "cpu"
    devices: int = 2
    threads: int = 1


def killed(e):
    """A process that dies before it joins the others."""
    os._exit(9)


def refused(e):
    raise ValueError("no such device")


@pytest.mark.parametrize("work", some([killed, refused], killed), ids=lambda work: work.__name__)
def test_a_process_that_fails_before_it_joins_ends_all_at_once_in_one_line(work):
    reasons = {killed: "a process ended before it joined the others .*; start again", refused: "no such device"}
    with pytest.raises(ValueError, match=reasons[work]), joined(Settings(), work):
        pytest.fail("never joined")


def test_validation_counts_every_image_once(both):
    schedule = Schedule(epochs=3, batch_size=20, lr=0.05)
    settings = quiet(NORMS["bnwot"]()).float(), Adversarial(steps=2), schedule, Stripes(validation_size=25)
    alone, pair = run(*settings), both(run, *settings)
    assert pair[0][1].validation == pytest.approx(alone[1].validation, abs=1.01 / 25)
    assert dataclasses.replace(pair[0][1], loss=0, validation={}) == dataclasses.replace(alone[1], loss=0, validation={})


def test_without_synchronizing_statistics_are_averaged(both):
    whole, _ = run(quiet(), Standard())
    first, second = both(per_rank)
    assert apart(first, second) == 0
    assert 1e-6 < apart(first, whole) < 1


def per_rank():
    return run(quiet(), Standard(), stats="per-rank")[0]


def at_odds():
    """Batches that differ by process, as a DistributedSampler's."""
    return run(quiet(), Standard(), TWENTY, rows(16 - torch.distributed.get_rank()))


def test_different_batches_are_refused(both):
    with pytest.raises(ValueError, match="the 2 processes have different batches; each has to get the same whole batches"):
        both(at_odds)


def cut(folder, steps):
    """The same training, stopped after so many steps, whose state is saved after each."""

    def stop(text, done, total):
        if done == steps and ": " not in text:
            raise KeyboardInterrupt

    with suppress(KeyboardInterrupt):
        return run(quiet(), Standard(), TWENTY, UNEVEN, folder=folder, every=-1, report=stop)


@pytest.mark.parametrize("steps", [7, 10])
def test_a_training_is_resumed_by_another_number_of_processes(both, tmp_path, steps):
    """At a step within an epoch, and at one that ends it."""
    whole = run(quiet(), Standard())
    cut(tmp_path / "alone", steps)
    alike(whole, both(run, quiet(), Standard(), TWENTY, UNEVEN, tmp_path / "alone"))


def stopped(folder, steps):
    """A process of a training whose state is saved after each step, which ends at so many."""
    taken = []

    def step(one, batch, rng):
        if len(taken) == steps:
            raise KeyboardInterrupt
        taken.append(whole(one, batch, rng))

    whole = _Run._step
    with patch.object(_Run, "_step", step), suppress(KeyboardInterrupt):
        run(quiet(), Standard(), TWENTY, UNEVEN, folder, every=-1)


@pytest.mark.parametrize("steps", [7, 10])
def test_a_training_of_several_processes_is_resumed_by_one(both, tmp_path, steps):
    whole = both(run, quiet(), Standard())
    both(stopped, tmp_path, steps)
    messages = []
    resumed = run(quiet(), Standard(), TWENTY, UNEVEN, tmp_path, report=lambda text, done, total: messages.append(done))
    assert messages[0] == steps + 1
    alike(resumed, whole)


@pytest.mark.parametrize("threat", THREATS)
def test_random_starts_are_drawn_for_the_whole_batch(threat):
    threat = fitting(THREATS[threat])
    x = images(7, scene(threat))
    whole = threat.around(x, generator=generator(0))
    with sharing(Slice(2, 3, 7)):
        part = threat.around(x[2:5], generator=generator(0))
        for _ in range(2):
            torch.testing.assert_close(part.start(), whole.start()[2:5])
