"""RobustBench's entries: one JSON file per model, written as the leaderboard stores it, and read."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .attacks import AutoAttack
from .record import Evaluation
from .registry import plain

_CORRUPTIONS = ("corruptions_acc", "corruptions_mce", "corruptions_acc_3d", "corruptions_mce_3d")
_OPTIONAL = ("autoattack_acc", "external", "footnote", *_CORRUPTIONS)  # left out where there is none
PUBLISHED = AutoAttack()
PARTS = PUBLISHED.label


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One model of the leaderboard; accuracies are texts, in percent to two places, eps is "8/255" or "0.5".

    `autoattack_acc` is accuracy under AutoAttack-standard, `external` a lower one found by any other attack,
    `number_forward_passes` how often the defence asks its network per image, `unreliable` whether the verdict is doubted.
    `corruptions_acc` and `corruptions_mce` are accuracy and mean error under common corruptions, and in 3D, where the entry has them.
    Source: the files under model_info/ of RobustBench at 78fcc9e.
    """

    link: str = ""
    name: str = ""
    authors: str = ""
    additional_data: bool = False
    number_forward_passes: int = 1
    dataset: str = ""
    venue: str = "N/A"
    architecture: str = ""
    eps: str | None = None
    clean_acc: str = ""
    reported: str | None = None
    autoattack_acc: str | None = None
    external: str | None = None
    corruptions_acc: str | None = None
    corruptions_mce: str | None = None
    corruptions_acc_3d: str | None = None
    corruptions_mce_3d: str | None = None
    footnote: str | None = None
    unreliable: bool = False

    @property
    def robust(self) -> float | None:
        """Robust accuracy as the leaderboard sorts by: the external one where there is one. A share; None without one."""
        found = self.external or self.autoattack_acc
        return float(found) / 100 if found else None

    def to_json(self) -> str:
        """The file's text."""
        data = {key: value for key, value in dataclasses.asdict(self).items() if key not in _OPTIONAL or value is not None}
        return json.dumps(data, indent=2)


def entry(evaluation: Evaluation, **about: Any) -> Entry:
    """The entry of an evaluation that ran AutoAttack-standard; `about` gives name, link, authors, architecture and so on.

    Rows that are coupled, and noise in the model, make it unreliable, and the footnote says so. Raises ValueError for an
    evaluation without AutoAttack-standard, and for geometries that the leaderboard does not have.
    """
    score, kind = evaluation.per_attack.get(PARTS), evaluation.threat.get("name")
    if score is None:
        raise ValueError(f"a RobustBench entry needs {PARTS}; got {', '.join(evaluation.per_attack) or 'no attack'}")
    settings = {key: value for key, value in plain(PUBLISHED).items() if key != "draws"}  # draws are of "rand" alone
    if not any(settings.items() <= one.items() for one in evaluation.attacks):  # earlier records call any settings so
        raise ValueError(f"a RobustBench entry needs {PARTS} with its published settings; got {evaluation.attacks}")
    if kind not in ("linf", "l2"):
        raise ValueError(f"RobustBench has linf and l2; got {kind}")
    worst, eps = evaluation.robust_accuracy.value, evaluation.threat["eps"]
    doubts = [word for word in ("coupled", "random", "stateful") if evaluation.coupling.get(word)]
    measured = {
        "dataset": evaluation.data.get("name", ""),
        "eps": f"{round(255 * eps)}/255" if kind == "linf" and abs(255 * eps - round(255 * eps)) < 1e-6 else f"{eps:g}",
        "clean_acc": _percent(evaluation.clean_accuracy.value),
        "autoattack_acc": _percent(score.value),
        "external": _percent(worst) if worst < score.value else None,
        "unreliable": bool(doubts),
        "footnote": f"rows or answers are {', '.join(doubts)}: AutoAttack assumes that they are not." if doubts else None,
    }
    return Entry(**{**measured, **about})


def read(path: Path) -> Entry:
    """Read an entry. Raises ValueError naming the file where it is none."""
    try:
        data = json.loads(path.read_text())
        known = {field.name for field in dataclasses.fields(Entry)}
        found = Entry(**{key: value for key, value in data.items() if key in known})
        if not {"name", "dataset", "clean_acc"} <= data.keys():
            raise KeyError("name, dataset or clean_acc is missing")
        float(found.clean_acc), found.robust
    except (OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no RobustBench entry ({error}); give a file of its model_info folder") from None
    return found


def _percent(share: float) -> str:
    return str(round(100 * share, 2))
