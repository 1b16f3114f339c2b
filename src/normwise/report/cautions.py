"""Reasons for caution: what a page of results cannot say, computed from its cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .cells import Cell, attackers
from .words import joined, plural, where


def cautions(found: Sequence[Cell], failures: Mapping[str, str], compared: bool) -> list[tuple[str, str]]:
    """Reasons for caution as (what about, text); `failures` are cells that did not end, `compared`: whether any is compared with BatchNorm."""
    reasons = []
    if failures:
        reasons.append(
            ("Failed cells", f"{joined(failures)} failed and cannot be compared; the reasons are below the table.")
        )
    trained = [cell for cell in found if any(r.training for r in cell.results)]
    seeds = {len(cell.results) for cell in found}
    if seeds == {1} and trained:
        reasons.append(
            ("One training each (one seed): the luck of training is in no interval", "Another seed may give other figures.")
        )
    elif seeds != {1}:
        few = str(min(seeds)) if len(seeds) == 1 else f"{min(seeds)} to {max(seeds)}"
        alone = " The interval of a cell with one seed covers images alone." if 1 in seeds else ""
        reasons.append((f"{few} seeds", f"Means over seeds; the intervals cover images and trainings.{alone}"))
    if len(trained) > 1:
        untuned = "Each network trained with the settings it was given; no learning rate was tuned. A difference may come from that."
        reasons.append(("Learning rates not tuned", untuned))
    names = attackers(result for cell in found for result in cell.results)
    if names:
        weak = f"A worst case over {joined(names)} is an upper bound on robustness"
        stronger = "" if any(name.startswith("AUTOATTACK") for name in names) else ", such as AutoAttack,"
        alone = (
            ""
            if any(cell.paired for cell in found)
            else " No further attack searched: the protocol's figure and the worst case are the same."
        )
        reasons.append(
            (
                "A stronger attack can only lower a worst case",
                f"{weak}: a stronger attack{stronger} can only lower it.{alone}",
            )
        )
    if any(cell.coupled for cell in found):
        reasons.append(
            (
                "Coupled images (◆): answers depend on the rest of the batch, so whole batches are judged, which gives higher figures",
                "The worst case of coupled images is taken batch by batch, of independent images image by image. For the same "
                "images and attacks, batch by batch gives the higher figure. A gain of coupled images is partly due to this."
                f"{' If one image among clean neighbours leaves less, that counts.' * any(c.single for c in found)}",
            )
        )
    doubted = [where(where(cell.norm, cell.recipe), cell.setting) for cell in found if cell.doubts]
    if doubted:
        what = joined(dict.fromkeys(check.name for cell in found for check in cell.doubts))
        reasons.append(
            (
                f"A check warned about {plural(len(doubted), 'network')} (!): {what}",
                f"A sanity check warned ({what}) for {plural(len(doubted), 'network')}: {joined(doubted)}.",
            )
        )
    if compared:
        wide = max(cell.worst.high - cell.worst.low for cell in found)
        reasons.append((f"Intervals up to {100 * wide:.1f} points wide", "Smaller differences may not show."))
    return reasons
