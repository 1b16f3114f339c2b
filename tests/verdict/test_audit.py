"""Planted illusions are caught, honest networks are not accused."""

import copy
import functools

import pytest
import torch
from torch import nn

from normwise.adaptive import Adaptive, abnn, fixed_at
from normwise.attacks import PGD
from normwise.audit import audit, claimed
from normwise.battery import cutting_layers
from normwise.modes import digest
from normwise.norms import BN, GN, MBN, RNT, BNwoT, NoNorm
from normwise.reach import peers, single
from normwise.recipes import Adversarial, AlignedBN, Standard
from normwise.schedule import Schedule
from normwise.seeding import generator
from normwise.surgery import convert
from normwise.threats import Linf, Normalized
from normwise.training import fit
from normwise.verdict import evaluate
from worlds import Small, Stripes, trained

THREAT = Linf(eps=0.2)
BATCHES = Stripes(test_limit=30).test(batch_size=15)
QUICK = Schedule(epochs=15, batch_size=16, optimizer="adamw", lr=0.01)


@functools.cache
def honest(norm=None, recipe=None):
    return fit(Small(norm or BN()), Stripes(), recipe or Standard(), THREAT, QUICK, seed=0).model.eval()


class Before(nn.Module):
    """A layer in front of an honest network."""

    def __init__(self, layer, after=None):
        super().__init__()
        self.layer, self.inner, self.after = layer, copy.deepcopy(honest()), after or nn.Identity()

    def forward(self, x):
        return self.after(self.inner(self.layer(x)))


