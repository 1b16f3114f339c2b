"""Straight through: the same answers, another gradient."""

import pytest
import torch
from torch import nn

from normwise.attacks import PGD
from normwise.attacks.bpda import straight_through
from normwise.evaluation.evaluator import evaluate
from normwise.threats import Linf
from normwise.types import Batch
from toys import images, trained


class Rounds(nn.Module):
    def forward(self, x):
        return (16 * x).round() / 16


def defended():
    return nn.Sequential(Rounds(), trained()).eval()


def test_answers_are_the_same_to_the_bit_and_gradients_come_through():
    model, x = defended(), images().requires_grad_()
    copy = straight_through(model, {"0": None})
    assert torch.equal(copy(x), model(x))
    assert not any(isinstance(m, type(copy[0])) for m in model.modules())  # the model given is not edited
    inner = torch.autograd.grad(model[1]((16 * x).round() / 16 + 0 * x).sum(), x, retain_graph=True)[0]
    assert (inner == 0).all()
    rounded = Rounds()(x).detach().requires_grad_()
    expected = torch.autograd.grad(model[1](rounded).sum(), rounded)[0]
    torch.testing.assert_close(torch.autograd.grad(copy(x).sum(), x)[0], expected)


def test_a_stand_in_gives_its_own_gradient():
    model, x = defended(), images().requires_grad_()
    plain, half = (torch.autograd.grad(straight_through(model, {"0": f})(x).sum(), x)[0] for f in (None, lambda x: x / 2))
    torch.testing.assert_close(half, plain / 2)


def test_a_rounding_defence_that_stops_pgd_falls_to_the_copy():
    model = defended()
    with torch.no_grad():
        model[1].linear.bias.sub_(model(images(40)).mean(0))
    x = images(40)
    batch, threat = Batch(x, model(x).argmax(1), torch.arange(40)), Linf(eps=0.05)
    attack = PGD(steps=10, random_start=False)
    naive = evaluate(model, [batch], threat, (attack,)).evaluation.robust_accuracy.value
    real = evaluate(model, [batch], threat, (attack,), craft_on=straight_through(model, {"0": None})).evaluation
    assert naive == 1  # the gradient is 0 everywhere
    assert real.robust_accuracy.value < 0.7


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="no layer is named 'O'"):
        straight_through(defended(), {"O": None})
    with pytest.raises(ValueError, match="its stand-in"):
        straight_through(defended(), {"0": lambda x: x[:, :1]})(images())


def test_a_layer_with_two_names_is_replaced_under_both():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = self.second = Rounds()

        def forward(self, x):
            return self.second(self.first(x))

    for layers in ({"first": None}, {"second": None}, {"first": None, "second": None}):
        x = images().requires_grad_()
        assert (torch.autograd.grad(straight_through(Twice(), layers)(x).sum(), x)[0] == 1).all()
