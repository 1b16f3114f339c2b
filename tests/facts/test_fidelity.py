"""A faster copy is used where it answers and slopes as the network does; else it is given up, and named."""

import re

import pytest
import torch
from torch import nn

from normwise import PGD, FitOptions, Linf, Schedule, evaluate, fit, fold
from normwise.evaluation.acceleration import FAST, faster
from normwise.training.recipes import Adversarial
from normwise.utils.fidelity import difference_from
from normwise.utils.model_state import copied
from toys import THREAT, Stripes, agreeing, balanced, batches, images, trained


class Misled(nn.Module):
    """Answers as the network inside does, and sends gradients the other way."""

    def __init__(self, inner):
        super().__init__()
        self.inner = copied(inner)

    def forward(self, x):
        back = 2 * x.detach() - x
        return self.inner(back)


class Off(nn.Module):
    """Answers a hundredth of the logits' spread beside the network inside."""

    def __init__(self, inner):
        super().__init__()
        self.inner = copied(inner)

    def forward(self, x):
        logits = self.inner(x)
        apart = logits - logits.mean(1, keepdim=True)
        return logits + 0.01 * apart.abs().amax()


def cut(inner):
    return nn.Sequential(Detached(), copied(inner))


class Detached(nn.Module):
    def forward(self, x):
        return x.detach()


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (copied, ""),
        (fold, ""),
        (Off, r"logits differ by 1.3% of their spread"),
        (Misled, r"gradients differ by 2e\+02%"),
        (cut, "of one of the two alone"),
    ],
)
def test_logits_and_gradients_are_compared(make, reason):
    model = trained()
    before = images(8)
    x = before.clone()
    assert bool(difference_from(model, make(model), x, 0)) == bool(reason)
    assert re.search(reason, difference_from(model, make(model), x, 0))
    assert torch.equal(x, before)
    masked = (nn.Sequential(one, nn.ConstantPad1d((0, 1), -1e9)) for one in (model, make(model)))
    assert bool(difference_from(*masked, x, 0)) == bool(reason)
    assert difference_from(cut(model), cut(model), x, 0) == ""


@pytest.mark.parametrize("wrong", [Off, Misled])
def test_an_evaluation_gives_up_a_copy_that_misleads_and_names_it(wrong, monkeypatch):
    model = balanced()
    parts = agreeing(model, batches())
    truth = evaluate(model, parts, THREAT, [PGD(steps=10)]).evaluation
    monkeypatch.setattr("normwise.evaluation.acceleration.fold", wrong)
    assert faster(model, FAST, images(8), 0).made == ()
    found = evaluate(model, parts, THREAT, [PGD(steps=10)]).evaluation
    assert found.robust_accuracy.value == truth.robust_accuracy.value
    named = [check for check in found.checks if check.name == "faster copy"]
    assert named[0].measured.startswith("not used: its")
    assert not [check for check in truth.checks if check.name == "faster copy"]


@pytest.mark.parametrize("wrong", [Off, Misled])
def test_training_crafts_on_the_network_itself_where_its_copy_misleads(wrong, monkeypatch, tmp_path):
    monkeypatch.setattr("normwise.training.recipes.crafting.FOLDS", 0)
    folded = []
    monkeypatch.setattr("normwise.training.recipes.crafting.fold", lambda model: folded.append(1) or wrong(model))
    how = Adversarial(steps=2), Linf(eps=0.1), Schedule(epochs=2, lr=0.01, batch_size=48)
    made = fit(trained(), Stripes(), *how, seed=0, options=FitOptions(folder=tmp_path)).training
    assert made.remarks[0].startswith("attacked itself in training, not its folded copy: its")
    assert len(folded) == 1, "once in a training"
    (tmp_path / "last.pt").unlink()
    fit(trained(), Stripes(), *how, seed=0, options=FitOptions(folder=tmp_path))
    assert len(folded) == 2, "and once where it goes on or begins again"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_training_on_a_copy_that_answers_alike_says_nothing(precision, monkeypatch):
    monkeypatch.setattr("normwise.training.recipes.crafting.FOLDS", 0)
    how = Adversarial(steps=2), Linf(eps=0.1), Schedule(epochs=1, lr=0.01, batch_size=48, precision=precision)
    assert fit(trained(), Stripes(), *how, seed=0).training.remarks == ()
