"""Records as runs leave them, for the tests of pages and tables: results, audits, claims, each with a place for any text."""

import base64
import io

import numpy as np
import torch
from PIL import Image

from normwise.evaluation.artifacts import pictures
from normwise.records import Check, Evaluation, Result, Score, Training
from normwise.report.claims import Network, Table
from normwise.report.origins import Origin, Standing

NORMS = {
    "bn": "BatchNorm",
    "bnwot": "BatchNorm reading the batch",
    "rnt": "RobustNorm, tracked",
    "rn": "RobustNorm reading the batch",
    "gn": "GroupNorm",
    "none": "no norm",
}
RECIPES = {"standard": "standard", "adversarial": "PGD adversarial"}
HOSTILE = "<script>alert(1)</script>\" onclick='x' $\\frac{1}{ {{7*7}} http://evil.example/"


def score(value, coupled=False, half=0.04):
    n, unit = (20, "batches") if coupled else (500, "rows")
    return Score(value=value, low=max(0.0, value - half), high=min(1.0, value + half), n=n, unit=unit, rows=500)


def result(norm="bn", recipe="standard", worst=0.3, *, clean=0.9, seed=0, eps=0.2, label=None, seconds=10.0, warn=False):
    coupled = norm in ("bnwot", "rn")
    reads = {"bn": "running", "rnt": "running", "gn": "sample", "none": "none"}.get(norm, "batch")
    threat, attacks = (
        {"name": "linf", "eps": eps},
        [{"name": "fgsm", "loss": "ce"}, {"name": "pgd", "steps": 20, "relative_step": 0.25}],
    )
    experiment = {
        "data": {"name": "digits"},
        "model": {"name": "resnet", "depth": 8},
        "norm": {"name": norm, "label": label or NORMS[norm]},
        "recipe": {"name": recipe, "label": RECIPES[recipe]},
        "threat": threat,
        "attacks": attacks,
        "training": {"epochs": 40},
        "seed": seed,
    }
    checks = [Check(name="row independence", status="warn" if coupled else "pass", measured="3e-1", why="neighbours")]
    checks += [Check(name="strength grows with steps", status="warn", measured="pgd is weaker", why="masked")] * warn
    evaluation = Evaluation(
        model=f"{norm}-{recipe}",
        mode="eval",
        norm_reads={reads: 7},
        data={"name": "digits"},
        threat=threat,
        attacks=attacks,
        seed=seed,
        n=500,
        batch_size=25,
        coupled=coupled,
        coupling={
            "coupled": coupled,
            "random": False,
            "stateful": False,
            "largest_change": 0.3,
            "tolerance": 1e-5,
            "rows": 50,
        },
        clean_accuracy=score(clean, coupled),
        per_attack={"fgsm": score(worst + 0.05, coupled), "pgd-20": score(worst, coupled)},
        robust_accuracy=score(worst, coupled),
        rebatched_accuracy=worst + 0.01,
        alone_accuracy=worst / 2 if coupled else None,
        checks=tuple(checks),
        seconds=1.5,
        forwards=12_345,
        backwards=10_000,
        digest_before="a",
        digest_after="a",
        provenance={"commit": "0123abc"},
    )
    training = Training(
        seconds=seconds,
        forwards=40_000,
        backwards=40_000,
        epochs=40,
        best_epoch=30,
        validation={"clean": 0.91},
        parameters=77_850,
        trained_parameters=77_850,
    )
    name = f"{norm}-{recipe}" + (f"-seed{seed}" if seed else "")
    return Result(name=name, experiment=experiment, training=training, evaluation=evaluation)


def grid(adversarial=0.4, standard=0.05, **worst):
    """The twelve cells of the bench; `gn_adversarial=0.7` sets one worst case."""
    base = {"standard": standard, "adversarial": adversarial}
    return [
        result(
            norm,
            recipe,
            worst.get(f"{norm}_{recipe}", base[recipe]),
            seconds=10.0 + 3 * i if recipe == "standard" else 70 + i,
        )
        for recipe in RECIPES
        for i, norm in enumerate(NORMS)
    ]


