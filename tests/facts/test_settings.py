"""Settings: words are checked wherever a choice is made, numbers are plain, and a network is known by more than its weights."""

import os
import random
import subprocess
import sys
from dataclasses import fields, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Literal, get_origin, get_type_hints

import jaxtyping
import numpy as np
import pytest
import torch
from torch import nn

from normwise import FGSM, PGD, AttackPlan, Batch, FitOptions, Linf, Schedule, evaluate, fit
from normwise.attacks import ATTACKS
from normwise.auditing.auditor import Audit
from normwise.data import DATA, find
from normwise.evaluation.acceleration import Speed
from normwise.experiments.experiment import Experiment
from normwise.experiments.grid import Bench
from normwise.experiments.improve import Improve
from normwise.models import MODELS
from normwise.norms import NORMS
from normwise.registry import as_json, digest_text, plain
from normwise.threats import THREATS
from normwise.training.recipes import RECIPES, Standard
from normwise.utils.batches import as_batches
from normwise.utils.hashing import settings_of
from normwise.utils.model_state import copied
from normwise.utils.run_folder import BEGAN, check_folder, keep_settings, same_settings
from toys import THREAT, Small, batches, images, labels, trained


@pytest.fixture(autouse=True)
def _as_users_run_it():
    """Without the run-time checker of the tests, which refuses such values first, and draws from Python's random state."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


CHOICES = [*(one for registry in (ATTACKS, DATA, MODELS, NORMS, THREATS, RECIPES) for one in registry.values())]
WORDS = [
    (kind, field.name)
    for kind in (*CHOICES, Schedule, FitOptions, Speed)
    for field in fields(kind)
    if get_origin(get_type_hints(kind)[field.name]) is Literal
]


@pytest.mark.parametrize(("kind", "option"), WORDS, ids=lambda one: getattr(one, "__name__", one))
def test_a_word_that_an_option_does_not_know_is_refused(kind, option):
    with pytest.raises(ValueError, match="'mistyped'"):
        kind(**{option: "mistyped"})


def test_the_words_of_a_plan_are_checked():
    with pytest.raises(ValueError, match="goal is 'target'; give 'misclassified' or 'targeted'"):
        AttackPlan(THREAT, [FGSM()], goal="target")


class Undeclared:
    """An attack whose settings nobody can read."""

    name = label = "undeclared"

    def __init__(self, steps):
        self.inner = PGD(steps=steps)

    def __call__(self, *args, **options):
        return self.inner(*args, **options)


@pytest.mark.parametrize("number", [np.float32, torch.tensor], ids=["numpy", "torch"])
def test_numbers_of_numpy_and_torch_are_plain_settings(number, tmp_path):
    """Else a folder takes every radius for the same."""
    assert plain(Linf(number(0.5))) == {"name": "linf", "eps": 0.5}
    assert digest_text(PGD(steps=np.int64(5))) == digest_text(PGD(steps=5))
    model, rows = trained(), batches()
    evaluate(model, rows, Linf(number(0.0)), [FGSM()], folder=tmp_path)
    with pytest.raises(ValueError, match=r"whose plan\.threat\.eps was 0\.0, not 0\.5"):
        evaluate(model, rows, Linf(number(0.5)), [FGSM()], folder=tmp_path)


def test_settings_that_no_folder_can_keep_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"Undeclared is not JSON serializable.*; give frozen dataclasses"):
        evaluate(trained(), batches(), THREAT, [Undeclared(0)], folder=tmp_path)
    with pytest.raises(ValueError, match="give frozen dataclasses"):
        as_json({"attack": Undeclared(0)})


class Signed(nn.Module):
    """Its answer depends on what is no parameter and no buffer."""

    def __init__(self, **held):
        super().__init__()
        vars(self).update(held)

    def forward(self, x):
        return x


def times(sign):
    return lambda z: sign * z


HELD = {
    "number": (1.0, -1.0),
    "dict": ({"sign": 1}, {"sign": -1}),
    "small tensor": (torch.tensor(1.0), torch.tensor(-1.0)),
    "function": (lambda z: z, lambda z: -z),
    "partial": (partial(torch.mul, 1), partial(torch.mul, -1)),
    "closure": (times(1), times(-1)),
    "set": (frozenset({"a", "b"}), frozenset({"a", "c"})),
}


@pytest.mark.parametrize("kind", HELD)
def test_networks_of_equal_weights_are_told_apart(kind):
    one, other = (settings_of(Signed(held=value)) for value in HELD[kind])
    assert one != other
    assert one == settings_of(Signed(held=HELD[kind][0]))


def test_networks_are_told_apart_by_code_and_hooks_and_not_by_what_a_pass_left_behind():
    class Edited(Signed):
        def forward(self, x):
            return 2 * x

    Edited.__qualname__ = Signed.__qualname__
    hooked = Signed()
    hooked.register_forward_hook(lambda module, given, answer: -answer)
    assert len({settings_of(one) for one in (Signed(), Edited(), hooked)}) == 3
    assert settings_of(Signed(seen=torch.zeros(5, 7))) == settings_of(Signed(seen=torch.ones(5, 7)))


CLASS = """
class Edited(Signed):
    scale = 1
    kinds = frozenset({"a", "b", "c"})
    kind = torch.relu
    @staticmethod
    def bent(z): return z.relu()
    @classmethod
    def turned(cls, z): return z.sin()
    @property
    def sign(self): return 3
    @cached_property
    def shift(self): return 4
    def forward(self, x, times=5): return self.sign * self.scale * self.bent(x)
