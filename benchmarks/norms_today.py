"""Does changing the normalization make it robust? ViT and ConvNeXt with four norms each, standard and N-FGSM training.

    python benchmarks/norms_today.py OUT [--size cpu] [--only vit-dyt-standard ...] [--rows 20000] [--epochs 20] [--seeds 2] [--audit 2] [--dry]

Size `digits` is the embedded digits, on which an arm takes minutes. Size `cpu` is CIFAR-10 (NORMWISE_DATA). Size `gpu` is a folder of images of
224 pixels, such as ImageNet's (--images DIR, with train/CLASS and val/CLASS; --cache DIR where memory does not hold it), ViT-Small of patch 16
and ConvNeXt-Femto of patch 4, at 4/255. Each arm chooses its learning rate on seed 0 by short trainings judged on validation images, as
docs/laboratory/method.md says; on digits with N-FGSM by whole ones. Then it trains and is evaluated with every seed on 2,000 test images
(digits: 500), once more at an eighth of the radius on 500, where networks trained on clean images differ, and --audit gives the audit of seed 0
so many minutes. A stopped run goes on where it was. --dry names the arms and what each costs in forwards and backwards of images, and trains
nothing. OUT/arms.json has every arm: its search, its results, its loss by epoch, and whether it converged.
"""

import argparse
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

from normwise import audit, load
from normwise.auditing.options import AuditOptions
from normwise.data import Cifar10, Digits, ImageFolder
from normwise.experiments.experiment import Experiment, evaluated, run, train
from normwise.experiments.tuning import Try, Tuning, search
from normwise.models import ConvNeXt, ViT
from normwise.norms import NORMS
from normwise.records import provenance, to_json, write
from normwise.threats import Linf
from normwise.training.loop import LOG
from normwise.training.recipes import NFGSM, Standard
from normwise.training.schedule import Schedule

NORMS_OF = {"vit": ("layernorm2d", "rmsnorm", "dyt", "derf"), "convnext": ("layernorm2d", "grn", "dyt", "bn")}
NETWORKS = {
    "digits": {"vit": ViT(side=8, stem="conv", depth=2), "convnext": ConvNeXt(width=16, patch=1)},
    "cpu": {"vit": ViT(stem="conv", width=48, depth=4, heads=2), "convnext": ConvNeXt(width=24, patch=4)},
    "gpu": {"vit": ViT(side=224, patch=16, width=384, depth=12, heads=6), "convnext": ConvNeXt(width=48, patch=4)},
}
RECIPES = {"standard": Standard(), "nfgsm": NFGSM()}
RATES = (3e-4, 1e-3, 3e-3)
AUDITED = 200  # images
LEAST = 0.6  # clean accuracy of an arm that has converged
EPS = {"digits": 0.2, "cpu": 8 / 255, "gpu": 4 / 255}
TESTED = {"digits": 500, "cpu": 2000, "gpu": 2000}
VALIDATION = {
    "digits": 200,
    "cpu": 1000,
    "gpu": 1000,
}  # on so few digits rates that chance does not tell apart are judged by loss
BATCH = {"digits": 64, "cpu": 128, "gpu": 256}
CROP = {"digits": 0, "cpu": 4, "gpu": 28}


def arms(given):
    """Every arm by name, with the middle rate."""
    schedule = Schedule(
        epochs=given.epochs,
        batch_size=BATCH[given.size],
        optimizer="adamw",
        lr=RATES[1],
        weight_decay=0.05,
        decay="onecycle",
        crop=CROP[given.size],
        flip=given.size != "digits",
        decay_norms=False,
        precision="bf16" if given.size == "gpu" else "fp32",
        validate_every=given.epochs,
    )
    rows = {"train_limit": given.rows, "validation_size": VALIDATION[given.size], "test_limit": TESTED[given.size]}
    made = {"digits": Digits, "cpu": Cifar10, "gpu": partial(ImageFolder, root=given.images, size=224, cache=given.cache)}
    data = made[given.size](**rows)
    for kind, network in NETWORKS[given.size].items():
        for norm in NORMS_OF[kind]:
            for name, recipe in RECIPES.items():
                yield (
                    f"{kind}-{norm}-{name}",
                    Experiment(
                        data=data,
                        model=network,
                        norm=NORMS.make(norm),
                        recipe=recipe,
                        threat=Linf(eps=EPS[given.size]),
                        schedule=schedule,
                        batch_size=100,
                    ),
                )


