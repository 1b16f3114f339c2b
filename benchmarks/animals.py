"""The networks of the zoo: broken defences and sound networks, with what each claims of itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from networks import cnn_a, resnet20
from normwise.attacks import FGSM, PGD, Square
from normwise.auditing.broken_defenses import BENIGN_CONTROLS, BROKEN, TWO_FACED
from normwise.data import Cifar10, Digits
from normwise.evaluation.evaluator import evaluate
from normwise.evaluation.plan import AttackPlan
from normwise.experiments.papers.cell_store import OldCellStore
from normwise.experiments.papers.papers import CELLS
from normwise.experiments.papers.scale import cpu
from normwise.experiments.presets import DIGITS
from normwise.models import NFResNet, ResNet
from normwise.models.abnn import Adaptive, abnn, fixed_at
from normwise.norms import BN, GN, MBN, BNwoT, on_route
from normwise.norms.surgery.conversion import convert
from normwise.seeding import generator
from normwise.threats import Linf, Normalized
from normwise.training.loop import fit
from normwise.training.options import FitOptions
from normwise.training.recipes import Adversarial, AlignedBN, Mixed, Routes, Standard
from normwise.types import silent

EPS = 0.2
ROWS = 200
FEW = 60  # rows of the second zoo
GROWN = Cifar10(train_limit=2000, validation_size=500)  # what the second zoo's own networks train on


def plain_pgd(model: nn.Module, batches, threat, steps: int = 20) -> float:
    """What a simple PGD leaves: torch's cross-entropy in float32, steps of a tenth, random start, the last image."""
    left = rows = 0
    for x, y, _ in batches:
        rng = torch.Generator().manual_seed(0)
        x_adv = (x + threat.eps * (2 * torch.rand(x.shape, generator=rng) - 1)).clamp(0, 1)
        for _ in range(steps):
            x_adv.requires_grad_()
            (grad,) = torch.autograd.grad(F.cross_entropy(model(x_adv), y), x_adv)
            x_adv = (x_adv.detach() + threat.eps / 10 * grad.sign()).clamp(0, 1)
            x_adv = x + (x_adv - x).clamp(-threat.eps, threat.eps)
        with torch.no_grad():
            left += int((model(x_adv).argmax(1) == y).sum())
        rows += len(y)
    return left / rows


def own(model, batches, threat, *attacks) -> float:
    """What our own attacks leave."""
    return evaluate(model, batches, AttackPlan(threat, attacks, stateful="restore")).evaluation.robust_accuracy.value


def fgsm(model, batches, threat) -> float:
    """What one step leaves."""
    return own(model, batches, threat, FGSM())


def carefully(model, batches, threat) -> float:
    """What a careful evaluation without AutoAttack claims: PGD-50 with five starts on cross-entropy and on the margin."""
    return own(model, batches, threat, PGD(steps=50, restarts=5), PGD(steps=50, restarts=5, loss="margin"))


def in_normalized_units(data) -> Callable[..., float]:
    """eps is meant for normalized images, and the box is what the batch spans."""
    return lambda model, batches, threat: own(
        model, batches, Normalized(eps=threat.eps, mean=data.mean, std=data.std), PGD(steps=20)
    )


def seen_clean(model, batches, threat) -> float:
    """The substitute is fed the clean batch, and the target alone is attacked and judged."""
    right = rows = 0
    for x, y, _ in batches:
        view = fixed_at(model, x)
        x_adv = PGD(steps=20)(view, x, y, threat, generator=generator(0)).x_adv
        with torch.no_grad():
            right, rows = right + int((view(x_adv).argmax(1) == y).sum()), rows + len(y)
    return right / rows


@cache
def trained(norm: Any, recipe: Any, seed: int = 0, free: bool = False) -> nn.Module:
    """A ResNet-8 on digits."""
    data = Digits()
    kind = NFResNet(depth=8, width=8) if free else ResNet(depth=8, width=8)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = kind(None if free else norm, classes=10, mean=data.mean, std=data.std)
    return fit(model, data, recipe, Linf(eps=EPS), DIGITS, seed=seed).model.eval()


