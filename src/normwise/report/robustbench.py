"""RobustBench's entries: one JSON file per model, as the leaderboard stores it."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from ..limits import SETTINGS, from_json

_CORRUPTIONS = ("corruptions_acc", "corruptions_mce", "corruptions_acc_3d", "corruptions_mce_3d")
_OPTIONAL = ("autoattack_acc", "external", "footnote", *_CORRUPTIONS)  # left out where there is none


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One model of the leaderboard; accuracies are texts, in percent to two places, eps is "8/255" or "0.5".

    `autoattack_acc` is accuracy under AutoAttack-standard, `external` a lower one found by any other attack,
    `number_forward_passes` how often the defence asks its network per image, `unreliable` whether the verdict is doubted.
    `corruptions_acc` and `corruptions_mce` are accuracy and mean error under common corruptions, and in 3D, where the entry
    has them.
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


def read(path: Path) -> Entry:
    """Read an entry. Raises ValueError naming the file where it is none."""
    try:
        data = from_json(path, SETTINGS)
        known = {field.name for field in dataclasses.fields(Entry)}
        found = Entry(**{key: value for key, value in data.items() if key in known})
        if not {"name", "dataset", "clean_acc"} <= data.keys():
            raise KeyError("name, dataset or clean_acc is missing")
        float(found.clean_acc), found.robust
    except (OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no RobustBench entry ({error}); give a file of its model_info folder") from None
    return found
