"""A folder of videos by class."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...seeding import generator
from ..array_checks import Arrays, need
from ..cache import Listing, cache_folder, holds, keep, read
from ..listing import CLIPS, labelled, test_folder, train_folder, validation_folder
from ..tensors import TensorData
from .decoding import Sampling, decode
from .splits import Groups, check_sides, folds, groups_of, official, sources_of

MOST = {"frames": 2**12, "stride": 2**20, "views": 2**8, "size": 2**12, "resize": 2**12}
LARGEST = 2**30  # bytes of one row


@dataclass(frozen=True, kw_only=True)
class VideoFolder(TensorData):
    """Clips of videos: root/CLASS/clip.mp4, or root/train/CLASS/clip.mp4 beside root/test/CLASS/clip.mp4.

    Reads mp4, m4v, mov, avi, mkv, webm, mpg and mpeg with PyAV (pip install 'normwise[video]'), at any depth below CLASS. A
    row is a video: (channels, views x frames, size, size). Videos are decoded once, into a checksummed file of bytes (see
    `cache`), from which only the rows in use are read into memory. `root` may also be a folder that holds such a file
    (`clips.u8`, `clips.json`).

    Who tests: the folders, or the official split files, or a fold of the groups. Groups are never divided, also not between
    training and validation, which gets whole groups with about `validation_size` videos. Test rows come in a fixed shuffled
    order; `ids` are indexes into the sorted names.

    Options (others as in `TensorData`)
        root        the folder
        frames      frames of a clip
        stride      0: spread the frames over the whole video; k: every k-th frame, around its middle
        views       clips per video, one after the other in time (`resnet3d` and others answer by their mean with the same `views`)
        size        side of a frame in pixels, cut from its middle
        resize      make the shorter side so long before; 0: as long as `size`
        channels    3 for colour, 1 for grey
        splits      a folder with the split files of UCF101 or HMDB51
        split       which of them: 1, 2 or 3
        groups      what must not be divided: a JSON file {video: group} (null: for training alone), or a regular expression whose
                    part in parentheses is the group, such as (patient_[0-9]+)_; empty: each video is a group, with splits each
                    source video, which the names in UCF101 and HMDB51 tell
        folds       without splits, the groups are divided into so many folds
        fold        which of them is for testing: 0 to folds - 1
        skip_bad    leave out videos that cannot be decoded or are listed and not there; a warning names them
        cache       where decoded clips are kept; empty: root/.normwise
    """

    name: ClassVar[str] = "video"

    root: str = ""
    frames: int = 16
    stride: int = 0
    views: int = 1
    size: int = 112
    resize: int = 0
    channels: int = 3
    splits: str = ""
    split: int = 1
    groups: str = ""
    folds: int = 5
    fold: int = 0
    skip_bad: bool = False
    cache: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        for option, most in MOST.items():
            value, least = getattr(self, option), int(option not in ("stride", "resize"))
            need(least <= value <= most, f"video needs {option} from {least} to {most}", value, "pass another number")
        need(self.channels in (1, 3), "video needs channels of 1 or 3", self.channels, "pass one of them")
        row = self.channels * self.views * self.frames * self.size**2
        need(row <= LARGEST, f"video needs rows of at most {LARGEST:,} bytes", f"{row:,}", "take fewer or smaller frames")
        need(self.folds > 1, "video needs folds >= 2", self.folds, "pass more")
        need(0 <= self.fold < self.folds, f"video needs a fold from 0 to {self.folds - 1}", self.fold, "pass another")
        need(self.split > 0, "video needs a split >= 1", self.split, "pass 1, 2 or 3")
        need(
            self.splits or self.split == 1,
            "split is the number of an official split",
            self.split,
            "name its folder as splits",
        )
        need(
            not 0 < self.resize < self.size, f"video needs a resize of {self.size}, its size, or more", self.resize, "pass 0"
        )

    def __getstate__(self) -> dict[str, Any]:
        """The options alone: who gets this in another process maps the clips itself."""
        return {one.name: getattr(self, one.name) for one in fields(self)}

    @property
    def source(self) -> str:
        """What error messages call this data."""
        return self.root

    def arrays(self) -> Arrays:
        """Map the clips: (n, channels, views x frames, size, size) uint8. Every split has all rows; the orders tell them apart."""
        listing, x = self._clips
        y = torch.tensor(listing.labels)
        return Arrays(x, y, x, y, tuple(listing.names), *((x, y) if "val" in listing.sides else ()))

    def train_order(self, y: Tensor) -> Tensor:
        """Return the rows that train, as stored."""
        return self._on("train")

    def validation_order(self, y: Tensor) -> Tensor:
        """Return the rows of the folder of validation, as stored."""
        return self._on("val")

    def test_order(self, y: Tensor) -> Tensor:
        """Return the rows that test in a shuffled order, always the same."""
        rows = self._on("test")
        return rows[torch.randperm(len(rows), generator=generator(0, "test order"))]

    def test_groups(self, rows: int) -> list[str | int]:
        """The groups of the first so many test rows; a row of unknown group is one of its own."""
        order = self._testing[0].rows[:rows].tolist()
        return [row if (group := self._sides[1][row]) is None else group for row in order]

    def held(self, y: Tensor, rows: Tensor) -> Tensor:
        """Choose those of the rows of a split that are held back for validation: whole groups."""
        groups = self._sides[1]
        known = torch.tensor([row for row in rows.tolist() if groups[row] is not None], dtype=torch.long)
        if not self.validation_size or not len(known):
            return known[:0]
        asked = f"validation_size {self.validation_size} takes whole groups, at most half of the videos of {self.root}"
        need(2 * self.validation_size <= len(known), asked, f"{len(known)} of known group", "pass a smaller validation_size")
        of = [str(groups[row]) for row in known.tolist()]
        parts = max(2, min(round(len(known) / self.validation_size), len(set(of))))
        return known[folds(y[known], of, parts, generator(self.split_seed, "validation")) == 0]

    def _on(self, side: str) -> Tensor:
        return torch.tensor([row for row, of in enumerate(self._sides[0]) if of == side], dtype=torch.long)

    @cached_property
    def _clips(self) -> tuple[Listing, Tensor]:
        root = Path(self.root).expanduser()
        if self.root and holds("clips", root):
            own = [name for name in (*MOST, "channels", "cache") if getattr(self, name) != getattr(type(self), name)]
            need(not own, f"{root} holds decoded clips, of their own frames and size", ", ".join(own), "leave that out")
            return self._whole(root)
        listing = self._listed()
        self._sided(listing)  # who tests is settled before hours of decoding
        sampling = Sampling(**{one.name: getattr(self, one.name) for one in fields(Sampling)})
        parent = Path(self.cache).expanduser() if self.cache else root / ".normwise"
        folder = cache_folder("clips", parent, root, listing, repr(sampling))
        if not holds("clips", folder):
            keep("clips", folder, listing, sampling.shape, lambda file: decode(root / file, sampling), skip=self.skip_bad)
        return self._whole(folder)

    def _whole(self, folder: Path) -> tuple[Listing, Tensor]:
        """The clips of a folder; those that lack videos only where that is allowed, and with a warning."""
        found, x = read("clips", folder)
        need(self.skip_bad or not found.skipped, *_lack(found, folder))
        if found.skipped:
            warnings.warn("; ".join(_lack(found, folder)[:2]), stacklevel=2)
        return found, x

    def _listed(self) -> Listing:
        """The videos below the root."""
        root, train, names = train_folder(self.root, "video", CLIPS)
        halves = {"": root}
        if train is not None:
            halves = {"train": train, "test": test_folder(root, names)}
            if (val := validation_folder(root, halves["test"], names)) is not None:
                halves["val"] = val
        rows = sorted(
            (path.relative_to(root).as_posix(), label, side)
            for side, half in halves.items()
            for path, label in labelled(half, names, CLIPS, missing=side in ("test", "val"))
        )
        files, labels, sides = zip(*rows, strict=True)
        return Listing(files=files, labels=labels, sides=sides, names=names)

    @cached_property
    def _sides(self) -> tuple[list[str], Groups]:
        return self._sided(self._clips[0])

    def _sided(self, listing: Listing) -> tuple[list[str], Groups]:
        """The side of each video, and its group. Raises ValueError for a split that divides a group."""
        files = listing.files
        groups = sources_of(files) if self.splits and not self.groups else groups_of(files, self.groups)
        sides = list(listing.sides)
        if self.splits or any(sides):
            mine = [name for name in ("fold", "folds") if getattr(self, name) != getattr(type(self), name)]
            need(not mine, "splits or folders say who tests, so that no fold does", ", ".join(mine), "leave that out")
        if self.splits:
            need(
                not any(sides),
                f"splits are for folders without train and test, and {self.root} has them",
                self.splits,
                "leave it out",
            )
            sides = official(files, Path(self.splits).expanduser(), self.split, self.skip_bad)
        elif not any(sides):
            y = torch.tensor(listing.labels)
            known = [row for row, group in enumerate(groups) if group is not None]
            of = folds(y[known], [str(groups[row]) for row in known], self.folds, generator(0, "folds")).tolist()
            tests = {row for row, fold in zip(known, of, strict=True) if fold == self.fold}
            sides = ["test" if row in tests else "train" for row in range(len(files))]
        check_sides(files, sides, groups)
        need("test" in sides, f"{self.root} needs videos to test", "none", "name other splits or folds")
        return sides, groups


def _lack(listing: Listing, folder: Path) -> tuple[str, str, str]:
    """What has to be said of clips of which some were skipped."""
    first = next(iter(listing.skipped.values()), "")
    count = len(listing.skipped)
    return (
        f"{folder} lacks {count} of {count + len(listing.files)} videos",
        f"first {first}",
        "pass skip_bad, or repair them",
    )