def png(seed=0):
    """A picture as a data URI."""
    held = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8), dtype=np.uint8)).save(held, format="png")
    return f"data:image/png;base64,{base64.b64encode(held.getvalue()).decode()}"


def example(row=17, attack="pgd-20"):
    """An adversarial image as runs keep it."""
    uris = {f"{name}_png": png(row) for name in ("clean", "adversarial", "difference")}
    return {"id": row, "label": 3, "clean_prediction": 3, "prediction": 8, "attack": attack, **uris}


def film(row=17, attack="pgd-20"):
    """An adversarial clip as runs keep it."""
    x = np.random.default_rng(row).random((1, 4, 8, 8), dtype=np.float32)
    return example(row, attack) | pictures(torch.from_numpy(x), torch.from_numpy(x + 0.1).clamp(max=1))


def audited(text="", *, verdict="doubtful", claimed=0.53, bound=0.12, coupled=True):
    """The record of an audit; `text` stands in every place that holds words of others."""
    steps = {
        "over": f"PGD steps{text}",
        "values": [1, 2, 5, 10, 20, 50, 100],
        "scores": [0.8, 0.7, 0.5, 0.4, 0.3, 0.22, 0.2],
    }
    surface = {"over": "share", "values": [0.1, 0.5, 1.0], "scores": [0.1, 2.5, 4.2], "of": f"margin{text}"}
    surface["beside"] = {f"along random directions{text}": [0.0, 0.3, -0.4], "along noise": [0.1, 0.1, 0.2]}

    def check(name, status, series=None, n=200):
        words = {"measured": f"20.0% are left{text}", "why": f"a claim belongs to one image: quote the lowest{text}"}
        return {"name": f"{name}{text}", "status": status, "n": n, **words, **({"series": series} if series else {})}

    doubtful = verdict == "doubtful"
    return {
        "model": f"package.module:network{text}",
        "verdict": verdict,
        "claimed_accuracy": claimed,
        "upper_bound": bound,
        "interval": [max(0, bound - 0.05), min(1, bound + 0.06)],
        "n": 200,
        "threat": {"name": f"linf{text}" if text else "linf", "eps": 8 / 255},
        "coupled": coupled,
        "found_by": {"clean": 12, f"pgd-20{text}": 90, "apgd-t": 4},
        "reach": {"joint": bound, "single": bound + 0.1, "peers": 0.7} if coupled else {},
        "reasons": [f"pgd-50 on dlr and others leave 12.0%{text}", "rows depend on their neighbours"] * doubtful,
        "missing": [f"transfer{text}"] * doubtful,
        "checks": [
            check("repeated and lonely answers", "fail" if coupled else "pass"),
            check("batch size", "pass"),
            check("more steps", "warn" if doubtful else "pass", steps),
            check("loss surface", "pass", surface),
            check("transfer", "could not run" if doubtful else "pass", n=None if doubtful else 200),
        ],
        "examples": [example(row, f"pgd-20{text}") for row in range(6)],
        "provenance": {"command": f"normwise audit network{text}", "commit": None, "hardware": {"device": f"cpu{text}"}},
    }


def claims(text=""):
    """The arguments of the page of claims."""
    side = {"value": 0.1, "low": 0.02, "high": 0.2, "what": f"points{text}"}

    def one(number, verdict, protocol, strongest=None):
        sides = {"protocol": protocol, "strongest": strongest}
        words = {"claim": f"a claim{text}", "paper": f"54.1%{text}", "verdict": f"{verdict}{text}", "why": text}
        rest = {"size": f"S{text}", "seeds": 3, "n": 500, "losses": {f"bn{text}": 0.9}}
        rest |= {
            "premises": [{"what": f"bn trains{text}", "holds": True, "read": []}],
            "evidence": f"others{text}",
            "curve": [{"radius": 1 / 255, **side}],
        }
        return {"system": "robustnorm", "number": str(number), "effect": 0.02, **words, **sides, **rest}

    table = [one(1, "reproduced", side, side), one(2, "opposite direction", side), one(10, "not decided", None)]
    pairs = [(0.9, 0.9), (0.4, 0.3)]
    networks = [
        Network(f"bn{text}", f"plain{text}", False, 3, "500 or 2,000", pairs),
        Network("bnwot", "reads", True, 1, "500", [(0.8, 0.8), (0.6, 0.1)]),
    ]
    heads, rows = (f"network{text}", "seconds"), [(f"bn{text}", "1,500"), ("rn", "90 / 3")]
    more = [Table(f"Training{text}", f"Seconds{text}", heads, rows)]
    met = [Standing("FGSM", False, 0.5, 0.4, f"+10.0 points{text}"), Standing(f"as before{text}", True, 0.9, 0.2, text)]
    origins = [Origin(f"1{text}", f"a claim{text}", f"1/255{text}", f"bn{text}", f"rn{text}", met)]
    origins += [Origin("8", "a claim", "8/255", "bn", "", [Standing("AutoAttack", False, 0.1, None, "10.0%")])]
    size = f"cpu{text}", f"ResNet-8{text}"
    return table, {("clean", f"8/255{text}"): networks}, more, origins, size, f"normwise reproduce{text}"


