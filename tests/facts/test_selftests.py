"""The self-tests pass what is sound and fail what is broken."""

import pytest
import torch
from torch import nn

from normwise.attacks import FGSM, PGD, AutoAttack
from normwise.auditing.attack_tests import _monotone, selftest
from normwise.auditing.planted import planted_images
from normwise.seeding import generator
from normwise.threats import L1, L2, Linf
from normwise.types import Batch
from toys import images, trained

THREAT = Linf(eps=0.05)


class Rounds(nn.Module):
    def forward(self, x):
        return (16 * x).round() / 16


def world(model):
    with torch.no_grad():
        last = model if hasattr(model, "linear") else model[-1]
        last.linear.bias.sub_(model(images(40)).mean(0))
    x = images(12)
    return model.eval(), Batch(x, model(x).argmax(1), torch.arange(12))


def statuses(model, attack):
    model, batch = world(model)
    return {check.name: check.status for check in selftest(model, batch, THREAT, attack)}


def test_sound_attacks_on_a_sound_network_pass():
    found = statuses(trained(), AutoAttack(steps=20, queries=100))
    assert set(found.values()) == {"pass"}
    assert len(found) == 5


def test_an_attack_without_gradients_to_follow_fails():
    found = statuses(nn.Sequential(Rounds(), trained()), PGD(steps=20, random_start=False))
    assert found["planted image"] == "fail"
    assert found["white box, black box"] == "fail"
    assert found["linear optimum"] == "pass"  # the attack itself is sound


def test_an_attack_that_stops_too_early_misses_what_was_planted():
    assert statuses(trained(), PGD(steps=1, relative_step=0.1, random_start=False))["planted image"] == "fail"
    assert statuses(trained(), FGSM())["radius one"] == "pass"


def test_a_network_that_does_not_look_is_told_from_one_that_holds():
    blind = trained()
    nn.init.zeros_(blind.linear.weight)
    model, batch = world(blind)
    found = {check.name: check for check in selftest(model, batch, THREAT, FGSM())}
    assert found["radius one"].status == "pass"
    assert "does not depend on the input" in found["radius one"].measured
    assert found["planted image"].status == "pass"  # its features do look


class Told(type(trained())):
    """Writes into its input, answers in a dict, and reads its last layer by name."""

    def forward(self, x):
        y = self.conv2(self.norm(self.conv1(x.sub_(0.1))).relu()).relu().mean((2, 3))
        return {"logits": nn.functional.linear(y, self.linear.weight), "features": y}


@pytest.mark.parametrize(
    ("threat", "make"),
    [(THREAT, trained), (L2(eps=0.5), trained), (THREAT, lambda: Told().eval())],
    ids=["linf", "l2", "dict"],
)
def test_what_is_planted_is_the_only_image_of_its_kind(threat, make):
    for row in range(4):
        x = images(1, seed=row)
        made = planted_images(make(), x, threat, seed=row)
        assert made is not None
        network, planted = made
        assert threat.around(x, generator=generator(0)).contains(planted).all()
        assert network(planted).argmax(1) == 1
        assert network(x).argmax(1) == 0
        others = threat.around(x.expand(100, *x.shape[1:]), generator=generator(row)).start()
        assert (network(others).argmax(1) == 1).float().mean() < 0.1


@pytest.mark.parametrize(("threat", "reason"), [(L2(eps=3.0), 4), (L1(eps=12.0), 4), (Linf(eps=0.6), 3)], ids=str)
def test_radii_vary_up_to_the_diameter_of_the_box(threat, reason):
    model, batch = world(trained())
    over_eps = _monotone(model, batch, threat, FGSM(), 0).measured.removeprefix("over eps: ")
    assert len(over_eps.split(",")) == reason
