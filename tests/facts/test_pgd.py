"""PGD's family: what makes each itself."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from normwise import losses
from normwise.attacks import BIM, FGSM, MIM, PGD
from normwise.seeding import generator
from normwise.threats import Linf
from normwise.types import Search
from toys import Linear, Small, images, labels, trained

THREAT = Linf(eps=0.02)


def craft(attack, model=None, **options):
    return attack(model or trained(), images(), labels(), THREAT, generator=generator(0), **options).x_adv


def test_mim_without_decay_is_bim_and_bim_of_one_whole_step_is_fgsm():
    assert torch.equal(craft(MIM(decay=0.0, keep="last")), craft(BIM(keep="last")))
    assert not torch.equal(craft(MIM(keep="last")), craft(BIM(keep="last")))
    assert torch.equal(craft(BIM(steps=1, relative_step=1.0, keep="last")), craft(FGSM()))


def test_no_steps_return_the_start():
    assert torch.equal(craft(PGD(steps=0, random_start=False)), images())
    start = THREAT.around(images(), generator=generator(1)).start()
    assert not torch.equal(start, images())


def test_mim_follows_its_formula():
    """Two steps by hand on a model whose gradient turns."""
    model, x, y = trained(), images(), labels()

    def grad(x_adv):
        x_adv = x_adv.clone().requires_grad_()
        loss = torch.nn.functional.cross_entropy(model(x_adv), y, reduction="sum")
        return torch.autograd.grad(loss, x_adv)[0]

    x_adv, g = x.clone(), torch.zeros_like(x)
    for _ in range(2):
        now = grad(x_adv)
        g = 0.7 * g + now / now.abs().sum((1, 2, 3), keepdim=True)
        x_adv = torch.clamp(torch.minimum(torch.maximum(x_adv + 0.01 * g.sign(), x - 0.02), x + 0.02), 0, 1)
    torch.testing.assert_close(craft(MIM(steps=2, relative_step=0.5, decay=0.7, keep="last")), x_adv)


def test_steps_and_restarts_are_counted():
    model, x = Linear((2, 6, 6)), images()
    proposal = PGD(steps=5, restarts=3)(
        model, x, model(x).argmax(1), Linf(eps=1e-4), generator=generator(0), search=Search(independent=True)
    )
    assert (proposal.backwards, proposal.forwards) == (3 * 5 * 12, 3 * 6 * 12)
    assert (proposal.first_hit == -1).all()


@pytest.mark.parametrize("scale", [1e-2, 1.0, 30.0, 1e3])
def test_confidence_does_not_hide_the_gradient(scale):
    """Scaling all logits changes no decision; the usual form of the cross-entropy loses its gradient on the way."""

    class Scaled(Small):
        def forward(self, x):
            return scale * super().forward(x)

    model, x = Scaled().eval(), images(60)
    with torch.no_grad():
        model.linear.weight.mul_(20)
        model.linear.bias.sub_(model(x).mean(0) / scale)
    y = model(x).argmax(1)
    x_adv = PGD(steps=20, random_start=False)(model, x, y, Linf(eps=0.02), generator=generator(0)).x_adv
    fallen = (model(x_adv).argmax(1) != y).float().mean()
    assert 0.2 < fallen < 0.9, fallen


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(0, 30))
def test_cross_entropy_is_torchs(seed, scale):
    logits = scale * torch.randn(6, 4, generator=generator(seed))
    y = torch.randint(0, 4, (6,), generator=generator(seed, "y"))
    expected = torch.nn.functional.cross_entropy(logits, y, reduction="none")
    torch.testing.assert_close(losses.cross_entropy(logits, y), expected, rtol=1e-4, atol=1e-5)
