"""Patches and frames: which pixels may move."""

import pytest
import torch

from normwise.attacks import APGD, PGD, Square
from normwise.seeding import generator
from normwise.threats import THREATS, Frame, Patch
from normwise.types import Search
from toys import images, labels, trained


@pytest.mark.parametrize("shape", [(2, 8, 8), (2, 3, 8, 8), (3, 8), (8,)], ids=len)
def test_a_patch_is_allowed_anywhere_and_two_are_not(shape):
    x = images(6, shape).clamp(0.2, 0.8)
    region = Patch(size=3).around(x, generator=generator(0))
    assert region.contains(region.start()).all()
    one = x.clone()
    one[..., :3, :3] = 1 if len(shape) > 2 else x[..., :3, :3]
    one[..., :3] = one[..., :3] if len(shape) > 2 else 1
    assert region.contains(one).all()  # although the region's own place is another
    two = one.clone()
    two[..., -1] = 0
    assert not region.contains(two).any()
    assert not region.contains(x + 1).any()


def test_a_patch_in_a_clip_stays_at_its_place_and_other_rows_have_others():
    x = images(20, (1, 4, 8, 8))
    changed = Patch(size=3).around(x, generator=generator(0)).start() != x
    assert changed.any((1, 2)).flatten(1).sum(1).max() <= 9
    assert len({tuple(row.flatten().tolist()) for row in changed.any((1, 2))}) > 5


def test_a_frame_is_its_border_alone():
    x = images(4, (2, 8, 8))
    far = 1 - x.round()
    moved = Frame(width=2).around(x, generator=generator(0)).project(far) != x
    assert not moved[..., 2:6, 2:6].any()
    assert moved.sum() == 4 * 2 * (64 - 16)
    assert not Frame(width=1).around(x, generator=generator(0)).contains(far).any()


def test_pgd_works_inside_a_mask_and_square_says_that_it_does_not():
    model, x, y = trained(), images(), labels()
    for threat in (Patch(size=3), Frame(width=1, eps=0.5)):
        x_adv = PGD(steps=3)(model, x, y, threat, generator=generator(0)).x_adv
        assert threat.around(x, generator=generator(1)).contains(x_adv).all()
        with pytest.raises(ValueError, match=rf"square needs linf.* or .*; got {threat.name}"):
            Square(steps=3)(model, x, y, threat, generator=generator(0))


@pytest.mark.parametrize("options", [{"size": 0}, {"eps": 1.5}, {"size": 2.5}], ids=str)
def test_impossible_patches_are_refused(options):
    with pytest.raises(ValueError, match=r"(size|eps) of .*patch"):
        THREATS.make({"name": "patch", **options})


@pytest.mark.parametrize("attack", [PGD(steps=1, restarts=30), APGD(steps=1, restarts=30)], ids=lambda a: a.name)
def test_each_restart_draws_another_place_for_a_patch(attack):
    """One pixel of each row decides; a patch of one pixel finds it only where it happens to be."""

    class OnePixel(torch.nn.Module):
        def forward(self, x):
            score = x[:, 0, 1, 1] - 0.5 + 1e-3 * x.flatten(1).mean(1)
            return torch.stack([torch.zeros_like(score), score], 1)

    x, y = torch.full((4, 1, 3, 3), 0.9), torch.ones(4, dtype=torch.long)
    threat = Patch(size=1)
    proposal = attack(OnePixel(), x, y, threat, generator=generator(0), search=Search(independent=True))
    assert (OnePixel()(proposal.x_adv).argmax(1) == 0).all()
    assert threat.around(x, generator=generator(1)).contains(proposal.x_adv).all()