def part(e, tuning):
    """Share of the schedule that a try takes: on digits whole with N-FGSM, whose short trainings learn nothing, or are still stable where whole ones are not."""
    return 1.0 if e.recipe.robust and tuning.chance else tuning.part


def tuned(e, folder, tuning):
    """The search of an arm's learning rate, on seed 0."""
    epochs = replace(tuning, part=part(e, tuning)).epochs(e.schedule.epochs)

    def attempt(rate):
        short = replace(e, schedule=replace(e.schedule, lr=rate, epochs=epochs, validate_every=epochs))
        made = train(short, folder / f"try-{epochs}-{rate:g}", print)[0].training
        reached = made.validation.get("robust" if e.recipe.robust else "clean", 0.0)
        return Try(rate, reached, made.loss, made.forwards, made.backwards, made.seconds)

    return {"epochs": epochs, **search(RATES, attempt, folder / f"search-{epochs}.json", tuning).to_record()}


def audited(e, folder, minutes):
    """What an audit says of a trained network's own robust accuracy."""
    parts = e.data.test(batch_size=e.batch_size)[: max(1, AUDITED // e.batch_size)]
    found = audit(load(folder).model, parts, e.threat, options=AuditOptions(budget=minutes))
    loud = {one.name: one.measured for one in found.checks if one.status in ("fail", "warn")}
    summary = {key: getattr(found, key) for key in ("verdict", "claimed_accuracy", "upper_bound", "n", "reasons")}
    return {**summary, "checks": loud}


def nearby(e, folder):
    """A trained network at an eighth of the radius, on 500 images."""
    near = replace(e, threat=Linf(eps=e.threat.eps / 8), data=replace(e.data, test_limit=500))
    return evaluated(near, load(folder).model, print)


def curve(folder):
    """Mean loss of every epoch."""
    return [json.loads(line)["loss"] for line in (folder / LOG).read_text().splitlines()]


def cost(e, seeds, tuning):
    """Images forward in training: the tries of the list, and every seed."""
    passes = getattr(e.recipe, "steps", 1) + 1 if e.recipe.robust else 1
    epochs = len(RATES) * replace(tuning, part=part(e, tuning)).epochs(e.schedule.epochs) + seeds * e.schedule.epochs
    return passes * epochs * 100 * e.data.train_batches(100)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--size", choices=tuple(NETWORKS), default="cpu")
    parser.add_argument("--images", default="")
    parser.add_argument("--cache", default="")
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--rows", type=int, help="training images; 20,000, or of size gpu all")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--audit", type=float, default=0, help="minutes of an audit; 0: none")
    parser.add_argument("--dry", action="store_true")
    given = parser.parse_args()
    given.rows = given.rows or (20_000 if given.size == "cpu" else None)
    tuning = Tuning(rows=VALIDATION[given.size], chance=given.size == "digits")
    chosen = {name: e for name, e in arms(given) if not given.only or name in given.only}
    if given.dry:
        for name, e in chosen.items():
            print(f"{name}: {cost(e, given.seeds, tuning):,} images forward in training")
        return
    found = {}
    for name, e in chosen.items():
        chosen_by = tuned(e, given.out / name, tuning)
        results, near, curves = [], [], []
        for seed in range(given.seeds):
            folder = given.out / name / f"seed{seed}"
            final = replace(e, seed=seed, schedule=replace(e.schedule, lr=chosen_by["rate"]))
            results.append(run(final, folder, name=f"{name}-seed{seed}", report=print))
            near.append(nearby(final, folder))
            curves.append(curve(folder))
        clean = [one.evaluation.clean_accuracy.value for one in results]
        arm = {"search": chosen_by, "results": results, "near": near, "curves": curves}
        found[name] = {**arm, "converged": min(clean) >= LEAST}
        if given.audit:
            found[name]["audit"] = audited(final, given.out / name / "seed0", given.audit)
        write(given.out / "arms.json", to_json({**provenance(), "least": LEAST, "arms": found}))


if __name__ == "__main__":
    main()
