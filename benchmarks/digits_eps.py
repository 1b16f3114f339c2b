"""Which radius should digits be judged at? The smallest of a list at which the standard BatchNorm network has fallen.

    python benchmarks/digits_eps.py results/digits-eps/record.json [moving-digits]

Trains the preset's standard BatchNorm network with three seeds and attacks the validation rows with PGD-20.
"""

import dataclasses
import sys
import time
from pathlib import Path

from normwise.attacks import PGD
from normwise.evaluation import evaluator as verdict
from normwise.evaluation.plan import AttackPlan
from normwise.experiments import experiment, presets
from normwise.records import provenance, to_json, write
from normwise.threats import Linf
from normwise.training.loop import fit
from normwise.utils.model_state import moved

CANDIDATES, FALLEN = (0.05, 0.1, 0.15, 0.2, 0.3), 0.05


def main(path: Path, preset: str) -> None:
    started, rows = time.perf_counter(), []
    for seed in range(3):
        e = dataclasses.replace(presets.PRESETS[preset](), seed=seed)
        start = moved(experiment.build(e), experiment.set_up_device(e))
        model = fit(start, e.data, e.recipe, e.threat, e.schedule, seed=seed).model
        for eps in CANDIDATES:
            found = verdict.evaluate(
                model, e.data.validation(batch_size=100), AttackPlan(Linf(eps=eps), (PGD(steps=20),), seed=seed)
            ).evaluation
            rows.append({"seed": seed, "eps": eps, "clean": found.clean_accuracy, "pgd-20": found.robust_accuracy})
            print(rows[-1])
    mean = {eps: sum(row["pgd-20"].value for row in rows if row["eps"] == eps) / 3 for eps in CANDIDATES}
    record = {
        **provenance(),
        "seed": [0, 1, 2],
        "seconds": time.perf_counter() - started,
        "rows": rows,
        "mean_pgd_20": mean,
        "chosen_eps": min(eps for eps in CANDIDATES if mean[eps] < FALLEN),
    }
    write(path, to_json(record))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *(sys.argv[2:] or ["digits"]))
