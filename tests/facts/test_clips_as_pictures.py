"""What is found on clips is what is found on the same pixels, laid out as pictures: a network that looks at each place alone tells no difference."""

import pytest
import torch
from torch import nn

from normwise.attacks import AutoAttack
from normwise.diagnostics import DIAGNOSES
from normwise.diagnostics.run import diagnose
from normwise.seeding import drawing, generator
from normwise.threats import L1, L2, Linf
from normwise.types import Batch, Search
from toys import images

SHAPE = (2, 3, 4, 3)  # a picture has its frames one below the other, and is too narrow to be blurred


class Places(nn.Module):
    """Convolutions of size 1 and norms, and the mean over all places."""

    def __init__(self, conv, norm):
        super().__init__()
        layers = conv(2, 6, 1), norm(6), nn.ReLU(), conv(6, 6, 1), norm(6), nn.ReLU()
        self.layers, self.linear = nn.Sequential(*layers), nn.Linear(6, 3)

    def forward(self, x):
        return self.linear(self.layers(x).flatten(2).mean(2))


def pictured(x):
    return x.flatten(2, 3)


def pair():
    """The same network for clips and for pictures, and clips with its own answers but for two."""
    x = images(12, SHAPE).double()
    with drawing(0), torch.no_grad():
        films, pictures = Places(nn.Conv3d, nn.BatchNorm3d).double(), Places(nn.Conv2d, nn.BatchNorm2d).double()
        films(images(40, SHAPE, seed=1).double())
        films.eval(), pictures.eval()
        films.linear.weight.mul_(20)
        films.linear.bias.sub_(films(x).mean(0))
        own = pictures.state_dict()
        pictures.load_state_dict({name: value.view_as(own[name]) for name, value in films.state_dict().items()})
        y = films(x).argmax(1)
    y[:2] = (y[:2] + 1) % 3
    return films, pictures, x, y


def test_every_diagnosis():
    films, pictures, x, y = pair()
    few = [kind() for kind in DIAGNOSES.values()]
    ids = torch.arange(12)
    found = [
        diagnose({"net": net}, [Batch(given, y, ids)], Linf(eps=0.05), few)[0].tables
        for net, given in ((films, x), (pictures, pictured(x)))
    ]
    assert {name for name, table in found[0].items() if table.rows} == set(DIAGNOSES) - {"saturation"}
    for name, table in found[0].items():
        for row, other in zip(table.rows, found[1][name].rows, strict=True):
            for value, expected in zip(row, other, strict=True):
                same = pytest.approx(expected, rel=1e-5, abs=1e-7) if isinstance(expected, float) else expected
                assert value == same, name


@pytest.mark.parametrize("threat", [Linf(eps=0.04), L2(eps=0.2), L1(eps=1.0)], ids=str)
def test_the_parts_of_autoattack_but_square_which_knows_where_pixels_are(threat):
    films, pictures, x, y = pair()
    fallen = 0
    for part in AutoAttack(steps=10).parts_in(threat.name)[:3]:
        one, other = (
            part(net, given, y, threat, generator=generator(0), search=Search(independent=True))
            for net, given in ((films, x), (pictures, pictured(x)))
        )
        torch.testing.assert_close(pictured(one.x_adv), other.x_adv, rtol=0, atol=1e-9)
        assert torch.equal(one.first_hit, other.first_hit)
        fallen = max(fallen, int((films(one.x_adv).argmax(1) != y).sum()))
    assert 2 < fallen < 12
