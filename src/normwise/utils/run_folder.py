"""The folder of a run: whether it may be written into. Every run leaves its settings there, as `config.yaml`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from ..config import read_yaml, to_yaml
from ..limits import from_json
from ..records import write
from ..registry import changed, plain
from ..seeding import generator
from .hashing import digest_of_file, mark_of
from .leftovers import sweep

CONFIG = "config.yaml"
BEGAN = "began.json"  # digests of what a run began with: the files of its networks, and its data
PRETRAINED = "pretrained"  # in the folder of a bench: networks that its rows start from or listen to, by name and seed
IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm")
VIDEOS = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg")
MANY = 1000  # entries of a folder that are looked at


def check_folder(e: Any, folder: Path, agree: Sequence[str] = (), earlier: Sequence[str] = ()) -> None:
    """Refuse a folder that cannot be written, or that anybody but this run filled; leaves nothing there. Raises ValueError.

    It may be new, empty (but for hidden files), or hold a run of the same settings; where several runs share a folder, of
    settings that `agree` in these. `earlier`: what such runs left before they left their settings.
    """
    made: list[Path] = []
    try:
        _check_images(e, folder)
        _check_filled(e, folder, agree, earlier)
        made = [place for place in (folder, *folder.parents) if not place.exists()]
        write(folder / f".{CONFIG}", "").unlink()
    except OSError as error:
        raise ValueError(f"cannot write in {folder}: {error.strerror or error}; give another --out") from None
    finally:
        for place in made:
            with suppress(OSError):
                place.rmdir()


@contextmanager
def nothing_left(folder: Path) -> Iterator[None]:
    """Take the folder away again, if a run that ends in an error has left nothing there but its settings.

    What a process that was killed was writing there is taken away first.
    """
    sweep(folder)
    fresh, held = [place for place in (folder, *folder.parents) if not place.exists()], (folder / CONFIG).exists()
    try:
        yield
    except BaseException:
        if not held and folder.is_dir() and {one.name for one in folder.iterdir()} <= {CONFIG, BEGAN}:
            for one in (CONFIG, BEGAN):
                (folder / one).unlink(missing_ok=True)
            for place in fresh:
                with suppress(OSError):
                    place.rmdir()
        raise


def keep_settings(e: Any, folder: Path) -> None:
    """Write `config.yaml`, which `--config` reads back; and digests of what the run begins with, where it says so.

    These are the files that make its network, which `e.files` names, and the first batch of each split of `e.data` that
    `e.marked` names.
    """
    digests = {what: digest() for what, digest in _begins(e).items()}
    write(folder / CONFIG, to_yaml(e))
    if digests:
        write(folder / BEGAN, json.dumps(digests, indent=2) + "\n")


def same_settings(e: Any, folder: Path, agree: Sequence[str] = ()) -> bool:
    """Whether the folder was made with these settings; who shares the work is none of them, nor what `e.free` names.

    A number or a list that `e.grows` names may have been smaller. The network and the data that it began with are the same
    as then.
    """
    return not _other_settings(e, folder, agree) and not _other_beginning(e, folder)


def _other_settings(e: Any, folder: Path, agree: Sequence[str]) -> str:
    """The first setting by which the folder was made otherwise; empty: none."""
    try:
        held = read_yaml(folder / CONFIG)
    except ValueError as error:
        return str(error)
    if agree:
        own = plain(e)
        if more := held.keys() - own.keys():
            return f"{min(more)} is none of this verb's"
        return next(filter(None, (changed(held.get(key), getattr(e, key), f".{key}") for key in agree)), "")
    for key in ("start", "substitute"):  # a bench may be moved, with what its rows begin from
        places = [Path(str(value)) for value in (held.get(key), getattr(e, key, None))]
        mine = places[1].parent.parent.resolve() == folder.parent.parent.resolve()  # this folder is a cell of that bench
        if mine and all(place.parent.name == PRETRAINED for place in places) and places[0].name == places[1].name:
            held[key] = getattr(e, key)
    grown = [name for name in getattr(e, "grows", ()) if _grown(held.get(name), getattr(e, name))]
    free = ("jobs", "devices", "backend", *getattr(e, "free", ()), *grown)
    return changed(held | {name: plain(getattr(e, name)) for name in free if hasattr(e, name)}, e)


def _begins(e: Any) -> dict[str, Callable[[], str]]:
    """By name, how the digest is found of each file and each split of the data that a run begins with."""
    files: dict[str, Callable[[], str]] = {
        option: partial(digest_of_file, path) for option, path in getattr(e, "files", {}).items()
    }
    return files | {f"{split} images": partial(_mark, e, split) for split in getattr(e, "marked", ())}


def _mark(e: Any, split: str) -> str:
    """A digest of the first batch of a split."""
    if split == "training":
        return mark_of(next(iter(e.data.train(batch_size=max(2, e.batch_size), generator=generator(0)))))
    return mark_of(e.data.test(batch_size=e.batch_size)[0])


def _other_beginning(e: Any, folder: Path) -> str:
    """What has changed since the run began; empty: nothing that is known."""
    if not (folder / BEGAN).is_file():  # of before it was kept, or nothing is begun with
        return ""
    held = None
    with suppress(ValueError):
        held = from_json(folder / BEGAN)
    if not isinstance(held, Mapping):
        raise ValueError(f"{folder / BEGAN} is not what a run left; delete {folder}, or give another --out")
    what = next((one for one, digest in _begins(e).items() if one in held and held[one] != digest()), "")
    if what in getattr(e, "files", {}):
        return f"another network: {e.files[what]} has changed since"
    return f"other data: {what} of {getattr(e.data, 'source', e.data.name)} have changed since" if what else ""


def _grown(before: Any, now: Any) -> bool:
    """Whether a number is no smaller than it was, or a list holds all that it held; those of one name first, as they were counted."""
    if isinstance(now, int):
        return isinstance(before, int) and before <= now
    if not isinstance(before, list):
        return False
    first: dict[str, list[Any]] = {}
    for one in now:
        first.setdefault(_name(one), []).append(one)
    held = {_name(one): [other for other in before if _name(other) == _name(one)] for one in before}
    return all(not changed(some, first.get(name, [])[: len(some)]) for name, some in held.items())


def _name(one: Any) -> str:
    return str(one.get("name") if isinstance(one, Mapping) else getattr(one, "name", one))


def _check_filled(e: Any, folder: Path, agree: Sequence[str], earlier: Sequence[str]) -> None:
    if (folder / CONFIG).exists():
        if what := _other_settings(e, folder, agree):
            raise ValueError(f"{folder} holds a run with other settings ({what}); give another --out, or delete it")
        if what := _other_beginning(e, folder):
            raise ValueError(f"{folder} holds a run that began with {what}; give another --out, or delete it")
    elif folder.is_dir() and not any((folder / one).exists() for one in earlier):
        held = sorted(one.name for one in folder.iterdir() if not one.name.startswith("."))
        if held:
            some = ", ".join(held[:3]) + (f" and {len(held) - 3} more" if len(held) > 3 else "")
            raise ValueError(f"{folder} holds files of something else ({some}); give a new or an empty folder as --out")


def _check_images(e: Any, folder: Path) -> None:
    """Refuse a place inside a folder of images or videos, which would be read as those of a class: of the run's data, or of anybody's."""
    data, place = getattr(e, "data", None), folder.expanduser().resolve()
    root = (
        Path(getattr(data, "root", "")).expanduser().resolve() if getattr(data, "name", "") in ("folder", "video") else None
    )
    if root and place.is_relative_to(root):
        raise ValueError(f"{folder} is inside {root}, the folder of the data; give a folder outside it as --out")
    for inside in (place, *place.parents):
        if inside.parent.is_dir() and _holds_classes(inside.parent, inside):
            raise ValueError(
                f"{folder} is inside {inside.parent}, whose folders hold images or videos by class; give a folder outside it as --out"
            )


def _holds_classes(parent: Path, but: Path) -> bool:
    """Whether all folders there, one perhaps excepted, hold images or videos and no run, two at least: they are the classes of a data set."""
    with os.scandir(parent) as found:
        there = [one for one in islice(found, MANY) if one.name[0] not in "._" and one.is_dir()]
    others = [one for one in there if not _is_class(one)]
    return len(there) - len(others) > 1 and all(one.path == str(but) for one in others)


def _is_class(folder: os.DirEntry[str]) -> bool:
    with suppress(OSError), os.scandir(folder) as found:
        names = [one.name for one in islice(found, MANY)]
        return CONFIG not in names and any(name.lower().endswith(IMAGES + VIDEOS) for name in names)
    return False
