"""How much each attacker leaves of an undefended network: of one for images, and of one for clips.

    python benchmarks/each_attack.py FOLDER OUT.json [--rows 100] [--seed 1] [--steps 20] [--repeats 3] [--queries 1000]

FOLDER is one that `normwise reproduce --preset s` filled, weights included. Its networks `bn-standard` (CIFAR-10, which $NORMWISE_DATA holds) and
`bn-clips` (moving digits) of this seed have no defence. The threat models
are those of the papers on adversarial videos, scaled as `threats.scaled` says beside 4/255 (images) and 0.1 (clips), and further ones that
no paper scales; their sizes are ours and stand in the record. The protocol is PGD-5, and stronger searches follow it. A pattern for all rows is
made from 2,000 training rows. `halved`: at most half of the clean accuracy is left.
"""

import argparse
from math import exp, log, sqrt
from pathlib import Path

import torch

from normwise import evaluate
from normwise.attacks import APGD, PGD, PatchAttack, SigmaZero, SparseRS, Universal
from normwise.data import Cifar10, MovingDigits
from normwise.evaluation.plan import AttackPlan
from normwise.experiments.papers.cell_store import CellStore
from normwise.experiments.papers.papers import CELLS
from normwise.experiments.papers.scale import s
from normwise.records import provenance, to_json, write
from normwise.registry import plain
from normwise.seeding import generator
from normwise.threats import Flicker, Linf, MultAV, SparseFrames
from normwise.threats.scaled import KINDS, RADIUS, RATIO, REACH, scaled
from normwise.types import silent

TWOFOLD = 1.0  # of MultAV within a patch or a frame: pixels may be doubled or halved


def threats(eps, shape):
    """The threat models by name."""
    own = {kind: scaled(kind, Linf(eps=eps), shape) for kind in KINDS}
    length = eps / RADIUS * REACH / RADIUS * log(1 + RATIO) * sqrt(torch.Size(shape).numel())  # as l2 stands to linf
    more = {
        "multav, l2": MultAV(eps=exp(length) - 1, norm="l2"),
        "multav within a patch": MultAV(eps=TWOFOLD, within="patch", size=own["roa"].size),
        "multav within a frame": MultAV(eps=TWOFOLD, within="frame", size=own["af"].width),
        "one patch for all": own["roa"],
        "one frame for all": own["af"],
    }
    if len(shape) == 4:
        more |= {"flicker": Flicker(eps=eps), "one frame of the clip": SparseFrames(frames=1, eps=1.0)}
    return own | more


def searches(name, given):
    """What searches beyond the protocol."""
    if name in ("roa", "af"):
        return (PatchAttack(steps=given.steps, repeats=given.repeats, queries=given.queries),)
    if name == "spa":
        return SigmaZero(steps=given.steps), SparseRS(steps=given.queries)
    return APGD(steps=given.steps), APGD(steps=given.steps, targets=3)


def left(model, data, eps, given):
    """What each attacker leaves, and by how much its searches without gradients went beyond those with."""
    batches, found = data.test(batch_size=50), {}
    for name, threat in threats(eps, batches[0].x.shape[1:]).items():
        plan = AttackPlan(threat, (PGD(steps=5, keep="last"),), strongest=searches(name, given), seed=given.seed)
        if "for all" in name:
            drawn = generator(given.seed, "universal")
            rows = [*data.train(batch_size=50, generator=generator(given.seed, "rows"))]
            plan = AttackPlan(
                threat, (Universal().fit(model, rows, threat, generator=drawn),), strongest=(), seed=given.seed
            )
        e = evaluate(model, batches, plan).evaluation
        protocol, strongest = e.pair
        found[name] = {
            "threat": plain(threat),
            "clean": e.clean_accuracy,
            "protocol": protocol,
            "strongest": strongest,
            "halved": strongest.value <= e.clean_accuracy.value / 2,
            "beyond_gradients": e.beyond_gradients,
        }
        print(name, e.clean_accuracy, protocol, strongest, flush=True)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    for option, value in (("rows", 100), ("seed", 1), ("steps", 20), ("repeats", 3), ("queries", 1000)):
        parser.add_argument(f"--{option}", type=int, default=value)
    given = parser.parse_args()
    torch.set_num_threads(1)
    kinds = {
        "bn-standard": (Cifar10(test_limit=given.rows, train_limit=2000), 4 / 255),
        "bn-clips": (MovingDigits(test_limit=given.rows), 0.1),
    }
    store = CellStore(CELLS, s(), given.folder, silent)
    settings = {key: value for key, value in vars(given).items() if key not in ("folder", "out")}
    found = {name: left(store.network(name, given.seed), data, eps, given) for name, (data, eps) in kinds.items()}
    write(given.out, to_json({**provenance(), "settings": settings, **found}))


if __name__ == "__main__":
    main()
