"""Keep what a verdict stands on: a table of its rows, its images in an .npz, and a sheet to look at."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .record import write
from .trial import broken_by
from .verdict import Verdict

SHOWN = 12  # rows of the sheet
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


def keep_images(verdict: Verdict, folder: Path) -> list[Path]:
    """Write `images.npz` (x, x_adv, and the columns of the rows) and `images.png`, batch by batch; returns the paths."""
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
    return [path, write(folder / "images.png", _sheet(verdict))]


def _stream(archive: zipfile.ZipFile, name: str, rows: int, parts: Iterator[Tensor]) -> None:
    """Write an array of so many rows, part by part, as numpy reads it."""
    with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
        for number, part in enumerate(parts):
            array = np.ascontiguousarray(part.cpu().numpy())
            if number == 0:
                header = {"descr": array.dtype.str, "fortran_order": False, "shape": (rows, *array.shape[1:])}
                np.lib.format.write_array_header_2_0(file, header)
            file.write(array.tobytes())


def _sheet(verdict: Verdict) -> bytes:
    """Draw rows that an attack broke (or the first rows): clean, adversarial, and their difference at full contrast."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = _shown(verdict)
    figure = Figure(figsize=(1.1 * len(shown), 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(3, len(shown), squeeze=False)
    for column, (row, images) in enumerate(shown.items()):
        x, x_adv = map(_picture, images)
        largest = float(np.abs(x_adv - x).max()) or 1.0
        titles = f"{int(verdict.rows.y[row])}", f"{int(verdict.rows.predictions[row])}", f"± {255 * largest:.0f}/255"
        for axis, picture, title in zip(axes[:, column], (x, x_adv, 0.5 + (x_adv - x) / (2 * largest)), titles, strict=True):
            axis.imshow(picture.squeeze(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axis.set_title(title, fontsize=9)
            axis.set_xticks([])
            axis.set_yticks([])
    for axis, label in zip(axes[:, 0], ("clean, label", "adversarial, answer", "difference"), strict=True):
        axis.set_ylabel(label, fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


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
    image = image if len(image) in (1, 3) else image.mean(0, keepdim=True)
    return image.cpu().permute(1, 2, 0).numpy()
