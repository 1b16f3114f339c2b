"""Adapters against training on a mixture: what one network with two sets of scales and shifts gives, and what several networks do.

    python benchmarks/adapters.py FOLDER OUT.json [--seeds 3] [--epochs 40]

A small ViT on the digits, linf 0.2. With adapters (Rebuffi et al. 2023, arXiv:2210.04886) clean images have scales and shifts of their own, and
adversarial ones too; one training gives every share between them (a soup). The mixture trains one network for each weight lam of
adversarial images. Both are attacked as `normwise bench` does, the soup that answers. A stopped run goes on where it was.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from normwise.data import Digits
from normwise.experiments.experiment import Experiment, evaluated, run, train
from normwise.experiments.presets import DIGITS, EPS
from normwise.models import ViT
from normwise.norms import LN2D, MBN, Routed
from normwise.records import provenance, to_json, write
from normwise.threats import Linf
from normwise.training.recipes import Adversarial, Mixed, Routes, Standard

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
ADAPTERS = MBN(share="statistics", of="layernorm2d")


def found(evaluation, training):
    """What the record keeps of a network."""
    accuracy = {key: getattr(evaluation, key) for key in ("clean_accuracy", "protocol_accuracy", "robust_accuracy")}
    return accuracy | {"loss": training.loss, "backwards": training.backwards, "seconds": training.seconds}


def mixtures(e, folder):
    """A network for each weight of adversarial images."""
    recipes = {0.0: Standard(), **{lam: Mixed(lam=lam) for lam in SHARES[1:-1]}, 1.0: Adversarial()}
    for lam, recipe in recipes.items():
        made = run(replace(e, norm=LN2D(), recipe=recipe), folder / f"mixed-{lam:g}", report=print)
        yield lam, found(made.evaluation, made.training)


def soups(e, folder):
    """One network, at every share of the adversarial route."""
    e = replace(e, norm=ADAPTERS, recipe=Routes())
    fitted, _ = train(e, folder / "adapters", print)
    for share in SHARES:
        for layer in (module for module in fitted.model.modules() if isinstance(module, Routed)):
            layer.soup = share
        yield share, found(evaluated(e, fitted.model, print), fitted.training)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=40)
    given = parser.parse_args()
    schedule = replace(DIGITS, epochs=given.epochs, validate_every=given.epochs)
    network = ViT(side=8, stem="conv", depth=2)
    rows = {}
    for seed in range(given.seeds):
        e = Experiment(
            data=Digits(),
            model=network,
            threat=Linf(eps=EPS["digits"]),
            schedule=schedule,
            batch_size=25,
            seed=seed,
            threads=1,
        )
        for name, part in (("mixture", mixtures), ("adapters", soups)):
            for share, one in part(e, given.folder / f"seed{seed}"):
                rows[f"{name}-{share:g}-seed{seed}"] = one
                write(given.out, to_json({**provenance(), "schedule": schedule, "rows": rows}))


if __name__ == "__main__":
    main()
