"""Files by class in the folders of a data set: root/CLASS/FILE, or root/train/CLASS/FILE beside root/test/CLASS/FILE."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from ..utils.run_folder import IMAGES, VIDEOS
from .array_checks import need

TRAIN, TEST, VAL = ("train", "training"), ("test", "testing"), ("val", "valid", "validation")  # in any case
LEFT = ("__pycache__", "__macosx", "lost+found", "@eadir")  # folders that programs leave behind
Labelled = tuple[Path, int]


class Kind(NamedTuple):
    """What a folder holds, in words, the endings that are read, and those that would be missing without a word."""

    what: str
    read: tuple[str, ...]
    unread: tuple[str, ...]


PICTURES = Kind("images", IMAGES, (".tif", ".tiff", ".gif", ".avif", ".heic", ".jp2", ".pgm", ".jfif"))
CLIPS = Kind("videos", VIDEOS, (".gif", ".wmv", ".flv", ".mts", ".m2ts", ".3gp", ".vob"))


def first_kind(folder: Path) -> Kind | None:
    """The kind of the first file below a folder that is of a kind, in the order of the names."""
    endings = {ending: kind for kind in (PICTURES, CLIPS) for ending in kind.read}
    for place, folders, names in os.walk(folder, followlinks=False):
        folders[:] = sorted(name for name in folders if name[0] != ".")
        for name in sorted(names):
            if name[0] != "." and (kind := endings.get(Path(place, name).suffix.lower())):
                return kind
    return None


def split_folder(root: Path, spellings: tuple[str, ...]) -> Path | None:
    """Return the folder of a split, if there is one. Raises ValueError for two of them."""
    found = [name for name in _folders(root) if name.lower() in spellings]
    need(len(found) < 2, f"{root} needs one folder per split", " and ".join(found), "join them, or move one away")
    return root / found[0] if found else None


def class_names(folder: Path) -> tuple[str, ...]:
    """The names of the class folders. Raises ValueError for one that holds splits of its own."""
    names = _folders(folder)
    for name in names:
        halves = [inner for inner in _folders(folder / name) if inner.lower() in (*TRAIN, *TEST, *VAL)]
        got = f"{', '.join(halves)} in {folder / name}"
        need(not halves, f"{folder} needs splits above its classes", got, "give ROOT/train/CLASS and ROOT/test/CLASS")
    return tuple(names)


def train_folder(root: str, source: str, kind: Kind) -> tuple[Path, Path | None, tuple[str, ...]]:
    """The root, its folder of the training split, if there is one, and the names of the classes.

    Raises ValueError where there are no classes, and for a test split without one to train on.
    """
    place, asked = Path(root).expanduser(), f"{source} needs {kind.what} by class below its root"
    need(root and place.is_dir(), asked, f"{root!r}", "pass a folder")
    train = split_folder(place, TRAIN)
    names = class_names(train or place)
    need(len(names) > 1, asked, f"{', '.join(names) or 'no folder'} in {train or place}", "pass another folder")
    if train is None:
        halves = ", ".join(name for name in names if name.lower() in (*TEST, *VAL))
        need(not halves, asked, f"{halves} in {place}, and no train", "add root/train/CLASS, or rename the class")
    return place, train, names


def test_folder(root: Path, names: tuple[str, ...]) -> Path:
    """Return the folder of the test split, else of validation: the first that has a class of the training split."""
    for folder in filter(None, (split_folder(root, TEST), split_folder(root, VAL))):
        if _has_classes(folder, names):
            return folder
    raise ValueError(f"{root} needs test/CLASS or val/CLASS beside train; neither holds a class of train; add one")


def validation_folder(root: Path, test: Path, names: tuple[str, ...]) -> Path | None:
    """Return the folder of validation images beside train and `test`, if there is one that has a class of the training split."""
    folder = split_folder(root, VAL)
    return folder if folder and folder != test and _has_classes(folder, names) else None


def _has_classes(folder: Path, names: tuple[str, ...]) -> bool:
    """Whether a folder has a class of the training split. Raises ValueError if it has others beside."""
    found = set(_folders(folder))
    strange = ", ".join(sorted(found - set(names))) if found & set(names) else ""
    need(not strange, f"{folder} needs classes that train has", strange, "remove them, or train on them")
    return bool(found & set(names))


def labelled(folder: Path, names: tuple[str, ...], kind: Kind, missing: bool = False) -> list[Labelled]:
    """List the files of the classes, class by class, in the order of their names.

    Raises ValueError for a class without files (of the test split its folder may be `missing`), and for files that are not
    read.
    """
    files: list[Labelled] = []
    for label, name in enumerate(names):
        if missing and not (folder / name).exists():
            continue
        inside = _files(folder / name)
        unread = next((path for path in inside if path.suffix.lower() in kind.unread), None)
        kinds = ", ".join(kind.read)
        asked = f"{folder / name} needs {kind.what} of {kinds}"
        need(unread is None, asked, f"{unread}", "convert them, or move them away")
        found = [(path, label) for path in inside if path.suffix.lower() in kind.read]
        need(
            found,
            f"class {name} needs {kind.what} ({kinds}) in {folder / name}",
            "none",
            "add some, or remove that folder",
        )
        files += found
    need(len(files) > 1, f"{folder} needs {kind.what}", len(files), "point at another folder")
    return files


def _folders(folder: Path) -> list[str]:
    """The folders in a folder, in the order of their names, without those that are hidden or that programs leave."""
    inside = folder.iterdir() if folder.is_dir() else ()
    return sorted(one.name for one in inside if one.is_dir() and one.name[0] != "." and one.name.lower() not in LEFT)


def _files(folder: Path) -> list[Path]:
    """All files below a folder that are not hidden, sorted. Links are followed, each folder once."""
    files, seen = list[Path](), set[Path]()
    for place, folders, names in os.walk(folder, followlinks=True):
        here = Path(place)
        if here.resolve() in seen:
            folders.clear()
            continue
        seen.add(here.resolve())
        files += [here / name for name in names if name[0] != "."]
    return sorted(files)
