"""Threats of counts and ratios: a few pixels, a few frames, one tint per frame, factors."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from normwise.attacks import APGD, PGD
from normwise.seeding import generator
from normwise.threats import SPA, THREATS, Flicker, MultAV, Patch, SparseFrames
from normwise.types import Search
from toys import Linear, OverFrames, images, trained

CLIP, PICTURE = (2, 3, 6, 6), (2, 6, 6)
SEEDS, SCALES, RADII = st.integers(0, 10_000), st.sampled_from([0.05, 1, 30]), st.sampled_from([0.0, 0.02, 0.4, 1.0])
TRIES = settings(max_examples=40, deadline=None, derandomize=True)


def reached(threat, shape, seed, scale):
    """Clean images, and what is made of them by a step of ascent, by projection from far away, and at random."""
    x = images(4, shape, seed)
    region = threat.around(x, generator=generator(seed))
    noise = torch.randn(x.shape, generator=generator(seed, "far"))
    found = region.project(x + scale * noise), region.project(region.ascend(region.start(), noise, 0.3)), region.start()
    for x_adv in found:
        assert region.contains(x_adv).all()
        assert ((x_adv >= 0) & (x_adv <= 1)).all()
        torch.testing.assert_close(region.project(x_adv), x_adv, rtol=0, atol=1e-6)
        if threat.eps == 0:
            assert torch.equal(x_adv, x)
    return x, found


@TRIES
@given(seed=SEEDS, scale=SCALES, eps=RADII, count=st.sampled_from([1, 7, 36, 200]))
@pytest.mark.parametrize("per_frame", [True, False], ids=["per frame", "in all"])
@pytest.mark.parametrize("shape", [CLIP, PICTURE], ids=["clip", "picture"])
def test_no_more_pixels_change_than_are_allowed_and_channels_go_together(shape, per_frame, seed, scale, eps, count):
    threat = SPA(pixels=count, eps=eps, per_frame=per_frame and shape == CLIP)
    x, found = reached(threat, shape, seed, scale)
    for x_adv in found:
        pixels = (x_adv != x).any(1)
        assert (pixels.flatten(2 if threat.per_frame else 1).sum(-1) <= count).all()
        assert (x_adv - x).abs().max() <= eps + 1e-6


@TRIES
@given(seed=SEEDS, scale=SCALES, eps=RADII, count=st.sampled_from([1, 2, 5]))
def test_no_more_frames_change_than_are_allowed(seed, scale, eps, count):
    x, found = reached(SparseFrames(frames=count, eps=eps), CLIP, seed, scale)
    for x_adv in found:
        assert ((x_adv != x).any(4).any(3).any(1).sum(1) <= count).all()


@TRIES
@given(seed=SEEDS, scale=SCALES, eps=RADII)
def test_a_flicker_is_one_shift_per_frame_and_channel(seed, scale, eps):
    x, found = reached(Flicker(eps=eps), CLIP, seed, scale)
    for x_adv in found:
        moves = (x_adv - x).flatten(3)
        free = ((x_adv > 0) & (x_adv < 1)).flatten(3)
        for some in (moves.masked_fill(~free, -9).amax(-1), moves.masked_fill(~free, 9).amin(-1)):
            shift = torch.where(free.any(-1), some, moves.mean(-1))
            expected = (x + shift[..., None, None]).clamp(0, 1)
            wrong = (expected - x_adv).abs() > 1e-5
            assert not wrong[free.any(-1)].any()


@TRIES
@given(seed=SEEDS, scale=SCALES, eps=st.sampled_from([0.0, 0.04, 3.0]))
@pytest.mark.parametrize("within", ["all", "patch", "frame"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_ratios_are_bounded_and_what_is_0_stays_0(norm, within, seed, scale, eps):
    x, found = reached(
        MultAV(eps=eps, norm=norm, within=within, **({} if within == "all" else {"size": 2})), PICTURE, seed, scale
    )
    for x_adv in found:
        assert (x_adv[x == 0] == 0).all()
        logs = torch.where(x == 0, 0, (x_adv / x).log()).flatten(1)
        length = logs.norm(dim=1) if norm == "l2" else logs.abs().amax(1)
        assert (length <= torch.tensor(1 + eps).log() + 1e-4).all()


def test_a_step_multiplies_by_a_to_the_sign_of_the_gradient():
    x = torch.tensor([[0.5, 0.2, 0.0, 0.99]])
    region = MultAV(eps=0.04).around(x, generator=generator(0))
    step = region.ascend(x, torch.tensor([[1.0, -2.0, 3.0, 4.0]]), 0.01)
    torch.testing.assert_close(step, torch.tensor([[0.505, 0.2 / 1.01, 0.0, 0.9999]]))
    torch.testing.assert_close(
        region.project(torch.tensor([[1.0, 0.0, 1.0, 1.0]])), torch.tensor([[0.52, 0.2 / 1.04, 0.0, 1.0]])
    )


def test_of_a_linear_model_one_step_finds_the_pixels_that_count_most():
    model, x, y = Linear(PICTURE), torch.full((3, *PICTURE), 0.5), torch.tensor([0, 1, 1])
    threat = SPA(pixels=4)
    x_adv = PGD(steps=1, relative_step=1.0, random_start=False, keep="last")(
        model, x, y, threat, generator=generator(0)
    ).x_adv
    most = model.w.abs().sum(0).flatten().topk(4).indices.sort().values
    for row in (x_adv != x).any(1).flatten(1):
        assert torch.equal(row.nonzero().flatten(), most)


@pytest.mark.parametrize("attack", [PGD(steps=10), APGD(steps=10)], ids=lambda a: a.name)
@pytest.mark.parametrize(
    "threat", [Flicker(eps=0.3), SparseFrames(frames=2, eps=0.3), SPA(per_frame=True)], ids=lambda t: t.name
)
def test_attacks_raise_the_loss_of_clips(attack, threat):
    model, x = OverFrames(trained()), images(12, CLIP)
    y = model(x).argmax(1)
    proposal = attack(model, x, y, threat, generator=generator(0), search=Search(independent=True, stops=False))
    own = [model(z).softmax(1).gather(1, y[:, None]).mean() for z in (x, proposal.x_adv)]
    assert own[1] < own[0]


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("spa", {"pixels": 0}, "pixels of spa is a count"),
        ("spa", {"eps": 2.0}, "eps of spa"),
        ("sparse_frames", {"frames": 0}, "frames of sparse_frames is a count"),
        ("flicker", {"eps": -0.1}, "eps of flicker"),
        ("multav", {"eps": -1.0}, "eps of multav"),
        ("multav", {"norm": "l1"}, "norm"),
        ("multav", {"size": 3}, "nothing uses it"),
    ],
)
def test_what_cannot_be_is_refused(name, options, reason):
    with pytest.raises(ValueError, match=reason):
        THREATS.make({"name": name, **options})


def test_frames_of_an_image_are_refused_by_name():
    with pytest.raises(ValueError, match=r"spa with per_frame changes frames of clips .*; give clips"):
        SPA(per_frame=True).around(images(2), generator=generator(0))


def test_places_of_a_patch_are_numbered_row_by_row_and_its_content_can_be_carried():
    x = images(3, (2, 5, 6))
    region = Patch(size=2).around(x, generator=generator(0))
    assert region.places == 20
    there = region.placed(torch.tensor([0, 2, 2]), torch.tensor([0, 7, 19]))
    assert there.place.tolist() == [0, 7, 19]
    assert [row[0].nonzero()[0].tolist() for row in there.mask] == [[0, 0], [1, 2], [3, 4]]
    assert there.moved(torch.tensor([[-1, 1], [1, -9], [1, 1]])).tolist() == [1, 10, 19]
    white = there.pasted(torch.ones(3, 2, 2, 2))
    assert torch.equal(there.cut(white), torch.ones(3, 2, 2, 2))
    assert torch.equal(white[~there.mask], x[[0, 2, 2]][~there.mask])
    sums = there.sums(x[[0, 2, 2]])
    torch.testing.assert_close(sums.gather(1, there.place[:, None])[:, 0], there.cut(x[[0, 2, 2]]).flatten(1).sum(1))
