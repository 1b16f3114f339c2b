"""A row that fell, to be shown."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from ...evaluation.verdict import Verdict


class Example(NamedTuple):
    """A row that fell: its id and label, what the network said before and after, the attack, and both images (c, h, w)."""

    id: int
    label: int
    clean_prediction: int
    prediction: int
    attack: str
    x: Tensor
    x_adv: Tensor

    @property
    def without_images(self) -> dict[str, Any]:
        """All but the images."""
        return {key: value for key, value in self._asdict().items() if key not in ("x", "x_adv")}


def example_of(verdict: Verdict, number: int, called: str) -> Example:
    """The row with this number in the verdict, which the attack called so broke."""
    rows, before = verdict.rows, 0
    for index, batch in enumerate(verdict.batches):
        if number < before + len(batch.y):
            place = number - before
            x, x_adv = batch.x[place].cpu(), verdict.adversarial(index)[place]
            break
        before += len(batch.y)
    return Example(
        int(rows.ids[number]),
        int(rows.y[number]),
        int(rows.clean_predictions[number]),
        int(rows.predictions[number]),
        called,
        x,
        x_adv,
    )
