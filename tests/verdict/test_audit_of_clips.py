"""On clips too, broken defences are caught and a sound network is not accused."""

import sys

import pytest
import torch
from torch import nn

from normwise.attacks import APGD
from normwise.auditing.auditor import audit
from normwise.auditing.broken_defenses import BENIGN_CONTROLS, BROKEN, Blocks
from normwise.auditing.checks import CHECKS
from normwise.auditing.options import AuditOptions
from normwise.norms import BNwoT
from normwise.norms.surgery.conversion import convert
from normwise.seeding import drawing
from normwise.threats import Linf
from normwise.types import Batch
from normwise.utils.model_state import digest
from toys import CLIP, filmed, images

X = images(24, CLIP)
ASKED = (  # one of each kind: the audit verb of test_network_verbs asks all
    *("repeated and lonely answers", "batch size", "outputs", "gradients per layer", "loss surface"),
    *("transfer from an undefended twin", "straight through", "malicious neighbours", "stronger search"),
)
MASKED = {"gradients per layer", "loss surface", "straight through", "stronger search"}
COUPLED = {"repeated and lonely answers", "batch size", "malicious neighbours"}
NETWORKS = {  # and the checks that it fails
    "sound": (filmed, set()),
    "rounded": (lambda: BROKEN["rounded pixels"](filmed()), MASKED),
    "coupled": (lambda: convert(filmed(), BNwoT()), COUPLED),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_broken_is_named_and_nothing_else(name, monkeypatch):
    make, guilty = NETWORKS[name]
    monkeypatch.setattr(sys.modules["normwise.auditing.auditor"], "CHECKS", [one for one in CHECKS if one.name in ASKED])
    model = make()
    with torch.no_grad():
        y = model(X).argmax(1)
    parts = [Batch(*part) for part in zip(X.split(12), y.split(12), torch.arange(24).split(12), strict=True)]
    options = AuditOptions(twin=filmed(seed=1), strongest=APGD(steps=10), victims=2)
    bits = digest(model)
    found = audit(model, parts, Linf(eps=0.016), options=options)
    assert digest(model) == bits
    assert found.verdict == ("doubtful" if guilty else "trustworthy"), found.sentence
    assert {check.name for check in found.checks if check.status == "fail"} == guilty
    assert not found.missing
    around = next(check.measured for check in found.checks if check.name == "straight through")
    assert ("with 0 passed straight through, pgd-50 leaves" in around) == (name == "rounded")
    assert 0 < found.upper_bound < found.claimed_accuracy + 0.01


def plain():
    with drawing(0):
        layers = nn.Conv3d(1, 4, 3), nn.BatchNorm3d(4), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 3)
        return nn.Sequential(*layers).eval()


def test_the_broken_defences_are_broken_on_clips():
    """Two move statistics, five have no gradient or none that is true, and the frames of a clip are rounded one by one."""
    for name, make in BROKEN.items():
        model, x = make(plain()), X.clone().requires_grad_()
        bits = digest(model)
        answer = model(x)
        assert answer.shape == (24, 3)
        assert (digest(model) != bits) == (name in ("left in training", "updates at test time")), name
        grad = torch.autograd.grad(answer[:, 0].sum(), x, allow_unused=True)[0] if answer.requires_grad else None
        blind = grad is None or not grad.any()
        assert blind == (name in ("gradient cut", "rounded pixels", "blocks as in JPEG", "thermometer code")), name
    for frame, picture in zip(Blocks()(X).unbind(2), X.unbind(2), strict=True):
        assert torch.equal(frame, Blocks()(picture))
    whole = BENIGN_CONTROLS["whole numbers"](plain()).inner[0].weight
    assert len((whole / whole.abs().max() * 127).round(decimals=3).frac().unique()) == 1
