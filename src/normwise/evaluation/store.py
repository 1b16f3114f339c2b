"""Finished batches of an evaluation: in memory, or in files from which a killed evaluation goes on."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ..limits import SETTINGS, check_tensors, from_json
from ..records import write
from ..registry import as_json, changed
from ..utils.forward import in_time
from ..utils.memory import release_free_memory
from .batch import Outcome, RowOutcomes

PARTS = "parts"  # of the folder of a run: where its finished batches are
KEY = "key.json"
T = TypeVar("T")
POLL = 0.02  # seconds between two looks at what another process does


@dataclass(frozen=True)
class Shard:
    """The share of one of `count` workers on one folder: every count-th batch from the number-th on.

    `whole`: the worker gets what comes of every batch. It begins at a place of its own, leaves out what another is attacking
    (on this machine), and waits for that in the end.
    """

    folder: Path | None
    number: int
    count: int
    whole: bool = False

    def turned(self, places: Sequence[T]) -> list[T]:
        """Places in the order in which this worker takes them."""
        first = len(places) * self.number // self.count if self.whole else 0
        return [*places[first:], *places[:first]]

    def of(self, batches: list[int]) -> list[int]:
        """Which batches it answers for. Raises ValueError where that is none."""
        if self.whole:
            return batches
        if not 0 <= self.number < min(self.count, len(batches)):
            raise ValueError(
                f"shard is {self.number} of {self.count}, of {len(batches)} batches; give numbers with 0 <= number < count <= batches"
            )
        return batches[self.number :: self.count]


class BatchStore:
    """Outcomes by the index of their batch; with a folder they are written as soon as they exist, and not held.

    `key` says what they are outcomes of. Raises ValueError for a folder that holds outcomes of something else.
    """

    def __init__(self, folder: Path | None, key: Mapping[str, Any]) -> None:
        self.folder, self._held = folder, dict[int, Outcome]()
        self._key = as_json(key)
        if folder is not None and (folder / KEY).is_file():
            before = from_json(folder / KEY, SETTINGS)
            if difference := changed(before, key):
                raise ValueError(
                    f"{folder} holds part of an evaluation whose {difference}; give another folder, or delete this one"
                )

    def holds(self, index: int, mark: str) -> bool:
        """Whether a batch is there. Raises ValueError if it was another one than the batch with this mark."""
        if self.folder is None or not self._path(index).is_file():
            return False
        try:
            about = self._about(index)
        except Exception:  # torn: it is made anew
            return False
        if not about.keys() >= set(Outcome._fields[1:]):  # of an earlier version: so is it
            return False
        if about["mark"] != mark:
            raise ValueError(
                f"{self.folder} holds part of an evaluation on other data (batch {index} differs); give another folder, or "
                "delete this one"
            )
        return True

    def finished(self) -> int:
        """How many batches are there, of all processes."""
        return len(self._held) if self.folder is None else len(list(self.folder.glob("*.safetensors")))

    def get(self, index: int) -> Outcome:
        """What became of a batch that is there."""
        if self.folder is None:
            return self._held[index]
        from safetensors import safe_open

        release_free_memory()  # of the batch before
        with safe_open(self._path(index), "pt") as file:
            rows = RowOutcomes(*(file.get_tensor(name) for name in RowOutcomes._fields))
        about = self._about(index)
        return Outcome(rows, *(about[name] for name in Outcome._fields[1:]))

    def put(self, index: int, mark: str, outcome: Outcome) -> None:
        """Keep what became of a batch."""
        if self.folder is None:
            self._held[index] = outcome
            return
        from safetensors.torch import save

        if not (self.folder / KEY).is_file():
            write(self.folder / KEY, json.dumps(self._key, indent=1, sort_keys=True))
        about = {**outcome._asdict(), "mark": mark}
        tensors = {name: tensor.contiguous() for name, tensor in about.pop("rows")._asdict().items()}
        write(self._path(index), save(tensors, {"about": json.dumps(about)}))
        release_free_memory()

    @contextmanager
    def claimed(self, index: int, patient: bool) -> Iterator[bool]:
        """Keep other processes of this machine from a batch; False: one of them has it. Who is `patient` waits until it is done.

        What a process has is free again when it dies. Raises TimeoutError where the time is over while it waits.
        """
        if self.folder is None:
            yield True
            return
        from filelock import FileLock, Timeout

        lock = FileLock(self._path(index).with_suffix(".lock"))
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            while True:
                try:
                    lock.acquire(blocking=False)
                    break
                except Timeout:
                    if not patient:
                        break
                    in_time()
                    time.sleep(POLL)
            yield lock.is_locked
        finally:
            lock.release()

    def _about(self, index: int) -> dict[str, Any]:
        from safetensors import safe_open

        check_tensors(self._path(index))
        with safe_open(self._path(index), "pt") as file:
            found: dict[str, Any] = json.loads(file.metadata()["about"])
        return found

    def _path(self, index: int) -> Path:
        assert self.folder is not None
        return self.folder / f"{index:06}.safetensors"
