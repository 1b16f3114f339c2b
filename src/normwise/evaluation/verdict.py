"""What an evaluation returns: the record, and the outcome of each image."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import Any

import torch
from torch import Tensor

from ..records import Evaluation, Score
from ..types import Attack, Batch, Images
from . import groups, sanity_checks
from .batch import RowOutcomes
from .naming import labels


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The record, and the outcome of each image.

    `attacks` are all that searched, the strongest last. `rows` holds, per row, the ids, labels, answers and what broke it
    (see `RowOutcomes`), without images. Images are read batch by batch with `images()`; `x` and `x_adv` read them all.
    `groups`: the rows' groups as numbers, where `by_group` was given some.
    """

    evaluation: Evaluation
    attacks: Sequence[Attack]
    rows: RowOutcomes
    batches: Sequence[Batch]
    adversarial: Callable[[int], Tensor]  # of the batch with this number
    groups: groups.Groups | None = None

    def images(self) -> Iterator[tuple[Images, Images]]:
        """The clean images and the worst case found, batch by batch."""
        for number, batch in enumerate(self.batches):
            yield batch.x.cpu(), self.adversarial(number)

    def named(self, model: str, data: Mapping[str, Any]) -> Verdict:
        """The same with the model's name and the data set's settings in the record."""
        return replace(self, evaluation=replace(self.evaluation, model=model or self.evaluation.model, data=dict(data)))

    def by_group(self, of: Sequence[Hashable]) -> Verdict:
        """The same with intervals for rows that come in groups, such as clips of one patient: `of` names each row's, in the order of the batches.

        Shares get Wilson's interval for as many independent rows as these count in the least favourable of three: clean,
        under the protocol, and in the worst case (see `groups.effective_rows`). Coupled rows keep their intervals over
        batches, with a check that warns. Raises ValueError where there is not one group for each row.
        """
        numbers = groups.numbered(of, self.evaluation.n)
        if (count := int(numbers.max()) + 1) == self.evaluation.n:
            return self
        if self.evaluation.coupled:
            checks = (*self.evaluation.checks, sanity_checks.in_groups(self.evaluation.n, count))
            return replace(self, evaluation=replace(self.evaluation, checks=checks))
        answers = [self.rows.clean_predictions == self.rows.y, self.under_protocol, self.correct]
        rows = groups.effective_rows([right.double().numpy() for right in answers], numbers)
        return replace(self, evaluation=groups.with_intervals(self.evaluation, rows, count), groups=numbers)

    @property
    def under_protocol(self) -> Tensor:
        """Which independent rows stand under the protocol: what broke a row first is among its attacks, or is not."""
        by = self.rows.broken_by
        return (by == -1) | (by >= len(self.evaluation.attacks))

    @property
    def correct(self) -> Tensor:
        """Per row, whether it stays correct: against attacks with a class to reach, whether that is not reached either."""
        rows = self.rows
        return rows.broken_by == -1 if self.evaluation.goal == "targeted" else rows.predictions == rows.y

    @property
    def clean_accuracy(self) -> Score:
        """The share of clean images that are classified correctly, with its interval and `n`."""
        return self.evaluation.clean_accuracy

    @property
    def robust_accuracy(self) -> Score:
        """The share that stays correct under every attack, with its interval and `n`: the figure to quote."""
        return self.evaluation.headline

    @property
    def _summary(self) -> dict[str, str]:
        e = self.evaluation
        of = f"{e.n} images" + (f" of {e.data['name']}" if e.data.get("name") else "")
        threat = ", ".join(f"{key} {value:g}" if isinstance(value, float) else str(value) for key, value in e.threat.items())
        names = labels(self.attacks)
        if e.goal != "misclassified":
            threat += f", goal {e.goal}"
        coupled = "coupled: whole batches were attacked" if e.coupled else "independent"
        figures = {"clean accuracy": str(self.clean_accuracy), "robust accuracy": str(self.robust_accuracy)}
        doubts = [
            f"{one.name}: {one.measured}; {one.why}"
            for one in e.checks
            if one.status != "pass" and one.name not in ("row independence", "enough batches")
        ]
        warned = {f"warning{f' {number}' if number > 1 else ''}": doubt for number, doubt in enumerate(doubts, 1)}
        return {"data": of, "threat": threat, "attacks": ", ".join(names)} | figures | {"images": coupled} | warned

    def __str__(self) -> str:
        return "\n".join(f"{name:16}{value}" for name, value in self._summary.items())

    def _repr_html_(self) -> str:
        rows = (f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in self._summary.items())
        return f"<table>{''.join(rows)}</table>"

    @property
    def x(self) -> Images:
        """All clean images."""
        return torch.cat([x for x, _ in self.images()])

    @property
    def x_adv(self) -> Images:
        """All images of the worst case found."""
        return torch.cat([x_adv for _, x_adv in self.images()])
