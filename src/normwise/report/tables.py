"""Results as rows: for CSV, Markdown and the page."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from ..record import Result, Score


def label(result: Result, what: str) -> str:
    """What a choice ("norm", "recipe", "model") is called in tables; a dash where the run made none."""
    choice = result.experiment.get(what)
    if not isinstance(choice, dict):
        return str(choice or "–")
    return str(choice.get("label") or choice.get("name") or "–")


def attacks(results: Sequence[Result]) -> list[str]:
    """The attacks that any result was judged under, in the order they were run."""
    return list(dict.fromkeys(name for result in results for name in result.evaluation.per_attack))


def scores(result: Result) -> dict[str, Score]:
    """Every accuracy of a result: clean, under each attack, worst case."""
    e = result.evaluation
    return {"clean": e.clean_accuracy, **e.per_attack, "worst case": e.robust_accuracy}


def reads(result: Result) -> str:
    """What the norms of the network read, e.g. "running", "batch", "batch+running"."""
    return ", ".join(result.evaluation.norm_reads) or "nothing"


def threat(result: Result) -> str:
    """The threat model in one line: kind, radius in pixels and in 255ths."""
    settings = result.evaluation.threat
    eps = settings.get("eps")
    return (
        f"{settings.get('name', '?')}, eps {eps:.4g} ({255 * eps:.3g}/255)"
        if isinstance(eps, float | int)
        else str(settings)
    )


def flat(result: Result) -> dict[str, Any]:
    """One result as one row of scalars."""
    e, t = result.evaluation, result.training
    row: dict[str, Any] = {
        "name": result.name,
        "norm": label(result, "norm"),
        "recipe": label(result, "recipe"),
        "model": label(result, "model"),
        "data": e.data.get("name", ""),
        "threat": e.threat.get("name", ""),
        "eps": e.threat.get("eps", ""),
        "seed": e.seed,
        "reads": reads(result),
        "coupled": e.coupled,
        "batch_size": e.batch_size,
    }
    for name, score in scores(result).items():
        key = name.replace(" ", "_")
        row |= {
            f"{key}": score.value,
            f"{key}_low": score.low,
            f"{key}_high": score.high,
            f"{key}_n": score.n,
            f"{key}_unit": score.unit,
        }
    row |= {"rebatched": e.rebatched_accuracy, "alone": e.alone_accuracy}
    if t:
        row |= {
            "training_seconds": t.seconds,
            "training_forwards": t.forwards,
            "training_backwards": t.backwards,
            "parameters": t.parameters,
        }
    return row | {"judging_seconds": e.seconds, "judging_forwards": e.forwards, "judging_backwards": e.backwards}


def to_csv(results: Sequence[Result]) -> str:
    """All results, one row each, under the union of their columns."""
    rows = [flat(result) for result in results]
    out = io.StringIO()
    writer = csv.DictWriter(out, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def markdown(results: Sequence[Result]) -> str:
    """A compact table of the accuracies with their intervals."""
    columns = ["norm", "recipe", "coupled", "clean", *attacks(results), "worst case"]
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for result in results:
        found = scores(result)
        cells = [label(result, "norm"), label(result, "recipe"), "yes" if result.evaluation.coupled else "no"]
        cells += [str(found[name]) if name in found else "–" for name in columns[3:]]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"
