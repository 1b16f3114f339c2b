"""The state of a training: saved, and read back to resume."""

from __future__ import annotations

import io
import math
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from ..limits import check_tensors
from ..records import write
from ..registry import as_json, changed

FILE = "last.pt"


@dataclass
class State:
    """How far a training is, and the best model so far."""

    epoch: int = 0  # finished
    seconds: float = 0.0
    forwards: int = 0
    backwards: int = 0
    best_epoch: int = 0
    overfitted_epoch: int = 0
    loss: float = 0.0  # the last epoch's
    top: float = 0.0  # the best validation accuracy so far
    best: dict[str, float] = field(default_factory=dict)  # scores of the chosen epoch
    weights: dict[str, Tensor] = field(default_factory=dict)  # of the chosen epoch
    step: int = 0  # batches done of the epoch under way
    sums: dict[str, float] = field(default_factory=dict)  # over the images of these batches
    draws: dict[str, Tensor] = field(default_factory=dict)  # random states after these batches

    def keep_draws(self, rng: Generator, device: torch.device) -> None:
        """Note the random states."""
        _, words, gauss = random.getstate()
        _, keys, *rest = np.random.get_state()  # noqa: NPY002
        self.draws = {"batches": rng.get_state(), "cpu": torch.get_rng_state()}
        self.draws["python"] = torch.tensor([*words, math.nan if gauss is None else gauss], dtype=torch.float64)
        self.draws["numpy"] = torch.tensor([*keys, *rest], dtype=torch.float64)
        if device.type == "cuda":
            self.draws["cuda"] = torch.cuda.get_rng_state(device)

    def put_draws(self, rng: Generator, device: torch.device) -> None:
        """Go on drawing where the random states were noted."""
        rng.set_state(self.draws["batches"].cpu())
        torch.set_rng_state(self.draws["cpu"].cpu())
        if "python" in self.draws:  # not in folders of earlier versions
            *words, gauss = self.draws["python"].tolist()
            random.setstate((3, tuple(map(int, words)), None if math.isnan(gauss) else gauss))
            *keys, position, has_gauss, cached = self.draws["numpy"].tolist()
            np.random.set_state(("MT19937", np.array(keys, np.uint32), int(position), int(has_gauss), cached))  # noqa: NPY002
        if "cuda" in self.draws and device.type == "cuda":
            torch.cuda.set_rng_state(self.draws["cuda"].cpu(), device)


def save_state(folder: Path, about: Mapping[str, Any], state: State, parts: Mapping[str, Any]) -> None:
    """Write all that is needed to resume: what is trained, how far it is, and the state of its parts."""
    buffer = io.BytesIO()
    states = {name: part.state_dict() for name, part in parts.items()}
    torch.save({"about": as_json(about), "state": asdict(state), **states}, buffer)
    write(folder / FILE, buffer.getvalue())


def read_state(folder: Path, about: Mapping[str, Any], parts: Mapping[str, Any], device: torch.device) -> State:
    """Put the parts in the state that was saved, if the folder holds one. Raises ValueError for a damaged file or another run's."""
    path = folder / FILE
    if not path.exists():
        return State()
    try:
        check_tensors(path)
        saved = torch.load(path, map_location=device, weights_only=True)
        if "about" not in saved or saved["state"].keys() != asdict(State()).keys():
            raise ValueError("another version of normwise wrote it")
        if difference := changed(
            saved["about"], {name: about[name] for name in about if name in saved["about"]}
        ):  # of before: less
            raise ValueError(f"it is from a training whose {difference}")
        for name, part in parts.items():
            part.load_state_dict(saved[name])
        return State(**saved["state"])
    except Exception as error:
        reason = str(error).split("\n")[0][:120]
        raise ValueError(f"{path} cannot be resumed ({reason}); give another folder, or delete it") from None
