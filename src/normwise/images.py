"""Keep adversarial images: an .npz with everything, and a sheet to look at."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch

from .record import write
from .verdict import Verdict

SHOWN = 12  # rows of the sheet


def keep_images(verdict: Verdict, folder: Path) -> list[Path]:
    """Write `images.npz` (x, x_adv, y, ids, clean_predictions, predictions, broken_by) and `images.png`; returns the paths."""
    fields = ("x", "x_adv", "y", "ids", "clean_predictions", "predictions", "broken_by")
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{name: getattr(verdict, name).cpu().numpy() for name in fields})
    return [write(folder / "images.npz", buffer.getvalue()), write(folder / "images.png", _sheet(verdict))]


def _sheet(verdict: Verdict) -> bytes:
    """Draw rows that an attack broke (or the first rows): clean, adversarial, and their difference at full contrast."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    broken = torch.nonzero(verdict.broken_by >= 0).flatten().tolist()
    rows = (broken or list(range(len(verdict.y))))[:SHOWN]
    figure = Figure(figsize=(1.1 * len(rows), 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(3, len(rows), squeeze=False)
    for column, row in enumerate(rows):
        x, x_adv = (_picture(images[row]) for images in (verdict.x, verdict.x_adv))
        largest = float(np.abs(x_adv - x).max()) or 1.0
        titles = (f"{int(verdict.y[row])}", f"{int(verdict.predictions[row])}", f"± {255 * largest:.0f}/255")
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


def _picture(image: torch.Tensor) -> np.ndarray:
    """Shape (c, h, w) or the first frame of (c, t, h, w) as (h, w, c)."""
    image = image[:, 0] if image.ndim == 4 else image
    return image.cpu().permute(1, 2, 0).numpy()
