"""Turn sheets of frames, 4 x 4 tiles of one JPEG per clip, into clips that `--data video` reads.

    python benchmarks/sheets.py shared/data/video-fights FOLDER --frames 8 --size 56

FOLDER gets `clips.u8`, `clips.json` and `groups.json`. `source_groups.json` among the sheets names the clips of one source video;
those of group null are for training alone.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from normwise.data.cache import Listing, keep

TILES = 4


def clip(file: Path, frames: int, size: int) -> NDArray[np.uint8]:
    """The frames of one sheet, evenly chosen: (3, frames, size, size)."""
    with Image.open(file) as opened:
        sheet = opened.convert("RGB")
    side = sheet.width // TILES
    found = []
    for place in range(frames):
        row, column = divmod((2 * place + 1) * TILES**2 // (2 * frames), TILES)
        tile = sheet.crop((column * side, row * side, (column + 1) * side, (row + 1) * side))
        found.append(np.asarray(tile.resize((size, size), Image.Resampling.BOX)).transpose(2, 0, 1))
    return np.stack(found, 1)


def convert(sheets: Path, folder: Path, frames: int, size: int) -> None:
    """Write the clips of all sheets of a folder, and their groups."""
    names = sorted(path.name for path in sheets.iterdir() if path.is_dir() and any(path.glob("*.jpg")))
    files = [path.relative_to(sheets).as_posix() for name in names for path in sorted((sheets / name).glob("*.jpg"))]
    labels = [names.index(file.split("/")[0]) for file in files]
    listing = Listing(files=files, labels=labels, sides=[""] * len(files), names=names)
    keep("clips", folder, listing, (3, frames, size, size), lambda file: clip(sheets / file, frames, size))
    shutil.copyfile(sheets / "source_groups.json", folder / "groups.json")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sheets", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--size", type=int, default=112)
    chosen = parser.parse_args()
    convert(chosen.sheets, chosen.folder, chosen.frames, chosen.size)
