"""The README of a network that is shared: its figures, their threat card, the audit's verdict, and what is not claimed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..records import Result, Score
from . import audit as audits
from . import card
from .apart import label
from .texts import markdown, to_markdown
from .words import percent

HEADER = """---
library_name: normwise
tags:
- adversarial-robustness
- image-classification
- normalization
---
"""
LOAD = """```python
import normwise as nw  # pip install 'normwise[hub]'

model = nw.load("hub:{repository}").model  # in evaluation mode; pixels in [0, 1]
```

```
normwise evaluate hub:{repository}    the data, the attacks and the seed are those of its training
```
"""
NOT_CLAIMED = (
    "Robustness to another threat model, to a larger radius, or to natural changes of the images.",
    "Accuracy on other data, or on images that were prepared in another way. Pixels lie in [0, 1].",
    "A guarantee. Every figure is an upper bound: a stronger attack can only lower it.",
    "Fitness for a use in which a wrong answer does harm.",
)
TOGETHER = "Robustness of one image in other batches: the answer to an image depends on the other images of its batch."


def of(repository: str, result: Result, audited: Mapping[str, Any] | None) -> str:
    """The card of the network in a repository as Markdown; `audited` is the record of its audit, if there is one."""
    name = repository.split("/")[1]
    parts = [f"# {markdown(name)}\n", _network(result), "## Figures\n", _figures(result), *_doubts(result)]
    parts += ["## Threat card\n", _threat_card(result), "## Audit\n", _verdict(name, audited)]
    parts += ["## How to load it\n", LOAD.format(repository=repository), "## What is not claimed\n"]
    coupled = (TOGETHER,) * result.evaluation.coupled
    return HEADER + "\n" + "\n".join([*parts, _listed((*NOT_CLAIMED, *coupled))])


def _network(result: Result) -> str:
    settings = result.experiment
    parts = [("Norm", settings.get("norm")), ("Recipe", settings.get("recipe")), ("Data", result.evaluation.data)]
    lines = [card.network(result).capitalize(), *(f"{what}: {label(value, 'its own')}" for what, value in parts)]
    lines += ([f"Trained from: {settings['start']}"] if settings.get("start") else []) + [
        f"One training, seed {settings.get('seed')}"
    ]
    lead = "A network that was trained and attacked with normwise, which measures robustness to adversarial images.\n\n"
    return lead + _listed(lines)


def _figures(result: Result) -> str:
    """Clean accuracy and the two headline figures, each with its interval and its number of images."""
    e = result.evaluation
    protocol, strongest = e.pair
    rows: list[tuple[str, Score]] = [("Clean", e.clean_accuracy), ("Robust: after the protocol's attacks", protocol)]
    if e.single:
        rows += [
            ("Joint: after the strongest attacks, a whole batch attacked", strongest),
            ("Single: one image attacked among clean ones", e.single),
        ]
    rows += [("Robust: worst case", e.headline)]
    cells = [
        [what, percent(score.value), f"{100 * score.low:.1f} to {100 * score.high:.1f}%", score.sample]
        for what, score in rows
    ]
    return to_markdown(["Accuracy", "Value", "95% interval", "Over"], cells, [False, True, True, False])


def _doubts(result: Result) -> list[str]:
    found = [f"{check.name}: {check.measured}; {check.why}" for check in result.evaluation.checks if check.status != "pass"]
    return ["Reasons for doubt that the evaluation found:\n", _listed(found)] if found else []


def _threat_card(result: Result) -> str:
    lines = [*card.of(result).lines, ("The attacker knows", [card.KNOWS])]
    return "".join(f"- **{what}**: {markdown('; '.join(texts))}.\n" for what, texts in lines)


def _verdict(name: str, audited: Mapping[str, Any] | None) -> str:
    if audited is None:
        return "**Not audited.** Nobody has tested with `normwise audit` whether this robustness is real.\n"
    summary = audits.summarize(audited, name)
    lines = " ".join(f"{what}: {text}" for what, text in summary.lines)
    return f"**{markdown(summary.lead)}** {markdown(lines)}\n" + ("\n" + _listed(summary.reasons)) * bool(summary.reasons)


def _listed(lines: Any) -> str:
    return "".join(f"- {markdown(line)}\n" for line in lines)
