"""What the tables of a diagnosis say, in sentences made from their figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from .words import joined, percent, plural

ALL = "all sites"
Row = Mapping[str, Any]
_percent = partial(percent, places=0)  # of few rows


class Side(NamedTuple):
    """One network's table: its rows by column, and why there may be none."""

    model: str
    rows: list[Row]
    note: str


def sides(record: Mapping[str, Any], diagnosis: str) -> list[Side]:
    """The tables of one diagnosis, side by side."""
    names = labels([one["model"] for one in record["models"]])
    tables = [one["tables"].get(diagnosis) for one in record["models"]]
    return [
        Side(name, [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]], table["note"])
        for name, table in zip(names, tables, strict=True)
        if table
    ]


def labels(models: Sequence[str]) -> list[str]:
    """Short names of networks: a folder's last part, a function's own name; as given where that would not tell them apart."""
    last = [model.rstrip("/").replace(":", "/").rsplit("/", 1)[-1] for model in models]
    return last if len(set(last)) == len(last) else list(models)


def sentences(record: Mapping[str, Any], diagnosis: str) -> list[str]:
    """One sentence per network that the diagnosis says something about."""
    said = _SAID.get(diagnosis)
    found = [(side, said(side.rows)) for side in sides(record, diagnosis) if said and side.rows]
    return [f"{side.model}: {text}." for side, text in found if text]


def headline(record: Mapping[str, Any]) -> tuple[str, str]:
    """The finding in a sentence, and what else was found."""
    every = [text for name in _SAID for text in sentences(record, name)]
    first, *more = every or ["Nothing could be measured."]
    drifted = [(side, far) for side in sides(record, "drift") if (far := farthest(side.rows))]
    swapped = [(side.model, whole) for side in sides(record, "flips") if (whole := everywhere(side.rows))]
    moved = _moved(drifted) if drifted else ""
    if not swapped:
        return moved or first, "" if moved else next(iter(more), "")
    batch, own = (joined(f"{_percent(row[part])} ({model})" for model, row in swapped) for part in ("repaired", "by row"))
    fell = joined(f"{row['fell']} of {row['right']} right images ({model})" for model, row in swapped)
    if max(row["repaired"] for _, row in swapped) < FEW:
        lead = f"Here the attack does not work by moving a batch's statistics: those of the clean batch, put back at every norm layer, mend {batch} of what it broke."
    else:
        lead = f"A clean batch's statistics, put back at every norm layer, mend {batch} of the images that the attack broke."
    return (
        lead,
        f"It broke {fell}. Each image's own clean statistics mend {own}, but they also hold what the image shows. {moved}".strip(),
    )


FEW = 0.1  # a share of repaired images below which a cause is ruled out


def _moved(drifted: Sequence[tuple[Side, Far]]) -> str:
    """How far the attack moves the mean of a layer's input, and how far noise and a corruption do."""
    moved = joined(f"{_figure(far.moved)} deviations in {side.model} ({far.site})" for side, far in drifted)
    noise = joined(_figure(far.noise) for _, far in drifted)
    text = f"The attack moves the mean of a layer's input by up to {moved}. Noise as strong moves it there by {noise}"
    natural = [
        [row for row in side.rows if row["site"] == far.site and row["input"] not in ("clean", "noise", "adversarial")]
        for side, far in drifted
    ]
    if all(natural):
        text += f", the corruption {natural[0][0]['input']} by {joined(_figure(rows[0]['moved']) for rows in natural)}"
    return f"{text}."


class Far(NamedTuple):
    """The site whose centre the attack moves farthest, and how far noise of equal norm does."""

    site: str
    steps: int
    moved: float
    noise: float | None


def farthest(rows: Sequence[Row]) -> Far | None:
    """Find the site that the longest attack moves farthest."""
    attacked = [row for row in rows if row["input"] == "adversarial" and row["moved"] is not None]
    if not attacked:
        return None
    steps = max(row["steps"] for row in attacked)
    worst = max((row for row in attacked if row["steps"] == steps), key=lambda row: row["moved"])
    noise = next((row["moved"] for row in rows if row["input"] == "noise" and row["site"] == worst["site"]), None)
    return Far(worst["site"], steps, worst["moved"], noise)


def mends(rows: Sequence[Row], figure: str = "repaired") -> Row | None:
    """Find the single site with the largest share, None where no row fell."""
    single = [row for row in rows if row["site"] != ALL and row[figure] is not None]
    return max(single, key=lambda row: row[figure], default=None)


def everywhere(rows: Sequence[Row]) -> Row | None:
    """Find the row of swapping at all sites at once, None where no row fell."""
    return next((row for row in rows if row["site"] == ALL and row["repaired"] is not None), None)