def diagnosed(text=""):
    """The record of a diagnosis of two networks, of coupled and of independent rows."""

    def table(columns, units, rows, note=""):
        return {
            "columns": columns.split("|"),
            "units": units.split("|"),
            "rows": rows,
            "note": f"{note}{text}" if note else "",
        }

    sites = [f"layer1{text}", f"layer2{text}"]
    inputs = [
        ("clean", 0, 0.0),
        ("noise", None, 0.01),
        (f"fog 3{text}", None, 0.2),
        ("adversarial", 1, 0.1),
        ("adversarial", 5, 0.4),
    ]
    drift = [
        [site, "running", f"running{text}", name, steps, 2 * moved, moved, moved, moved, moved, None]
        for site in sites
        for name, steps, moved in inputs
    ]
    flips = [[site, "running", 9, 6, 0.5, 0.25, None, 0.1] for site in [*sites, "all sites"]]
    plane = [
        [4, 3, a, b, 3 if a < 1 else 5, a - 0.5] for a in (-2.0, -1.0, 0.0, 1.0, 2.0) for b in (-2.0, -1.0, 0.0, 1.0, 2.0)
    ]
    shares = "share of channels"
    tables = {
        "drift": table(
            "site|reads|reference|input|steps|shift|moved|log variance ratio|divergence|Wasserstein-2|log range ratio",
            f"||||steps|deviations{text}|deviations|nats|nats|deviations|nats",
            drift,
        ),
        "flips": table("site|reads|right|fell|repaired|by row|reread|broken", f"||rows|rows|{'|'.join(['share of rows'] * 4)}", flips),
        "gamma": table(
            "site|reads|channels|largest|median|dead|tiny|constant|off",
            f"||channels|gamma|gamma|{shares}|{shares}|{shares}|{shares}",
            [[site, f"running{text}", 8, 1.3, 0.9, 0.0, 0.1, 0.0, 0.2] for site in sites],
        ),
        "margins": table("geometry|quantile|distance|n|found", "|percent|pixel range|rows|rows", [["linf", q, q / 1e4, 9, 9] for q in (5, 50, 95)]),
        "slices": table("row|label|a|b|class|margin", "||radii|radii||logits", plane),
        "smoothness": table(
            "figure|unit|mean|5%|median|95%|n", "||see unit|see unit|see unit|see unit|rows", [[f"gradient norm{text}", f"nats{text}", 2.0, 1.0, 1.5, 4.0, 9]]
        ),
    }  # fmt: skip
    none = {
        name: table("|".join(one["columns"]), "|".join(one["units"]), [], "the network normalizes nowhere")
        for name, one in tables.items()
    }
    seconds = dict.fromkeys(tables, 1.5)
    models = [
        {
            "model": f"runs/bn{text}",
            "norm_reads": {f"running{text}": 2},
            "coupled": False,
            "tables": tables,
            "seconds": seconds,
        },
        {"model": f"runs/bnwot{text}", "norm_reads": {"batch": 2}, "coupled": True, "tables": tables, "seconds": seconds},
        {"model": "plain", "norm_reads": {}, "coupled": False, "tables": none, "seconds": seconds},
    ]
    only = [
        {"name": "drift", "steps": [1, 5], "corruption": f"fog{text}"},
        {"name": "gamma", "dead": 0.001},
        {"name": f"mine{text}"},
    ]
    settings = {"data": {"name": f"digits{text}" if text else "digits"}, "batch_size": 8, "only": only}
    threat = {"name": f"linf{text}" if text else "linf", "eps": 0.125}
    return {
        "n": 12,
        "threat": threat,
        "models": models,
        "settings": settings,
        "provenance": {"command": f"normwise diagnose{text}"},
    }


