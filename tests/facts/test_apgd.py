"""APGD and its losses: known values, and what makes it itself."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from normwise import losses
from normwise.attacks import APGD, PGD
from normwise.attacks.apgd import _checkpoints
from normwise.seeding import generator
from normwise.threats import L1, Linf
from normwise.types import Search
from toys import images, labels, trained


def test_checkpoints_are_the_papers():
    """p_1 = 0.22, then shorter by 0.03 each until 0.06 (Croce and Hein 2020, sec. 3.2)."""
    assert sorted(_checkpoints(100)) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert sorted(_checkpoints(10)) == [3, 5, 6, 7, 8, 9, 10]


def test_dlr_is_its_formula():
    logits = torch.tensor([[4.0, 1.0, 3.0, 2.0], [4.0, 1.0, 3.0, 2.0]])
    y = torch.tensor([0, 1])
    torch.testing.assert_close(losses.dlr(logits, y), torch.tensor([(3.0 - 4) / (4 - 2), (4.0 - 1) / (4 - 2)]))
    target = torch.tensor([3, 2])
    expected = torch.tensor([(2.0 - 4) / (4 - 1.5), (3.0 - 1) / (4 - 1.5)])
    torch.testing.assert_close(losses.targeted_dlr(logits, y, target), expected)


@given(seed=st.integers(0, 1000), scale=st.floats(0.1, 100), shift=st.floats(-10, 10), classes=st.integers(4, 8))
def test_dlr_does_not_see_scale_and_shift(seed, scale, shift, classes):
    logits = torch.randn(5, classes, generator=generator(seed), dtype=torch.float64)
    y, target = labels(5, classes, seed), labels(5, classes, seed + 1)
    for loss in (losses.dlr, lambda z, y: losses.targeted_dlr(z, y, target)):
        torch.testing.assert_close(loss(scale * logits + shift, y), loss(logits, y))


@pytest.mark.parametrize("classes", [2, 3])
def test_with_few_classes_the_ratio_falls_back_knowingly(classes):
    logits, y = torch.randn(6, classes), labels(6, classes)
    target = losses.likely_wrong(logits, y, 9)[:, 0]
    if classes == 2:
        torch.testing.assert_close(losses.dlr(logits, y), losses.margin(logits, y))
    torch.testing.assert_close(losses.targeted_dlr(logits, y, target), losses.margin(logits, y))
    assert losses.likely_wrong(logits, y, 9).shape == (6, classes - 1)
    x_adv = APGD(steps=5, targets=9)(trained(), images(), labels(), Linf(), generator=generator(0)).x_adv
    assert x_adv.shape == images().shape


def test_likely_wrong_classes_leave_the_label_out_and_begin_with_the_likeliest():
    logits = torch.tensor([[4.0, 1.0, 3.0, 2.0]])
    assert losses.likely_wrong(logits, torch.tensor([2]), 2).tolist() == [[0, 3]]


@pytest.mark.parametrize("threat", [Linf(eps=0.015), L1(eps=0.7)], ids=str)
def test_it_is_at_least_as_strong_as_pgd_at_the_same_number_of_gradients(threat):
    model, x = trained(), images(60)
    with torch.no_grad():
        model.linear.bias.sub_(model(x).mean(0))
    y = model(x).argmax(1)
    standing = []
    for attack in (PGD(steps=40), APGD(steps=40), APGD(steps=40, loss="dlr"), APGD(steps=40, targets=2)):
        x_adv = attack(model, x, y, threat, generator=generator(0), search=Search(independent=True)).x_adv
        standing.append(int((model(x_adv).argmax(1) == y).sum()))
    assert max(standing[1:]) <= standing[0]
    assert 0 < standing[0] < 60


def watched(steps, threat, *, independent=True, rows=6):
    """What the model was asked, when no row falls."""
    asked, inner = [], trained()

    class Sure(torch.nn.Module):
        def forward(self, x):
            asked.append(x.detach().clone())
            return inner(x) + torch.tensor([1000.0, 0, 0])

    x, y = images(rows), torch.zeros(rows, dtype=torch.long)
    proposal = APGD(steps=steps, loss="margin")(
        Sure(), x, y, threat, generator=generator(0), search=Search(independent=independent)
    )
    return x, asked, proposal


@pytest.mark.parametrize("independent", [True, False], ids=["independent", "whole batch"])
@pytest.mark.parametrize("steps", [1, 2, 10, 100])
def test_in_l1_the_ball_shrinks_from_three_radii_to_one_and_only_its_own_images_are_kept(steps, independent):
    threat = L1(eps=0.5)
    x, asked, proposal = watched(steps, threat, independent=independent)
    assert proposal.backwards == proposal.forwards == len(asked) * len(x) == (steps + 3) * len(x)
    length = torch.stack([(one - x).abs().flatten(1).sum(1) for one in asked])
    radii = torch.tensor([3] * (1 + round(0.3 * steps)) + [2] * (1 + round(0.6 * steps) - round(0.3 * steps)))
    radii = torch.cat([radii, torch.ones(len(asked) - len(radii))])[:, None]
    assert (length <= 0.5 * radii + 1e-5).all()
    if steps >= 10:
        assert (length.amax(1) > 0.45 * radii[:, 0]).float().mean() > 0.9  # and it is used
    assert independent or any(torch.equal(one, proposal.x_adv) for one in asked)
    assert threat.around(x, generator=generator(0)).contains(proposal.x_adv).all()


def test_in_l1_few_pixels_move_and_ever_fewer():
    x, asked, _ = watched(100, L1(eps=2))
    moved = torch.tensor([float((one != x).flatten(1).sum(1).float().mean()) for one in asked])
    assert moved[0] < 30  # of 72: noise that is projected is sparse
    assert moved[-10:].mean() < 15
