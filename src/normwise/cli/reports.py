"""`normwise report`: draw the records of finished runs again, or of several together, each kind on a page of its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..config import read_yaml
from ..evaluation.artifacts import kept_examples
from ..experiments.papers.run import TABLE, decided
from ..experiments.papers.scale import HISTORY, SCALES
from ..limits import from_json, text
from ..records import RESULTS, Result, provenance, read_results, write
from ..report import audit, diagnosis, improve, page, selftest, shifts
from ..report.robustbench import Entry
from ..report.robustbench import read as read_entry
from ..utils.run import RESULT
from ..utils.run_folder import CONFIG, check_folder, keep_settings

Draw = Callable[[Path], Path]  # draws into a folder, and returns the page


@dataclass(frozen=True, kw_only=True)
class Reports:
    """Which records are drawn.

    Options
        runs    folders of finished runs of any verb, or RobustBench's .json files
    """

    runs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.runs:
            raise ValueError("no run is named; write normwise report RUN [RUN ...]: folders of finished runs")


def report(settings: Reports, out: Path) -> tuple[list[Path], list[Result]]:
    """Draw every record of the runs; returns the pages, and the results among the records. Results share one page, and so do audits.

    Each other record has its own page: in `out`, or, if there are several of a kind, in folders there, named like their
    runs. Raises ValueError for a folder without records, a damaged record, and an `out` that another run filled (the page of
    a run may be drawn into its own folder).
    """
    folders = [path.parent if path.name in _FILES else path for path in map(Path, settings.runs)]
    itself = folders == [out]
    if not itself:
        check_folder(settings, out)
    results, audits, published, alone = list[Path](), list[dict[str, Any]](), list[Entry](), dict[Path, Draw]()
    for folder in folders:
        if folder.suffix == ".json":
            published.append(read_entry(folder))
            continue
        made = (f"cells/*/{RESULT}", RESULT, RESULTS)
        found = next(filter(None, (sorted(folder.glob(name)) for name in made)), [])
        scored = [audit.read(path) for path in folder.glob(audit.RECORD)]
        drawn = {path: _drawing(path) for name in _ALONE if (path := folder / name).is_file()}
        if not (found or scored or drawn):
            raise ValueError(
                f"{folder} holds no {RESULT} and no {', '.join((audit.RECORD, *_ALONE))}; give the folder of a finished run, "
                "or a RobustBench .json"
            )
        results, audits = results + found, audits + scored
        alone |= drawn
    read = [(one, kept_examples(path.parent)) for path in results for one in read_results(path)]
    if published and not read:
        raise ValueError(
            "RobustBench's entries are shown beside results, and no run has any; name one that normwise evaluate made"
        )
    if not itself:
        keep_settings(settings, out)
    pages = [audit.write(out, audits)] if audits else []
    if read:
        extras: dict[str, Any] = {"published": published, "examples": [examples for _, examples in read]}
        pages.append(page.write(out, [one for one, _ in read], title="normwise report", provenance=provenance(), **extras))
    for record, place in _places(list(alone), out).items():
        pages.append(alone[record](place))
        for file in (record, record.with_suffix(".csv")):  # to which the page leads
            if file.is_file() and not (place / file.name).exists():
                write(place / file.name, file.read_bytes())
    return pages, [one for one, _ in read]


def _places(records: Sequence[Path], out: Path) -> dict[Path, Path]:
    """Where each record is drawn: in `out`, or in a folder there that is called as its run is, where there are several of its kind."""
    places = dict[Path, Path]()
    for record in records:
        alone = sum(other.name == record.name for other in records) == 1
        called = record.parent.resolve().name
        same = sum(other.name == record.name and other.parent.resolve().name == called for other in places)
        places[record] = out if alone else out / (f"{called}-{same + 1}" if same else called)
    return places


def _drawing(record: Path) -> Draw:
    """How a record is drawn; it is drawn once to see whether it can be. Raises ValueError naming the file."""
    try:
        data = from_json(record)
        draw = _ALONE[record.name](record.parent, data)
        with TemporaryDirectory() as place:
            draw(Path(place))
    except (OSError, KeyError, TypeError, AttributeError, LookupError, ValueError) as error:
        raise ValueError(
            f"{record} is not the record of a run ({type(error).__name__}: {error}); expected what normwise writes"
        ) from None
    return draw


def _claims(folder: Path, table: Any) -> Draw:
    """The claims are decided anew from the cells of the folder."""
    named = re.match(r"# Claims, preset ([\w-]+)", text(folder / "claims.md"))
    settings = read_yaml(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    preset, system = settings.get("preset") or (named and named[1]), settings.get("system", "all")
    if preset not in SCALES | HISTORY or not isinstance(table, list):
        raise ValueError(f"no preset is named {preset}")

    def draw(out: Path) -> Path:
        decided(folder, preset, out, system)
        return out / "claims.html"

    return draw


_ALONE: dict[str, Callable[[Path, Mapping[str, Any]], Draw]] = {
    diagnosis.RECORD: lambda folder, record: lambda out: diagnosis.write(out, record)[0],
    shifts.RECORD: lambda folder, record: lambda out: shifts.write_page(out, record, folder),
    improve.RECORD: lambda folder, record: lambda out: improve.write_page(out, record),
    selftest.RECORD: lambda folder, record: lambda out: selftest.write_page(out, record),
    TABLE: _claims,
}
_FILES = (RESULT, RESULTS, audit.RECORD, *_ALONE)
