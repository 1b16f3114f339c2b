"""Files beside a record: a table of all images, the images in an .npz, and a sheet to look at."""

from __future__ import annotations

import base64
import csv
import io
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..limits import from_json
from ..records import write
from .batch import broken_by
from .verdict import Verdict

SHOWN = 12  # rows of the sheet
FRAMES, PAUSE = 8, 200  # of a clip that are drawn, and milliseconds of each in an animation
EXAMPLES = "examples.json"
COLUMNS = ("id", "label", "clean_prediction", "prediction", "broken_by", "step", "margin", "distance")


def keep_rows(verdict: Verdict, path: Path) -> Path:
    """Write one line per row: id, label, answers to the clean and the worst image, what broke it and when, margin, distance.

    `broken_by` is "clean" for a row that was misclassified untouched, empty for a row that nothing broke; the parts of an
    ensemble are named after a slash. `step` counts gradient steps or queries of that part; `margin` is the largest wrong
    logit less the label's, `distance` is in the geometry of the threat model.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    rows = verdict.rows
    for row, by in enumerate(broken_by(verdict.attacks, rows)):
        numbers = (int(column[row]) for column in (rows.ids, rows.y, rows.clean_predictions, rows.predictions))
        step = int(rows.step[row]) if by not in ("", "clean") else ""
        table.writerow([*numbers, by, step, f"{float(rows.margin[row]):.6g}", f"{float(rows.distance[row]):.6g}"])
    return write(path, text.getvalue())


def pictures(x: Tensor, x_adv: Tensor) -> dict[str, str]:
    """Draw one image (c, h, w) of pixels in [0, 1], its adversarial one and their difference, for a page that needs no files.

    PNG data URIs `clean_png`, `adversarial_png`, `difference_png`, a pixel a pixel. The difference is at full contrast, grey
    where nothing changed. Of a clip (c, t, h, w) up to 8 frames, evenly chosen, are drawn side by side; `clean_apng` and so
    on are the same frames as an animation without end. Of other than 1 or 3 channels their mean is drawn.
    """
    names = ("clean", "adversarial", "difference")
    if x.ndim != 4:
        return {f"{name}_png": _png([view]) for name, view in zip(names, _views(x, x_adv)[:3], strict=True)}
    chosen = torch.linspace(0, x.shape[1] - 1, min(x.shape[1], FRAMES)).round().long()
    whole = dict(zip(names, _views(*(_side_by_side(clip[:, chosen]) for clip in (x, x_adv)))[:3], strict=True))
    moving = {f"{name}_apng": _png(np.split(view, len(chosen), 1)) for name, view in whole.items()}
    return {f"{name}_png": _png([view]) for name, view in whole.items()} | moving


def _side_by_side(clip: Tensor) -> Tensor:
    """The frames of a clip (c, t, h, w), in a row: (c, h, t w)."""
    return clip.movedim(1, 2).flatten(2)


def _png(views: Sequence[np.ndarray]) -> str:
    """A picture, or several after another, as the data URI of a PNG."""
    from PIL import Image

    pixels = [(255 * view.clip(0, 1)).round().astype(np.uint8) for view in views]
    first, *others = (Image.fromarray(one[..., 0] if one.shape[2] == 1 else one) for one in pixels)
    held = io.BytesIO()
    more = {"save_all": True, "append_images": others, "duration": PAUSE, "loop": 0} if others else {}
    first.save(held, format="png", **more)
    return f"data:image/png;base64,{base64.b64encode(held.getvalue()).decode()}"


def keep_images(verdict: Verdict, folder: Path) -> list[Path]:
    """Write `images.npz` (x, x_adv, and the columns of the rows), `images.png`, and `examples.json` for the report.

    Images are read batch by batch. Returns the paths.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, unfinished = folder / "images.npz", folder / ".images.npz"
    rows = verdict.rows
    try:
        with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for name, which in (("x", 0), ("x_adv", 1)):
                _stream(archive, name, len(rows.y), (pair[which] for pair in verdict.images()))
            for name, column in rows._asdict().items():
                if name != "x_adv":
                    _stream(archive, name, len(column), iter([column]))
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    shown = _shown(verdict)
    by = broken_by(verdict.attacks, rows)
    examples = [
        {
            "id": int(rows.ids[row]),
            "label": int(rows.y[row]),
            "clean_prediction": int(rows.clean_predictions[row]),
            "prediction": int(rows.predictions[row]),
            "attack": by[row],
            **pictures(*images),
        }
        for row, images in shown.items()
    ]
    kept = write(folder / EXAMPLES, json.dumps(examples, indent=1) + "\n")
    return [path, write(folder / "images.png", _sheet(verdict, shown)), kept]