def first_zoo():
    """(name, network, own claim or None for the audit's default, honest, eps) on digits; eps such that something is left to claim."""
    data = Digits()
    standard = lambda: trained(BN(), Standard())  # noqa: E731
    robust = lambda: trained(BN(), Adversarial())  # noqa: E731
    one_step = Adversarial(steps=1, relative_step=1.0)

    def helped():
        start = ResNet(depth=8, width=8)(BN(), classes=10, mean=data.mean, std=data.std)
        model = abnn(start, standard(), Adaptive(scope="sample"), shape=data.shape)
        return fit(model, data, AlignedBN(), Linf(eps=EPS), DIGITS, seed=0).model.eval()

    def norms_alone():
        return fit(standard(), data, Adversarial(trains="affine"), Linf(eps=EPS), DIGITS, seed=0).model.eval()

    claims = {"logits times 100": plain_pgd, "probabilities": plain_pgd}
    yield "batch statistics", lambda: convert(standard(), BNwoT()), None, False, EPS
    for name, make in BROKEN.items():
        yield name, lambda make=make: make(standard()), claims.get(name), False, EPS
    yield "label smoothing, mixed", lambda: trained(BN(), Mixed(label_smoothing=0.5), 3), plain_pgd, False, EPS
    yield "one-step overfitting", lambda: trained(BN(), one_step), fgsm, False, EPS
    yield "eps in normalized units", standard, in_normalized_units(data), False, EPS
    yield "substitute sees clean", helped, seen_clean, False, EPS
    yield "standard BN", standard, carefully, True, EPS / 4
    yield "PGD-AT BN", robust, carefully, True, EPS
    yield "PGD-AT GN", lambda: trained(GN(groups=4), Adversarial()), carefully, True, EPS
    yield "NF-AT", lambda: trained(None, Adversarial(), 0, True), carefully, True, EPS
    yield "MBN-AT", lambda: on_route(trained(MBN(), Routes()), 1), carefully, True, EPS
    yield "BN-only AT", norms_alone, carefully, True, EPS / 2


def faces():
    """(name, network, own claim, honest, eps) on digits: networks with another face for attackers, and relatives of them that are sound."""
    data = Digits()
    standard = lambda: trained(BN(), Standard())  # noqa: E731
    robust = lambda: trained(BN(), Adversarial())  # noqa: E731

    class Within(nn.Module):
        """Cuts the gradient where no layer can be blamed."""

        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return self.inner(x.detach())

    def blind(model, batches, threat):
        return own(model, batches, threat, Square(steps=5000))

    def never_learned():
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return ResNet(depth=8, width=8)(BN(), classes=10, mean=data.mean, std=data.std)

    for name, make in TWO_FACED.items():
        yield name, lambda make=make: make(standard(), robust()), None, False, EPS
    yield "gradient cut within, claims what search leaves", lambda: Within(standard()), blind, False, EPS / 2
    yield "never learned", never_learned, None, False, EPS
    for name, make in BENIGN_CONTROLS.items():
        yield name, lambda make=make: make(robust()), lambda model, *rest: carefully(robust(), *rest), True, EPS


def untrained() -> nn.Module:
    """A ResNet-8 of width 8 for CIFAR-10."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ResNet(depth=8, width=8)(BN(), classes=10, mean=GROWN.mean, std=GROWN.std)


def grown(folder: Path, start: nn.Module, recipe: Any, eps: float, epochs: int) -> nn.Module:
    """A network trained on 2,000 images of CIFAR-10; the folder keeps it, and a stopped training goes on."""
    schedule = replace(DIGITS, epochs=epochs, validate_every=0)  # the last epoch is kept, overfitted or not
    return fit(start, GROWN, recipe, Linf(eps=eps), schedule, seed=0, options=FitOptions(folder=folder)).model.eval()


def second_zoo(checkpoints: Path, cells: Path, folder: Path):
    """(name, network, own claim, honest, eps) on CIFAR-10: networks of others, two grown here, and those of the papers' cells."""
    data = Cifar10()
    published, no_norm = (
        resnet20(checkpoints / "akamaster_resnet20_cifar10.th"),
        cnn_a(checkpoints / "cnn_a_adv_cifar10.pth"),
    )
    store = OldCellStore(CELLS, cpu(), cells, silent)
    claims = {"logits times 100": plain_pgd, "probabilities": plain_pgd}
    yield "batch statistics", lambda: convert(published, BNwoT()), None, False, 8 / 255
    for name, make in BROKEN.items():
        yield name, lambda make=make: make(published), claims.get(name), False, 8 / 255
    yield "eps in normalized units", lambda: published, in_normalized_units(data), False, 2 / 255
    both, once = Mixed(label_smoothing=0.5, steps=2), Adversarial(steps=1, relative_step=1.0)
    smoothed = partial(grown, folder / "smoothed", store.network("bn-standard", 0), both, 4 / 255, 5)
    one_step = partial(grown, folder / "one-step", untrained(), once, 16 / 255, 20)
    yield "label smoothing, mixed", smoothed, plain_pgd, False, 4 / 255
    yield "one-step training", one_step, fgsm, False, 16 / 255
    made = {
        "substitute sees clean": ("abnn", seen_clean, False, 1 / 255),
        "RobustNorm tracked": ("rnt-standard", carefully, True, 1 / 255),
        "PGD-AT BN": ("bn-at", carefully, True, 8 / 255),
        "NF, mixed batches": ("nofrost", carefully, True, 8 / 255),
        "BN-only AT": ("affine-fragile", carefully, True, 2 / 255),
    }
    yield "standard BN, published", lambda: published, carefully, True, 1 / 255
    yield "AT without norms, published", lambda: no_norm, carefully, True, 2 / 255
    for name, (cell, claim, honest, eps) in made.items():
        if store.record(cell, 0) is not None:
            yield name, lambda cell=cell: store.network(cell, 0), claim, honest, eps
