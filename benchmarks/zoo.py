"""Does the audit catch planted illusions, and leave honest networks alone?

    python benchmarks/zoo.py digits runs/zoo          # the first zoo, on which thresholds were set
    python benchmarks/zoo.py cifar10 runs/zoo2 --checkpoints FOLDER   # the second, made afterwards: real images, other networks

The second zoo needs CIFAR-10 (NORMWISE_DATA) and a folder with akamaster_resnet20_cifar10.th and cnn_a_adv_cifar10.pth; its other
networks are cells of `normwise reproduce --preset cpu` (--cells FOLDER): those that are not there are left out.

Prints a table, and writes zoo.json: per network its own claim, the audit's upper bound, verdict, and the checks that failed.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from networks import cnn_a, resnet20
from torch import nn
from torch.nn import functional as F

from normwise.adaptive import Adaptive, abnn, fixed_at
from normwise.attacks import FGSM, PGD
from normwise.audit import audit
from normwise.data import Cifar10, Digits
from normwise.illusions import ILLUSIONS
from normwise.models import NFResNet, ResNet
from normwise.norms import BN, GN, MBN, BNwoT, on_route
from normwise.presets import DIGITS
from normwise.recipes import Adversarial, AlignedBN, Mixed, Routes, Standard
from normwise.record import provenance
from normwise.reproduce.cell import Workshop
from normwise.reproduce.papers import CELLS
from normwise.reproduce.scale import cpu
from normwise.seeding import generator
from normwise.surgery import convert
from normwise.threats import Linf, Normalized
from normwise.training import fit
from normwise.verdict import evaluate

EPS = 0.2
ROWS = 200
FEW = 60  # rows of the second zoo


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
    return evaluate(model, batches, threat, attacks, stateful="restore").evaluation.robust_accuracy.value


def carefully(model, batches, threat) -> float:
    """What an honest evaluation without AutoAttack claims: PGD-50 with five starts on cross-entropy and on the margin."""
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
    """(name, network, own claim or None for the audit's default, honest) on digits."""
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

    fgsm = lambda model, batches, threat: own(model, batches, threat, FGSM())  # noqa: E731
    claims = {"logits times 100": plain_pgd, "probabilities": plain_pgd}
    yield "batch statistics", lambda: convert(standard(), BNwoT()), None, False
    for name, make in ILLUSIONS.items():
        yield name, lambda make=make: make(standard()), claims.get(name), False
    yield "label smoothing, mixed", lambda: trained(BN(), Mixed(label_smoothing=0.5), 3), plain_pgd, False
    yield "one-step overfitting", lambda: trained(BN(), one_step), fgsm, False
    yield "eps in normalized units", standard, in_normalized_units(data), False
    yield "substitute sees clean", helped, seen_clean, False
    yield "standard BN", standard, carefully, True
    yield "PGD-AT BN", robust, carefully, True
    yield "PGD-AT GN", lambda: trained(GN(groups=4), Adversarial()), carefully, True
    yield "NF-AT", lambda: trained(None, Adversarial(), 0, True), carefully, True
    yield "MBN-AT", lambda: on_route(trained(MBN(), Routes()), 1), carefully, True
    yield "BN-only AT", norms_alone, carefully, True


def second_zoo(checkpoints: Path, cells: Path):
    """(name, network, own claim, honest, eps) on CIFAR-10: networks trained by others, and those of the papers' cells."""
    data = Cifar10()
    published, no_norm = (
        resnet20(checkpoints / "akamaster_resnet20_cifar10.th"),
        cnn_a(checkpoints / "cnn_a_adv_cifar10.pth"),
    )
    shop = Workshop(CELLS, cpu(), cells, lambda text, done, total: None)
    claims = {"logits times 100": plain_pgd, "probabilities": plain_pgd}
    yield "batch statistics", lambda: convert(published, BNwoT()), None, False, 8 / 255
    for name, make in ILLUSIONS.items():
        yield name, lambda make=make: make(published), claims.get(name), False, 8 / 255
    yield "eps in normalized units", lambda: published, in_normalized_units(data), False, 2 / 255
    grown = {
        "substitute sees clean": ("abnn", seen_clean, False, 1 / 255),
        "RobustNorm tracked": ("rnt-standard", carefully, True, 1 / 255),
        "PGD-AT BN": ("bn-at", carefully, True, 8 / 255),
        "NF, mixed batches": ("nofrost", carefully, True, 8 / 255),
        "BN-only AT": ("affine-fragile", carefully, True, 8 / 255),
    }
    yield "standard BN, published", lambda: published, carefully, True, 1 / 255
    yield "AT without norms, published", lambda: no_norm, carefully, True, 2 / 255
    for name, (cell, claim, honest, eps) in grown.items():
        if shop.record(cell, 0) is not None:
            yield name, lambda cell=cell: shop.network(cell, 0), claim, honest, eps


def look(animals, batches, twin, folder: Path, only: str) -> list[dict[str, Any]]:
    """Audit each; what is in the folder is not made again."""
    folder.mkdir(parents=True, exist_ok=True)
    table = []
    for name, make, claim, honest, eps in animals:
        threat = Linf(eps=eps)
        path = folder / f"{name.replace(' ', '-').replace(',', '')}.json"
        if only and only not in name:
            continue
        if path.exists():
            table.append(json.loads(path.read_text()))
            continue
        model = make().eval()
        started = time.perf_counter()
        claimed = None if claim is None else claim(model, batches, threat)
        found = audit(model, batches, threat, claim=claimed, twin=twin, budget=60)
        failed = [check.name for check in found.checks if check.status == "fail"]
        row = {
            "name": name,
            "honest": honest,
            "eps": eps,
            "claim": found.claimed_accuracy,
            "own_protocol": claim is not None,
            "upper_bound": found.upper_bound,
            "verdict": found.verdict,
            "reasons": list(found.reasons),
            "failed": failed,
            "missing": list(found.missing),
            "warned": [check.name for check in found.checks if check.status == "warn"],
            "measured": {check.name: check.measured for check in found.checks if check.status != "pass"},
            "n": sum(len(batch.y) for batch in batches),
            "seconds": time.perf_counter() - started,
        }
        path.write_text(json.dumps(row, indent=2) + "\n")
        print(f"{name:26} {row['seconds']:5.0f} s  {found.sentence}  [{', '.join(failed)}]", flush=True)
        table.append(row)
    return table


def to_markdown(rows: list[dict[str, Any]]) -> str:
    """One line per network."""
    lines = ["| network | kind | its own claim | true at most | verdict | failed checks |", "|---|---|---|---|---|---|"]
    for row in rows:
        protocol = "own protocol" if row["own_protocol"] else "PGD-20"
        claim, bound = f"{100 * row['claim']:.1f}% ({protocol})", f"{100 * row['upper_bound']:.1f}%"
        kind = "honest" if row["honest"] else "illusion"
        failed = ", ".join(row["failed"]) or "none"
        lines.append(
            f"| {row['name']}, eps {255 * row['eps']:.3g}/255 | {kind} | {claim} | {bound} | {row['verdict']} | {failed} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("zoo", choices=("digits", "cifar10"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="", help="names that contain this")
    parser.add_argument("--checkpoints", type=Path, default=Path())
    parser.add_argument("--cells", type=Path, default=Path("results/reproduce/cpu"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.zoo == "digits":
        batches, twin = Digits(test_limit=ROWS).test(batch_size=50), trained(BN(), Standard(), 99)
        animals = ((*one, EPS) for one in first_zoo())
    else:
        batches, animals = Cifar10(test_limit=FEW).test(batch_size=FEW // 2), second_zoo(given.checkpoints, given.cells)
        shop = Workshop(CELLS, cpu(), given.cells, lambda text, done, total: None)
        twin = shop.network("bn-standard", 1)
    table = look(animals, batches, twin, given.folder, given.only)
    illusions = [row for row in table if not row["honest"]]
    honest = [row for row in table if row["honest"]]
    caught = sum(row["verdict"] == "doubtful" for row in illusions)
    accused = sum(row["verdict"] == "doubtful" for row in honest)
    print(f"caught {caught} of {len(illusions)}, accused {accused} of {len(honest)}")
    record = {
        **provenance(),
        "zoo": given.zoo,
        "caught": caught,
        "illusions": len(illusions),
        "accused": accused,
        "honest": len(honest),
    }
    record |= {"command": f"python benchmarks/zoo.py {given.zoo} FOLDER", "rows": table}
    (given.folder / "zoo.md").write_text(to_markdown(table))
    (given.folder / "zoo.json").write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