def kept_examples(folder: Path) -> list[Mapping[str, Any]]:
    """Read the `examples.json` of a run folder; none where there is none. Raises ValueError where it is not one."""
    path = folder / EXAMPLES
    if not path.is_file():
        return []
    try:
        examples = from_json(path)
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}; remove it, or run normwise attack again") from None
    if not isinstance(examples, list) or not all(isinstance(one, dict) for one in examples):
        raise ValueError(f"{path} holds no list of examples; remove it, or run normwise attack again")
    return examples


def _stream(archive: zipfile.ZipFile, name: str, rows: int, parts: Iterator[Tensor]) -> None:
    """Write an array of so many rows, part by part, as numpy reads it."""
    with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
        for number, part in enumerate(parts):
            array = np.ascontiguousarray(part.cpu().numpy())
            if number == 0:
                header = {"descr": array.dtype.str, "fortran_order": False, "shape": (rows, *array.shape[1:])}
                np.lib.format.write_array_header_2_0(file, header)
            file.write(array.tobytes())


def _sheet(verdict: Verdict, shown: Mapping[int, tuple[Tensor, Tensor]]) -> bytes:
    """Draw rows that an attack broke (or the first rows): clean, adversarial, and their difference at full contrast."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.1 * len(shown), 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(3, len(shown), squeeze=False)
    for column, (row, images) in enumerate(shown.items()):
        *views, largest = _views(*images)
        titles = f"{int(verdict.rows.y[row])}", f"{int(verdict.rows.predictions[row])}", f"± {255 * largest:.0f}/255"
        for axis, picture, title in zip(axes[:, column], views, titles, strict=True):
            axis.imshow(picture.squeeze(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axis.set_title(title, fontsize=9)
            axis.set_xticks([])
            axis.set_yticks([])
    for axis, label in zip(axes[:, 0], ("clean, label", "adversarial, answer", "difference"), strict=True):
        axis.set_ylabel(label, fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def _views(x: Tensor, x_adv: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Both images, their difference at full contrast (0.5: none), and the largest change of a pixel."""
    clean, adversarial = _picture(x), _picture(x_adv)
    largest = float(np.abs(adversarial - clean).max())
    return clean, adversarial, 0.5 + (adversarial - clean) / (2 * (largest or 1.0)), largest


def _shown(verdict: Verdict) -> dict[int, tuple[Tensor, Tensor]]:
    """Some rows with their clean and adversarial images; no more batches are read than they need."""
    broken = torch.nonzero(verdict.rows.broken_by >= 0).flatten().tolist()
    wanted = set((broken or list(range(len(verdict.rows.y))))[:SHOWN])
    found: dict[int, tuple[Tensor, Tensor]] = {}
    first = 0
    for x, x_adv in verdict.images():
        found |= {first + k: (x[k], x_adv[k]) for k in range(len(x)) if first + k in wanted}
        first += len(x)
        if len(found) == len(wanted):
            break
    return found


def _picture(image: torch.Tensor) -> np.ndarray:
    """Shape (c, h, w) or the first frame of (c, t, h, w) as (h, w, c); other than 1 or 3 channels as their mean."""
    image = image[:, 0] if image.ndim == 4 else image
    if image.ndim < 3:  # a row of numbers, or a signal of several channels, is a line of pixels
        image = image.reshape(len(image) if image.ndim == 2 else 1, 1, -1)
    image = image if len(image) in (1, 3) else image.mean(0, keepdim=True)
    return image.cpu().permute(1, 2, 0).numpy()
