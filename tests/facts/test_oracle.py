"""What an attacker asks: means over draws, batches in parts, the far ends of a region."""

import pytest
import torch

from normwise import losses
from normwise.attacks import APGD, PGD, Corner, MultiTargeted
from normwise.attacks.oracle import Oracle
from normwise.norms import BNwoT
from normwise.seeding import generator
from normwise.threats import Linf
from normwise.types import Search
from toys import Linear, Small, images, labels, trained

EVERY = torch.ones(12, dtype=torch.bool)


class Tossed(Small):
    """Each forward pass multiplies the pixels by another number, 0.5 or 1.5."""

    def forward(self, x):
        return super().forward(x * (torch.randint(0, 2, ()) + 0.5))


def test_the_gradient_is_the_mean_over_draws_of_the_models_noise():
    model, x, y = Tossed().eval(), images(), labels()
    torch.manual_seed(0)
    oracle = Oracle(model)
    look = oracle.averaged(4, "noise", x, generator(0)).gradient(x, y, losses.margin, EVERY)
    assert (oracle.forwards, oracle.backwards) == (48, 48)
    torch.manual_seed(0)
    looks = [Oracle(model).gradient(x, y, losses.margin, EVERY) for _ in range(4)]
    torch.testing.assert_close(look.grad, sum(one.grad for one in looks) / 4)
    assert not torch.allclose(look.grad, looks[0].grad)


def test_over_peers_each_half_is_asked_beside_clean_images():
    seen = []

    class Watching(Small):
        def forward(self, x):
            seen.append(x.detach())
            return super().forward(x)

    model, clean, y = Watching(BNwoT()).eval(), images(), labels()
    x = 1 - clean
    Oracle(model).averaged(1, "peers", clean, generator(0)).gradient(x, y, losses.margin, EVERY)
    assert len(seen) == 1  # one draw is the batch as it is
    seen.clear()
    look = Oracle(model).averaged(3, "peers", clean, generator(0)).gradient(x, y, losses.margin, EVERY)
    for first, second in zip(seen[::2], seen[1::2], strict=True):
        kept, other = ((part == x).flatten(1).all(1) for part in (first, second))
        assert torch.equal(kept, ~other)
        assert kept.sum() == 6
        for row in first[~kept]:
            assert (clean == row).flatten(1).all(1).any()
    assert look.grad.flatten(1).abs().amax(1).min() > 0


@pytest.mark.parametrize("attack", [PGD(steps=5, draws=3), APGD(steps=5, draws=3, over="peers")], ids=lambda a: a.label)
def test_attacks_pay_for_their_draws(attack):
    model, x, y = trained(BNwoT()), images(), labels()
    one = type(attack)(steps=5)(model, x, y, Linf(), generator=generator(0)).backwards
    assert attack(model, x, y, Linf(), generator=generator(0)).backwards == one * (3 if attack.over == "noise" else 6)


def test_a_batch_too_large_for_memory_goes_through_in_parts():
    class Cramped(Small):
        def forward(self, x):
            if len(x) > 5:
                raise torch.OutOfMemoryError("6 rows are too many")
            return super().forward(x)

    cramped, roomy = Cramped().eval(), Small().eval()
    x, y = images(), labels()
    for attack in (PGD(steps=3, targets=2), APGD(steps=3, targets=2)):
        whole, parts = (
            attack(m, x, y, Linf(), generator=generator(0), search=Search(independent=True)) for m in (roomy, cramped)
        )
        torch.testing.assert_close(parts.x_adv, whole.x_adv)
    with pytest.raises(torch.OutOfMemoryError):  # coupled rows cannot be parted
        PGD(steps=3)(cramped, x, y, Linf(), generator=generator(0))


def test_on_a_cpu_independent_rows_go_through_in_parts_that_stay_small():
    seen = []

    class Watching(torch.nn.Module):
        def forward(self, x):
            seen.append(len(x))
            return x.flatten(2).mean(2)

    x = torch.rand(20, 2, 2**15, generator=generator(0))
    y = x.flatten(2).mean(2).argmax(1)
    looks = {
        divisible: Oracle(Watching(), Search(independent=divisible)).gradient(x, y, losses.margin, torch.ones(20).bool())
        for divisible in (True, False)
    }
    assert seen == [8, 8, 4, 20]  # some 2 ** 19 pixels at a time; coupled rows stay together
    for part, whole in zip(looks[True], looks[False], strict=True):
        torch.testing.assert_close(part, whole)


def test_every_image_of_a_model_that_looks_falls_at_radius_one_and_none_of_one_that_does_not():
    model = Linear((2, 6, 6))
    x = images(20)
    y = model(x).argmax(1)
    x_adv = Corner()(model, x, y, Linf(eps=1.0), generator=generator(0)).x_adv
    assert (model(x_adv).argmax(1) != y).all()
    blind = Small().eval()
    torch.nn.init.zeros_(blind.linear.weight)
    y = blind(x).argmax(1)
    assert (blind(Corner()(blind, x, y, Linf(eps=1.0), generator=generator(0)).x_adv).argmax(1) == y).all()


def test_multitargeted_finds_what_a_walk_towards_one_class_misses():
    """The likeliest wrong class is a wall: its logit saturates below the label's; the second likeliest is reachable."""

    class Wall(torch.nn.Module):
        def forward(self, x):
            m = x.flatten(1).mean(1)
            return torch.stack([torch.ones_like(m), 0.9 + 0.05 * torch.tanh(40 * (m - 0.5)), 6 * (0.5 - m)], 1)

    x, y = torch.full((3, 1, 4, 4), 0.5), torch.zeros(3, dtype=torch.long)
    threat = Linf(eps=0.2)
    walk = PGD(steps=10, loss="margin", random_start=False)
    many = MultiTargeted(steps=10, random_start=False)
    fell = [(Wall()(a(Wall(), x, y, threat, generator=generator(0)).x_adv).argmax(1) != y).tolist() for a in (walk, many)]
    assert fell == [[False] * 3, [True] * 3]
