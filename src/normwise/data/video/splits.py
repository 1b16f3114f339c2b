"""Who trains and who tests: by official split files, or by group, never by clip."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import torch
from torch import Generator, Tensor

from ...utils.errors import one_line
from ..array_checks import need

Groups = list[str | None]


def groups_of(files: Sequence[str], spec: str) -> Groups:
    """The group of each file: what it shares with others and must not be on both sides, such as a patient or a source video.

    `spec` is a JSON file that gives each file (its name below the root, or its stem) a group, null for training alone; or a
    regular expression whose first part in parentheses is the group; empty: each file is a group. Raises ValueError for a
    file without a group.
    """
    if not spec:
        return list(files)
    path = Path(spec).expanduser()
    if path.suffix == ".json":
        try:
            held = dict(json.loads(path.read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise ValueError(
                f"groups must be a JSON file of groups by video; got {one_line(error)} in {path}; repair it"
            ) from None
        keys = [file if file in held else PurePosixPath(file).stem for file in files]
        lost = [key for key in keys if key not in held]
        need(not lost, f"{path} must give each video a group", f"none for {lost[:1]} ({len(lost)} in all)", "add it")
        return [None if held[key] is None else str(held[key]) for key in keys]
    try:
        pattern = re.compile(spec)
    except re.error as error:
        raise ValueError(f"groups must be a .json file or a regular expression; got {spec!r}: {error}; repair it") from None
    found = [pattern.search(file) for file in files]
    asked = f"groups must have a part in parentheses that each video matches: {spec!r}"
    need(pattern.groups, asked, "no part in parentheses", "add them, as in '(patient_[0-9]+)_'")
    lost = [file for file, match in zip(files, found, strict=True) if match is None or match[1] is None]
    need(not lost, asked, f"no match in {lost[:1]} ({len(lost)} in all)", "change the pattern")
    return [match[1] for match in found if match]


def sources_of(files: Sequence[str]) -> Groups:
    """The source video that each clip was cut from, by its name in UCF101 or HMDB51; a clip of another name is a group of its own.

    >>> sources_of(["Surfing/v_Surfing_g01_c04.avi", "run/Finding_Forrester_1_run_f_cm_np1_ba_med_3.avi", "run/b.avi"])
    ['Surfing/v_Surfing_g01', 'run/Finding_Forrester_1', 'run/b.avi']
    """
    found = Groups()
    for file in files:
        path = PurePosixPath(file)
        action = re.escape(path.parent.name)
        match = re.fullmatch(rf"(v_.+_g\d+)_c\d+|(.+)_{action}_(?:.+_)?\d+", path.stem)
        found.append(str(path.with_name(match[1] or match[2])) if match else file)
    return found


def official(files: Sequence[str], folder: Path, number: int, skip: bool) -> list[str]:
    """The side of each file, "train", "test" or "" for neither, by the split files of UCF101 or HMDB51 in a folder.

    UCF101: `trainlist01.txt` and `testlist01.txt`, a line CLASS/NAME each. HMDB51: one `CLASS_test_split1.txt` per class, a
    line NAME FLAG each, 1 to train and 2 to test. Endings of the names may differ, as after a conversion. Raises ValueError
    for a folder without the files of this number, for videos that are listed and not there (unless `skip` is set), or listed
    on both sides.
    """
    sides = {name: [folder / f"{name}list{number:02}.txt"] for name in ("train", "test")}
    flagged = sorted(folder.glob(f"*_test_split{number}.txt"))
    asked = f"{folder} needs split files of number {number}: trainlist{number:02}.txt and testlist{number:02}.txt, or CLASS_test_split{number}.txt"
    listed: dict[str, set[str]] = {"train": set(), "test": set()}
    try:
        if all(paths[0].is_file() for paths in sides.values()):
            for side, (path,) in sides.items():
                listed[side] = {_bare(line.split()[0]) for line in path.read_text().splitlines() if line.split()}
        else:
            need(flagged, asked, "none" if folder.is_dir() else "no folder", "give the folder that holds them")
            for path in flagged:
                of = path.name.removesuffix(f"_test_split{number}.txt")
                for name, flag in (line.rsplit(maxsplit=1) for line in path.read_text().splitlines() if line.split()):
                    if flag in "12":
                        listed["train" if flag == "1" else "test"].add(_bare(f"{of}/{name}"))
    except (OSError, UnicodeDecodeError, TypeError) as error:
        raise ValueError(f"{asked}; got {one_line(error)}; replace them") from None
    known = {_bare(file): file for file in files}
    lost = sorted((listed["train"] | listed["test"]) - known.keys())
    got = f"{lost[:1]} not there ({len(lost)} in all)"
    need(
        skip or not lost, f"the split files of {folder} need their videos", got, "add them, or leave them out with skip_bad"
    )
    twice = sorted(listed["train"] & listed["test"])
    need(not twice, f"the split files of {folder} need each video on one side", twice[:1], "repair them")
    return [next((side for side in listed if _bare(file) in listed[side]), "") for file in files]


def _bare(file: str) -> str:
    return str(PurePosixPath(file).with_suffix(""))


def check_sides(files: Sequence[str], sides: Sequence[str], groups: Groups) -> None:
    """Refuse a split that has one group on two sides, or a video to test that is for training alone. Raises ValueError."""
    asked = "a split needs each group on one side"
    first: dict[str, tuple[str, str]] = {}
    for file, side, group in zip(files, sides, groups, strict=True):
        if group is None:
            need(
                side != "test", f"{asked}, and those of group null to train", f"{file} to test", "move it to the other side"
            )
        elif side:
            of, other = first.setdefault(group, (side, file))
            need(of == side, asked, f"group {group} in {other} and {file}", "move one to the other side")


def folds(y: Tensor, groups: Sequence[str], count: int, generator: Generator) -> Tensor:
    """Divide rows into `count` folds by group, each with its share of every class as far as the groups allow.

    The largest groups come first, equal ones in random order; each goes where its classes are scarcest. Returns the fold
    (n,) of each row. Raises ValueError for fewer groups than folds.
    """
    names = sorted(set(groups))
    need(len(names) >= count, f"{count} folds need as many groups", len(names), "take fewer folds, or finer groups")
    index = {name: number for number, name in enumerate(names)}
    which = torch.tensor([index[group] for group in groups])
    table = torch.zeros(len(names), int(y.max()) + 1, dtype=torch.float32)
    table.index_put_((which, y), torch.ones(len(y), dtype=torch.float32), accumulate=True)
    order = torch.randperm(len(names), generator=generator)
    order = order[table[order].sum(1).argsort(descending=True, stable=True)]
    fold, filled = torch.zeros(len(names), dtype=torch.long), table.new_zeros(count, table.shape[1])
    for group in order.tolist():
        costs = (filled @ (table[group] / table.sum(0).clamp_min(1).square())).tolist()
        fold[group] = min(range(count), key=lambda one: (costs[one], float(filled[one].sum())))
        filled[fold[group]] += table[group]
    return fold[which]
