"""Validation images that the given network has not learned: a network is better on those than on any other, and so they choose wrongly."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from torch import nn

from ..data import TensorData
from ..evaluation.evaluator import evaluate
from ..types import Data, ThreatModel
from ..utils.intervals import above
from ..utils.per_row import first_rows

ROWS = 1000  # validation images that choose, at most
PART = 10  # one training image of so many validates, where nobody says how many


def with_validation(data: Data) -> Data:
    """The data, with a tenth of its images held back where it has no validation images, 1,000 at most (of test images: half).

    Raises ValueError for a data set of another kind that has none.
    """
    if data.validation(batch_size=ROWS):
        return data
    if not isinstance(data, TensorData):
        raise ValueError(f"{data.name} has no validation images, and ways are compared on these; give data that has some")
    return replace(data, validation_size=max(1, min(ROWS, _available(data))))


def unseen(data: Data, model: nn.Module, threat: ThreatModel, batch_size: int) -> tuple[Data, dict[str, Any]]:
    """The data, with validation images that the network has not learned; and what a record says of them.

    If the network is better on validation images than on test images, by more than chance, it has learned them. Where they
    were taken from training images, half of the test images, 1,000 at most, become validation images instead: no other
    images are new to it. Test images are then fewer, and none of them chooses. Validation images of the data set's own stay.
    """
    seen, new = (
        evaluate(model, first_rows(rows(batch_size=batch_size), ROWS), threat, ()).evaluation.clean_accuracy
        for rows in (data.validation, data.test)
    )
    taken, learned = getattr(data, "validation_size", 0), above(seen, new)
    record: dict[str, Any] = {
        "learned": {"validation": asdict(seen), "test": asdict(new)} if learned else None,
        "sentence": "",
    }
    if learned:
        better = (
            f"The network as it is given is right on {100 * seen.value:.1f}% of validation images, and on {100 * new.value:.1f}% of "
            "test images"
        )
        if isinstance(data, TensorData) and taken and data.validation_from == "train":
            data = replace(data, validation_from="test")
            data = replace(data, validation_size=max(1, min(ROWS, _available(data))))
            record["sentence"] = (
                f"{better}: it has learned the former. So {data.validation_size} test images were made validation images "
                "before anything was tried, and no figure is of these"
            )
        else:
            record["sentence"] = (
                f"{better}: if it was trained on the former, the choice cannot be trusted; give validation images that it "
                "has never seen"
            )
    return data, record | {"from": getattr(data, "validation_from", "") if taken else "own"}


def _available(data: TensorData) -> int:
    """How many images may be held back: a tenth of those that train, or half of those that test."""
    if data.validation_from == "train":
        return data.train_batches(2) * 2 // PART
    return len(replace(data, validation_size=0).test(batch_size=1)) // 2
