"""Square: what makes it itself."""

import pytest
import torch

from normwise.attacks import Square
from normwise.attacks.square_patches import bump, patch_sides
from normwise.losses import margin
from normwise.seeding import generator
from normwise.threats import L1, L2, Linf
from normwise.types import Search
from toys import Linear, Neighbours, images, labels, trained


class Watched(torch.nn.Module):
    """A model that remembers what it was asked."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.asked = inner, []

    def forward(self, x):
        self.asked.append(x.clone())
        return self.inner(x)


def test_the_share_is_halved_at_the_published_queries():
    published = {0: 1, 10: 1, 11: 2, 50: 2, 51: 4, 201: 8, 501: 16, 1001: 32, 2001: 64, 4001: 128, 6001: 256, 8001: 512}
    assert {step: 0.8 / Square(steps=10_000).share(step) for step in published} == published
    assert Square(steps=5000).share(100) == Square(steps=10_000).share(200) == 0.8 / 4
    assert Square(steps=5000).share(101) == 0.8 / 8


@pytest.mark.parametrize("share", [0.8, 0.4, 0.1, 0.0125, 0.8 / 512])
def test_patches_of_square_pictures_have_the_published_sides(share):
    side = max(1, round((share * 32 * 32) ** 0.5))
    assert patch_sides((1, 32, 32), share) == (1, side, side)
    odd = max(3, side) + (max(3, side) % 2 == 0)
    assert patch_sides((1, 32, 32), share, 3, odd=True) == (1, odd, odd)


@pytest.mark.parametrize("size", [(1, 1, 1), (1, 1, 40), (1, 20, 40), (4, 30, 30), (1, 2, 2), (9, 1, 7)])
@pytest.mark.parametrize("share", [1.0, 0.5, 0.01, 1e-6])
def test_patches_cover_their_share_and_never_more_than_the_picture(size, share):
    sides = patch_sides(size, share)
    assert all(1 <= side <= most for side, most in zip(sides, size, strict=True))
    covered = sides[0] * sides[1] * sides[2] / (size[0] * size[1] * size[2])
    assert covered == pytest.approx(share, rel=0.35, abs=1 / (size[0] * size[1] * size[2]))


def test_a_bump_is_the_published_one():
    """Two halves, 2x5 and 3x5, each with sum_{j > r} 1 / j^2 at distance r of its middle, up to j = 3."""
    height = [1 + 1 / 4 + 1 / 9, 1 / 4 + 1 / 9, 1 / 9]
    upper = [[height[max(abs(i - 1), abs(j - 2))] for j in range(5)] for i in range(2)]
    lower = [[-height[max(abs(i - 1), abs(j - 2))] for j in range(5)] for i in range(3)]
    wanted = torch.tensor(upper + lower)
    torch.testing.assert_close(bump((1, 5, 5), 1)[0], wanted / wanted.norm())
    torch.testing.assert_close(bump((1, 5, 5), 2)[0], wanted.T / wanted.norm())
    assert bump((3, 5, 5), 1).norm() == pytest.approx(1)


def test_a_bump_in_l1_is_steeper_and_of_l1_length_1():
    height = [1 + 1 / 16 + 1 / 81, 1 / 16 + 1 / 81, 1 / 81]
    upper = torch.tensor([[height[max(abs(i - 1), abs(j - 2))] for j in range(5)] for i in range(2)])
    found = bump((1, 5, 5), 1, 1)[0]
    torch.testing.assert_close(found[:2] / found[1, 2], upper / height[0])
    assert bump((3, 5, 5), 1, 1).abs().sum() == pytest.approx(1)


@pytest.mark.parametrize("shape", [(20,), (2, 9), (2, 6, 6), (1, 7, 11), (2, 3, 6, 5)], ids=str)
def test_linf_changes_one_patch_of_extreme_pixels_at_a_time(shape):
    """Every image asked about is at the ends of the ball; it differs from an earlier one in a box, by one sign per channel."""
    x, eps = images(1, shape), 0.05
    model = Watched(Linear(shape))
    Square(steps=60)(model, x, model(x).argmax(1), Linf(eps=eps), generator=generator(0), search=Search(independent=True))
    low, high = (x - eps).clamp(0, 1), (x + eps).clamp(0, 1)
    asked = torch.cat(model.asked[2:])  # the first was ours, the second the clean image
    assert ((asked == low) | (asked == high)).all()
    up = (asked == high).reshape(len(asked), shape[0] if len(shape) > 1 else 1, *(shape[1:] or shape))
    for now in range(1, len(up)):
        boxes = []
        for earlier in range(now):
            where = (up[now] != up[earlier]).nonzero()
            if len(where) == 0:  # the answer may have changed: the row has moved in between
                boxes.append(True)
                continue
            low_corner, high_corner = where.amin(0)[1:], where.amax(0)[1:]
            box = up[now][(slice(None), *map(slice, low_corner.tolist(), (high_corner + 1).tolist()))]
            flat = box.flatten(1)
            boxes.append(bool((flat == flat[:, :1]).all(1)[where[:, 0].unique()].all()))
        assert any(boxes)


@pytest.mark.parametrize("shape", [(20,), (2, 9), (1, 7, 11), (3, 12, 12), (2, 3, 6, 5)], ids=str)
@pytest.mark.parametrize("make", [L2, L1])
@pytest.mark.parametrize("eps", [0.02, 0.5, 1.5])
def test_every_l2_and_l1_query_lies_in_ball_and_box(shape, eps, make):
    x = images(6, shape)
    model, threat = Watched(Linear(shape)), make(eps=eps)
    Square(steps=100)(model, x, labels(6, 2), threat, generator=generator(0))
    for asked in model.asked:
        assert threat.around(x, generator=generator(0)).contains(asked).all()


@pytest.mark.parametrize(("shape", "l2_share"), [((20,), 0.85), ((4, 5), 0.7), ((2, 4, 4), 0.7), ((2, 3, 3, 3), 0.35)])
@pytest.mark.parametrize("threat", [Linf(eps=0.1), L2(eps=0.5)], ids=str)
def test_it_comes_near_the_optimum_of_a_linear_model(threat, shape, l2_share):
    """In linf it gets there; bumps, made for pictures, are a coarse basis for the noise that these weights are."""
    x, y = 0.25 + 0.5 * images(5, shape), torch.ones(5, dtype=torch.long)  # away from the box

    class Sure(Linear):
        def forward(self, x):
            return super().forward(x) - torch.tensor([100.0, 0.0])  # no row falls

    model = Sure(shape)
    x_adv = Square(steps=1000)(
        model, x, y, threat, generator=generator(0), search=Search(independent=True, give_up=False)
    ).x_adv
    most = 0.95 * 0.1 * model.w.abs().sum() if threat.name == "linf" else l2_share * 0.5 * model.w.norm()
    assert (margin(model(x_adv), y) - margin(model(x), y) >= most).all()


def test_no_row_is_asked_twice_about_one_image():
    x = images(3, (1, 5, 5))
    model = Watched(Linear((1, 5, 5)))
    y = model(x).argmax(1)
    proposal = Square(steps=400)(model, x, y, Linf(eps=1e-4), generator=generator(0), search=Search(independent=True))
    assert proposal.first_hit.tolist() == [-1, -1, -1]
    assert proposal.forwards < 3 * 250
    asked = torch.cat(model.asked[2:-1])
    model.inner.requires_grad_(False)
    best, since = {}, {}
    for image in asked:
        row = int((image - x).flatten(1).abs().amax(1).argmin())
        loss = float(margin(model.inner(image[None]), y[row : row + 1]))
        if loss > best.get(row, -torch.inf):
            best[row], since[row] = loss, []
        key = image.numpy().tobytes()
        assert key not in since[row]
        since[row].append(key)


@pytest.mark.parametrize("threat", [Linf(eps=0.03), L2(eps=0.2), L1(eps=1.5)], ids=str)
def test_coupled_rows_fall_together_in_a_batch_that_the_model_saw(threat):
    inner, x = trained(), images(30)
    with torch.no_grad():
        inner.linear.bias.sub_(inner(x).mean(0))
    model = Watched(Neighbours(inner))
    y = model(x).argmax(1)
    proposal = Square(steps=300)(model, x, y, threat, generator=generator(0))
    fallen = int((model(proposal.x_adv).argmax(1) != y).sum())
    assert fallen == max(int((model.inner(asked).argmax(1) != y).sum()) for asked in model.asked)
    assert any(torch.equal(asked, proposal.x_adv) for asked in model.asked[:-1])
    alone = Square(steps=150)(inner, x, y, threat, generator=generator(0), search=Search(independent=True)).x_adv
    assert fallen >= 0.8 * int((inner(alone).argmax(1) != y).sum()) > 0


def test_more_restarts_are_never_weaker():
    model, x = trained(), images(40)
    with torch.no_grad():
        model.linear.bias.sub_(model(x).mean(0))
    y, threat = model(x).argmax(1), Linf(eps=0.02)
    fallen = []
    for restarts in (1, 4):
        attack = Square(steps=20, restarts=restarts)
        x_adv = attack(model, x, y, threat, generator=generator(0), search=Search(independent=True)).x_adv
        fallen.append(int((model(x_adv).argmax(1) != y).sum()))
    assert 0 < fallen[0] < fallen[1] < 40


def test_a_radius_of_zero_changes_nothing():
    x = images()
    for threat in (Linf(eps=0), L2(eps=0), L1(eps=0)):
        for independent in (True, False):
            attack = Square(steps=10)
            assert torch.equal(
                attack(trained(), x, labels(), threat, generator=generator(0), search=Search(independent=independent)).x_adv,
                x,
            )


@pytest.mark.parametrize(
    "options", [{"steps": -1}, {"restarts": 0}, {"p_init": 0.0}, {"p_init": 1.5}, {"loss": "cee"}], ids=str
)
def test_impossible_options_are_refused(options):
    with pytest.raises(ValueError, match=r"square|loss"):
        Square(**options)


def test_other_geometries_are_refused():
    class Other:
        name = "other"

        def around(self, x, *, generator):
            region = Linf().around(x, generator=generator)
            region.kind = "other"
            return region

    with pytest.raises(ValueError, match="square needs linf, l2 or l1; got other"):
        Square()(trained(), images(), labels(), Other(), generator=generator(0))


def test_in_l2_its_images_stay_in_the_ball_in_float64_too():
    model, x = Linear((1, 8, 8)).double(), images(8, (1, 8, 8)).double()
    threat = L2(eps=0.5)
    x_adv = Square(steps=3)(
        model, x, model(x).argmax(1), threat, generator=generator(0), search=Search(independent=True)
    ).x_adv
    assert (threat.around(x, generator=generator(0)).distance(x_adv) <= 0.5 + 1e-12).all()