"""
EDITS = [
    "",
    ("= 1", "= 2"),
    ("torch.relu", "torch.tanh"),
    ("z.relu", "z.tanh"),
    ("z.sin", "z.cos"),
    ("3", "-3"),
    ("4", "-4"),
]
EDITS += [("=5", "=6"), ("x)\n", "-x)\n"), ('"a"', '"d"')]


def settings_of_class(edit):
    names = {"Signed": Signed, "torch": torch, "cached_property": cached_property, "__name__": __name__}
    exec(CLASS.replace(*edit) if edit else CLASS, names)
    return settings_of(names["Edited"]())


def test_whatever_a_class_defines_is_part_of_its_code_and_the_same_in_every_process():
    seen = [settings_of_class(edit) for edit in EDITS]
    assert len({*seen}) == len(EDITS)
    call = "from test_settings import *; print(*map(settings_of_class, EDITS))"
    here = {"PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parent)]), "PYTHONHASHSEED": "1"}
    ended = subprocess.run([sys.executable, "-c", call], env=os.environ | here, capture_output=True, text=True, check=True)
    assert ended.stdout.split() == seen


@pytest.mark.parametrize(
    "e", [Experiment(), Bench(), Improve(model="no:network"), Audit(model="no:network")], ids=lambda e: type(e).__name__
)
@pytest.mark.parametrize("split", ["test", "training"])
def test_a_folder_of_other_data_of_the_same_name_is_refused(e, split, tmp_path):
    path, folder = tmp_path / "d.npz", tmp_path / "run"

    def given(changed=""):
        x = {one: images(12, seed=len(one)) * (one != changed) for one in ("test", "training")}
        y = labels(12)
        np.savez(path, x_train=x["training"], y_train=y, x_test=x["test"], y_test=y)
        return replace(e, data=find(str(path)))

    keep_settings(given(), folder)
    assert same_settings(given(), folder)
    if isinstance(e, Audit) and split == "training":
        return
    assert not same_settings(given(split), folder)
    with pytest.raises(
        ValueError, match=f"began with other data: {split} images of .*d.npz have changed since; give another"
    ):
        check_folder(given(split), folder)
    (folder / BEGAN).unlink()  # of before it was kept
    assert same_settings(given(split), folder)


@pytest.mark.filterwarnings("ignore")  # what torch warns of while it compiles is its own
def test_what_is_compiled_is_the_same_in_every_copy_and_process():
    one, other = (torch.compile(Signed(held=1)) for _ in range(2))
    assert settings_of(one) == settings_of(other) == settings_of(copied(one)) != settings_of(torch.compile(Signed(held=2)))


class Augmented(torch.utils.data.Dataset):
    """Draws from numpy's and Python's own random states, as many do."""

    def __len__(self):
        return 24

    def __getitem__(self, index):
        return images(1, seed=index)[0] * np.random.uniform(0.5, 1) * random.uniform(0.5, 1), int(labels(24)[index])  # noqa: NPY002


def test_one_seed_is_one_training_whoever_draws(tmp_path):
    def loader():
        return torch.utils.data.DataLoader(Augmented(), batch_size=8)

    class Stopped(Exception):
        pass

    def stop(text, done, total):
        if done == total // 2:
            raise Stopped

    how = Schedule(epochs=2, batch_size=8)
    before = np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    first, again = (fit(trained(), loader(), Standard(), Linf(), how, seed=0).training.loss for _ in range(2))
    with pytest.raises(Stopped):
        fit(trained(), loader(), Standard(), Linf(), how, seed=0, options=FitOptions(folder=tmp_path, every=-1, report=stop))
    resumed = fit(trained(), loader(), Standard(), Linf(), how, seed=0, options=FitOptions(folder=tmp_path, every=-1))
    assert first == again == resumed.training.loss
    assert np.array_equal(np.random.get_state()[1], before[0])  # noqa: NPY002
    assert random.getstate() == before[1]


def test_every_batch_of_a_loader_is_checked():
    pairs = [(images(8), labels(8)), (255 * images(8), labels(8))]
    with pytest.raises(ValueError, match=r"cannot train: got pixels from .* to .*; expected"):
        fit(trained(), pairs, Standard(), Linf(), Schedule(epochs=1, batch_size=8), seed=0)


@pytest.mark.parametrize("rows", [[], iter([]), (images(0), labels(0))], ids=["list", "iterator", "tensors"])
def test_no_training_images_are_refused(rows):
    with pytest.raises(ValueError, match=r"cannot train: got (no|0) images"):
        fit(trained(), rows, Standard(), Linf(), Schedule(epochs=1), seed=0)


def test_labels_of_32_bits_train():
    short = fit(trained(), [(images(8), labels(8).int())], Standard(), Linf(), Schedule(epochs=1, batch_size=8), seed=0)
    long = fit(trained(), [(images(8), labels(8))], Standard(), Linf(), Schedule(epochs=1, batch_size=8), seed=0)
    assert short.training.loss == long.training.loss


@pytest.mark.parametrize("order", [1, -1])
def test_batches_with_ids_and_without_do_not_mix(order):
    given = [Batch(images(3), labels(3), torch.arange(3)), (images(3), labels(3))][::order]
    with pytest.raises(ValueError, match="some of the batches have ids and some have none"):
        as_batches(given)


class Sorted(Small):
    """Answers no numbers where rows come in another order than they were given in: by their first pixel."""

    def forward(self, x):
        first = x.flatten(1)[:, 0].detach()
        return super().forward(x) * (float("nan") if (first.diff() < -0.3).any() else 1.0)


def test_a_network_that_refuses_other_batches_is_named():
    x = images(32)
    x[:, 0, 0, 0] = torch.linspace(0, 1, 32)
    found = evaluate(Sorted().eval(), (x, labels(32)), Linf(0.01), [FGSM()]).evaluation
    checks = {one.name: one for one in found.checks}
    assert found.rebatched_accuracy is None
    assert (checks["scored in other batches"].status, found.robust_accuracy.value > 0) == ("warn", True)