def within(rows: Sequence[Row]) -> float:
    """The share of a slice's points within one radius that are misclassified."""
    near = [row for row in rows if max(abs(row["a"]), abs(row["b"])) <= 1 + 1e-6]
    return sum(row["class"] != row["label"] for row in near) / len(near)


def _drift(rows: Sequence[Row]) -> str:
    far = farthest(rows)
    if far is None:
        return ""
    return (
        f"{plural(far.steps, 'step')} of PGD move the mean of {far.site} by {_figure(far.moved)} deviations, "
        f"farther than any other; noise as strong moves it by {_figure(far.noise)}"
    )


def _flips(rows: Sequence[Row]) -> str:
    right, fell = rows[0]["right"], rows[0]["fell"]
    if right == 0:
        return "no image is classified correctly, so none can be attacked"
    text = f"{fell} of {plural(right, 'correct image')} are misclassified under attack"
    best, own, worst = mends(rows), mends(rows, "by row"), mends(rows, "broken")
    whole = everywhere(rows)
    if best is not None and best["repaired"] > 0:
        text += f"; with the statistics of the clean batch at {best['site']} alone, {_percent(best['repaired'])} of them are right again"
    elif best is not None:
        text += "; with the statistics of the clean batch at one layer alone, whichever, none of them is right again"
    if whole is not None:
        text += f", at all layers {_percent(whole['repaired'])}"
    if own is not None and own["by row"] > 0:
        text += f"; with the statistics of its own clean image at {own['site']} alone, {_percent(own['by row'])}"
    if worst is not None and worst["broken"] > 0:
        text += f"; with those of the attacked batch at {worst['site']} alone, {_percent(worst['broken'])} of the correct ones are wrong"
    return text


def _margins(rows: Sequence[Row]) -> str:
    middle = min(rows, key=lambda row: abs(row["quantile"] - 50))
    if middle["n"] == 0:
        return "no image is classified correctly"
    if middle["distance"] is None:
        return f"FMN found a misclassified image for {middle['found']} of {plural(middle['n'], 'image')}"
    return (
        f"{middle['quantile']:g}% of the images classified correctly have a misclassified image within "
        f"{distance(middle['distance'], middle['geometry'])} in {middle['geometry']}"
    )


def _slices(rows: Sequence[Row]) -> str:
    images = len({row["row"] for row in rows})
    return f"{_percent(within(rows))} of the points within one radius of {plural(images, 'image')} are misclassified"


def _smoothness(rows: Sequence[Row]) -> str:
    found = {row["figure"]: row["median"] for row in rows}
    cosine, slope = found.get("gradient similarity"), found.get("Lipschitz estimate")
    parts = []
    if cosine is not None:
        parts.append(f"the input gradient at a random point of the region has a cosine of {cosine:.2f} with the image's own")
    if slope is not None:
        parts.append(f"logits move by {_figure(slope)} deviations per pixel range along the attack")
    return joined(parts) + " (medians)" if parts else ""


def _gamma(rows: Sequence[Row]) -> str:
    scaled = [row for row in rows if row["tiny"] is not None]
    channels = sum(row["channels"] for row in rows)
    still = sum(round(row["constant"] * row["channels"]) for row in rows)
    off = sum(round(row["off"] * row["channels"]) for row in rows)
    text = f"of {plural(channels, 'channel')} {still} are constant and {off} never above 0"
    if scaled and (most := max(scaled, key=lambda row: row["tiny"]))["tiny"] > 0:
        text += f"; {_percent(most['tiny'])} of the scales of {most['site']} are tiny, more than elsewhere"
    return text


def _saturation(rows: Sequence[Row]) -> str:
    most = max(rows, key=lambda row: row["saturated"])
    passing = [row["passes"] for row in rows if row["passes"] is not None]
    least = f"; at the tightest layer {_percent(min(passing))} of the gradient passes" if passing else ""
    return f"{_percent(most['saturated'])} of the units of {most['site']} are saturated, more than elsewhere{least}"


_SAID: dict[str, Callable[[Sequence[Row]], str]] = {
    "drift": _drift,
    "flips": _flips,
    "margins": _margins,
    "slices": _slices,
    "smoothness": _smoothness,
    "gamma": _gamma,
    "saturation": _saturation,
}


def distance(value: float, geometry: str) -> str:
    """Write a distance as people say it: in linf in 255ths."""
    return f"{255 * value:.3g}/255" if geometry == "linf" else f"{value:.3g}"


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.2g}" if abs(value) < 100 else f"{value:.0f}"