def shifted(text=""):
    """The record of natural shifts: one network as it is and reading the batch, a corruption that stands in, a baseline."""
    kinds = {
        f"{kind}{text}": {"family": f"weather{text}", "about": f"adds haze{text}", "settings": {"1": [1, 2], "5": 3}, "stand_in": stand_in}
        for kind, stand_in in (("fog", ""), ("frost", f"drawn, not photographed{text}"))
    }  # fmt: skip

    def network(alpha, mean):
        one = {"value": mean, "low": mean - 0.1, "high": mean + 0.1}
        return {
            "network": f"runs/bn{text}",
            "alpha": alpha,
            "own": alpha == 0,
            "coupled": alpha > 0,
            "clean": one,
            "mean": one,
            "gain": one if alpha else None,
            "kinds": dict.fromkeys(kinds, one),
            "others": {f"cifar10.1{text}": one},
            "severities": {"1": one, "5": one},
            "cells": {kind: {"1": one, "5": one} for kind in kinds},
            "errors": {"mean": one, "relative": None, "kinds": dict.fromkeys(kinds, 0.5)},
        }

    return {
        "settings": {"data": {"name": f"digits{text}"}, "severities": [1, 5], "baseline": f"runs/bn{text}"},
        "images": "generated",
        "n": 40,
        "batch_size": 20,
        "kinds": kinds,
        "over": f"2 kinds, severities 1, 5{text}",
        "ce": f"mean CE{text}",
        "networks": [network(0.0, 0.5), network(1.0, 0.7)],
        "sentences": [f"bn is right on half{text}.", f"reading the batch raises it{text}."],
        "provenance": {"command": f"normwise shifts{text}", "commit": f"0123abc{text}"},
    }


def improved(text=""):
    """The record of `normwise improve`: a network, a way that is chosen, one that was not tried."""

    def measured(name, worst, trained):
        score = {"value": worst, "low": worst - 0.1, "high": worst + 0.1, "n": 40, "unit": "rows", "rows": 40}
        return {
            "name": name,
            "says": f"trained against PGD{text}",
            "state": "tried",
            "validation": {"clean": {**score, "value": 0.9, "low": 0.8, "high": 0.95}, "worst": score, "n": 40},
            "clean": {**score, "value": 0.9, "low": 0.8, "high": 0.95},
            "protocol": score,
            "worst": score,
            "coupled": False,
            "training": {"seconds": 90.0, "trained_parameters": 1000} if trained else None,
            "search": {"rate": 0.001, "edge": False, "seconds": 30.0} if trained else None,
            "seconds": 120.0,
            "against": "",
        }

    late = {"name": "mixed", "says": f"both{text}", "state": "was not tried", "why": f"2.0 minutes were spent{text}"}
    data, threat = {"name": f"digits{text}"}, {"name": f"linf{text}", "eps": 0.125}
    return {
        "settings": {"model": f"runs/bn{text}", "data": data, "threat": threat, "lose": 0.2},
        "validation": {"learned": None, "sentence": "", "from": "own"},
        "before": measured("as given", 0.2, False),
        "ways": [measured("pgd-at", 0.5, True), late],
        "chosen": "pgd-at",
        "network": f"runs/improve/cells/pgd-at{text}",
        "again": {"command": f"normwise train --config config.yaml{text}", "how": f"adamw, learning rate 0.001{text}"},
        "sentences": [f"PGD adversarial training raises the worst case{text}", f"mixed was not tried{text}"],
        "audits": {},
        "provenance": {"command": f"normwise improve{text}", "commit": f"0123abc{text}"},
    }
