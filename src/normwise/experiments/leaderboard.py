"""Evaluations as entries of RobustBench's leaderboard."""

from __future__ import annotations

from typing import Any

from ..attacks import AutoAttack
from ..evaluation.sanity_checks import ELSEWHERE
from ..records import Evaluation
from ..registry import plain
from ..report.robustbench import Entry

PUBLISHED = AutoAttack()
PARTS = PUBLISHED.label
GAVE_UP = (
    "searches may have stopped early on images whose margin shrank too slowly, which AutoAttack as published does not do: "
    "--speed.give_up false."
)


def entry(evaluation: Evaluation, **about: Any) -> Entry:
    """The entry of an evaluation that ran AutoAttack-standard; `about` gives name, link, authors, architecture and so on.

    Rows that are coupled, noise in the model, and images made on another network make it unreliable, and the footnote says
    so. It also says where searches may have given up, which those of AutoAttack as published do not. Raises ValueError for
    an evaluation without AutoAttack-standard, and for geometries that the leaderboard does not have.
    """
    score, kind = evaluation.per_attack.get(PARTS), evaluation.threat.get("name")
    if score is None:
        raise ValueError(f"a RobustBench entry needs {PARTS}; got {', '.join(evaluation.per_attack) or 'no attack'}")
    settings = {key: value for key, value in plain(PUBLISHED).items() if key != "draws"}  # draws are of "rand" alone
    if not any(settings.items() <= one.items() for one in evaluation.attacks):  # earlier records call any settings so
        raise ValueError(f"a RobustBench entry needs {PARTS} with its published settings; got {evaluation.attacks}")
    if kind not in ("linf", "l2"):
        raise ValueError(f"RobustBench has linf and l2; got {kind}")
    patient = evaluation.speed.get("give_up") is False
    worst, eps = evaluation.robust_accuracy.value, evaluation.threat["eps"]
    doubts = [word for word in ("coupled", "random", "stateful") if evaluation.coupling.get(word)]
    notes = [f"rows or answers are {', '.join(doubts)}: AutoAttack assumes that they are not."] if doubts else []
    notes += [f"{one.measured}: {one.why}." for one in evaluation.checks if one.name == ELSEWHERE]
    measured = {
        "dataset": evaluation.data.get("name", ""),
        "eps": f"{round(255 * eps)}/255" if kind == "linf" and abs(255 * eps - round(255 * eps)) < 1e-6 else f"{eps:g}",
        "clean_acc": _percent(evaluation.clean_accuracy.value),
        "autoattack_acc": _percent(score.value),
        "external": _percent(worst) if worst < score.value else None,
        "unreliable": bool(notes),
        "footnote": " ".join([*notes, *([] if patient else [GAVE_UP])]) or None,
    }
    return Entry(**{**measured, **about})


def _percent(share: float) -> str:
    return str(round(100 * share, 2))