class Do(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class AlwaysTraining(nn.Module):
    """BatchNorm is left in training mode: it reads the batch, and moves its statistics at test time."""

    def __init__(self):
        super().__init__()
        self.inner = copy.deepcopy(honest())

    def forward(self, x):
        self.inner.norm.train()
        return self.inner(x)


class Updating(nn.Module):
    """Reads running statistics, and updates them with every batch it is asked about."""

    def __init__(self):
        super().__init__()
        self.inner = copy.deepcopy(honest())

    def forward(self, x):
        with torch.no_grad():
            self.inner.norm.running_mean.lerp_(self.inner.conv1(x).mean((0, 2, 3)), 0.05)
        return self.inner(x)


class Thermometer(nn.Module):
    """Codes each pixel by which of 8 levels it exceeds: no gradient, and another shape."""

    def forward(self, x):
        levels = torch.linspace(0.06, 0.94, 8, device=x.device).view(8, 1, 1, 1, 1)
        return (x > levels).to(x).mean(0)


def rounded(x):
    return (4 * x).round() / 4


def blocks(x):
    """Like JPEG: what is in a block beside its mean is quantized."""
    mean = nn.functional.avg_pool2d(x, 3).repeat_interleave(3, 2).repeat_interleave(3, 3)
    return (8 * mean).round() / 8 + (4 * (x - mean)).round() / 4


def naive_accuracy(model, **options):
    """What its own protocol claims."""
    return evaluate(
        model, BATCHES, **{"threat": THREAT, "attacks": [PGD(steps=20)], **options}
    ).evaluation.robust_accuracy.value


def normalized_claim(model):
    return naive_accuracy(model, threat=Normalized(eps=THREAT.eps, mean=(0.5,), std=(0.1,)))


def clean_substitute():
    options = Adaptive(taps=("norm",), source="features", scope="sample")
    model = abnn(Small(BN(), seed=7), honest(), options, shape=(2, 6, 6))
    return fit(model, Stripes(), AlignedBN(), THREAT, QUICK, seed=0).model.eval()


def clean_substitute_claim(model):
    """The substitute is fed the clean batch, and the target alone is attacked and judged."""
    right = rows = 0
    for x, y, _ in BATCHES:
        view = fixed_at(model, x)
        x_adv = PGD(steps=20)(view, x, y, THREAT, generator=generator(0)).x_adv
        right, rows = right + int((view(x_adv).argmax(1) == y).sum()), rows + len(y)
    return right / rows


ILLUSIONS = {  # the network, what its own protocol claims (None: the audit's default), and the check or reason that names it
    "batch statistics": (lambda: convert(honest(), BNwoT()), None, "rows depend on their neighbours"),
    "left in training": (AlwaysTraining, None, "a forward pass changes the model's buffers"),
    "updates at test time": (Updating, None, "a forward pass changes the model's buffers"),
    "detached": (lambda: Before(Do(torch.detach)), None, "straight through"),
    "rounded": (lambda: Before(Do(rounded)), None, "straight through"),
    "blocks": (lambda: Before(Do(blocks)), None, "straight through"),
    "thermometer": (lambda: Before(Thermometer()), None, "straight through"),
    "probabilities": (lambda: Before(nn.Identity(), nn.Softmax(1)), None, "outputs"),
    "noise": (lambda: Before(Do(lambda x: x + 0.2 * torch.randn_like(x))), None, "other random draws give other answers"),
    "normalized eps": (honest, normalized_claim, "stronger search"),
    "clean substitute": (clean_substitute, clean_substitute_claim, "stronger search"),
}


@pytest.mark.parametrize("name", ILLUSIONS)
def test_an_illusion_is_caught_and_named(name):
    make, claim, where = ILLUSIONS[name]
    model = make().eval()
    found = audit(model, BATCHES, THREAT, claim=claim(model) if claim else None, victims=6)
    named = {check.name for check in found.checks if check.status == "fail"}
    assert where in named or any(where in reason for reason in found.reasons), found.sentence
    assert found.verdict == "doubtful" or where == "outputs"


HONEST = {
    "standard": lambda: honest(),
    "adversarial": lambda: honest(recipe=Adversarial(steps=3)),
    "group norm": lambda: honest(GN(groups=4), Adversarial(steps=3)),
    "no norm": lambda: honest(NoNorm(), Adversarial(steps=3)),
    "RobustNorm": lambda: honest(RNT()),
    "routes": lambda: convert(honest(recipe=Adversarial(steps=3)), MBN()),
}


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_network_is_not_accused(name):
    model = HONEST[name]()
    before = digest(model)
    found = audit(model, BATCHES, THREAT, victims=6)
    assert found.verdict == "trustworthy", found.sentence
    assert not [check for check in found.checks if check.status in ("fail", "could not run")]
    assert digest(model) == before
    assert found.upper_bound <= naive_accuracy(model)


def test_a_claim_above_the_truth_is_doubtful_and_one_below_is_not():
    assert audit(honest(), BATCHES, THREAT, claim=0.9, victims=2).verdict == "doubtful"
    assert audit(honest(), BATCHES, THREAT, claim=0.0, victims=2).verdict == "trustworthy"


def test_a_check_that_cannot_run_is_named_and_the_others_go_on():
    class OneByOne(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = copy.deepcopy(honest())

        def forward(self, x):
            if len(x) == 1:
                raise RuntimeError("at least two rows, please")
            return self.inner(x)

    found = audit(OneByOne(), BATCHES, THREAT, victims=2)
    assert "batch size" in found.missing
    assert "at least two rows" in next(c.measured for c in found.checks if c.name == "batch size")
    assert [c.status for c in found.checks if c.name == "gradients per layer"] == ["pass"]
    assert found.sentence.endswith(f"(could not run: {', '.join(found.missing)})")


def test_where_nothing_may_run_no_verdict_is_spoken():
    with pytest.raises(ValueError, match="no attack could run: the budget of 1e-09 minutes was spent"):
        audit(honest(), BATCHES, THREAT, budget=1e-9)


def test_the_layers_that_cut_are_named():
    batch = BATCHES[0]
    assert cutting_layers(honest(), batch) == []
    assert cutting_layers(Before(Do(rounded)), batch) == ["layer"]


def test_one_row_and_neighbours_matter_exactly_where_rows_are_coupled():
    alone, coupled = trained(BN()), trained(BNwoT())
    batches = BATCHES[:1]
    assert peers(alone, batches, PGD(steps=5)).standing == peers(alone, batches, PGD(steps=5)).clean

    class Brightness(nn.Module):
        """How bright the whole batch is speaks for class 0."""

        def __init__(self):
            super().__init__()
            self.inner = copy.deepcopy(honest())

        def forward(self, x):
            return self.inner(x) + 60 * (x.mean() - batches[0].x.mean()) * torch.tensor([1.0, 0.0, 0.0])

    found = peers(Brightness(), batches, PGD(steps=20))
    assert found.standing < found.clean  # what nobody touched falls
    one = single(coupled, batches, Linf(eps=0.0), PGD(steps=2), victims=4)
    assert one.standing == one.clean


@pytest.mark.parametrize("text", ["much", "1.5", "-0.1", "nan"])
def test_a_claim_that_is_no_share_is_refused(text):
    with pytest.raises(ValueError, match="give the claimed robust accuracy as a share"):
        claimed(text)
