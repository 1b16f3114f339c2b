"""A device beside the CPU: the same network judged on both, with each switch of a search's speed, and what a gradient costs.

    python benchmarks/device.py OUT.json [--device cuda] [--rows 500] [--epochs 40] [--images 512] [--repeats 5]

"verdicts": ResNet-8, adversarially trained on digits on the device, under AutoAttack at 0.2, on the CPU with nothing switched on, then on
the device. The network itself judges every success, so that robust accuracies should agree to a row or two. "gradients": per second
of PGD-20 on a ResNet-18 of random weights and images, at a radius at which no row falls; median of interleaved runs after one that
warms up (`first`, compilation included). On GPUs `compile` records CUDA graphs.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch

from normwise.attacks import PGD, AutoAttack
from normwise.data import Digits
from normwise.evaluation.acceleration import EAGER, FAST, faster
from normwise.evaluation.evaluator import evaluate
from normwise.evaluation.plan import AttackPlan
from normwise.experiments.presets import DIGITS, EPS
from normwise.models import ResNet, ResNet18
from normwise.norms import BN
from normwise.records import provenance, to_json, write
from normwise.threats import Linf
from normwise.training.loop import fit
from normwise.training.recipes import Adversarial

WAYS = {
    "off": replace(EAGER, drop=False, give_up=False),
    "default": FAST,
    "compile": replace(FAST, compile=True),
    "bfloat16": replace(FAST, precision="bfloat16"),
    "float16": replace(FAST, precision="float16"),
    "compile, bfloat16": replace(FAST, compile=True, precision="bfloat16"),
    "compile, float16": replace(FAST, compile=True, precision="float16"),
}


ABOUT = {"classes": 10, "mean": (0.5,) * 3, "std": (0.25,) * 3}


def verdicts(args):
    data, threat = Digits(test_limit=args.rows), Linf(eps=EPS["digits"])
    schedule = replace(DIGITS, epochs=args.epochs, validate_every=args.epochs)
    start = ResNet(depth=8)(BN(), classes=data.classes, mean=data.mean, std=data.std)
    model = fit(start.to(args.device), data, Adversarial(), threat, schedule, seed=0).model
    for device, name in [("cpu", "off"), *((args.device, name) for name in WAYS)]:
        judged = evaluate(
            model.to(device), data.test(batch_size=250), AttackPlan(threat, (AutoAttack(),), speed=WAYS[name])
        ).evaluation
        found = {"clean": judged.clean_accuracy.value, "robust": judged.robust_accuracy.value, "seconds": judged.seconds}
        yield {"device": device, "way": name, **found}


def gradients(args):
    model = ResNet18()(BN(), **ABOUT).to(args.device).eval()
    x = torch.rand(args.images, 3, 32, 32, generator=torch.Generator().manual_seed(0)).to(args.device)
    with torch.no_grad():
        y = torch.cat([model(part).argmax(1) for part in x.split(128)])
    copies = {name: (faster(model, speed, x[:8], 0).made or [model])[0] for name, speed in WAYS.items()}
    seconds = {name: [] for name in WAYS}
    for _ in range(1 + args.repeats):
        for name, searched in copies.items():
            started = time.perf_counter()
            PGD(steps=20)(searched, x, y, Linf(eps=1e-6), generator=torch.Generator().manual_seed(0)).x_adv.cpu()
            seconds[name].append(time.perf_counter() - started)
    for name, (first, *rest) in seconds.items():
        rates = [20 * args.images / each for each in rest]
        yield {"way": name, "first": first, "per_second": median(rates), "spread": [min(rates), max(rates)]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--device", default="cuda")
    for name, value in {"rows": 500, "epochs": 40, "images": 512, "repeats": 5}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()
    torch.manual_seed(0)
    found = {"verdicts": [], "gradients": []}
    for kind, measured in (("verdicts", verdicts), ("gradients", gradients)):
        for row in measured(args):
            found[kind].append(row)
            print(row, flush=True)
            write(args.out, to_json({**provenance(), **found}))  # so far


if __name__ == "__main__":
    main()
