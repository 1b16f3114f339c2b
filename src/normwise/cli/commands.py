"""The verbs: each reads its settings, calls one function, and says where the files are. Nothing is computed here."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from ..auditing.attack_tests import RECORD as SELFTEST
from ..auditing.attack_tests import SelfTest, run_selftest
from ..checkout import commit
from ..diagnostics.run import Diagnose, run_diagnose
from ..evaluation.shifts.run import RECORD, Shifts, run_shifts
from ..experiments import experiment, leaderboard
from ..experiments.evaluation_run import Evaluate, clear, run_evaluation
from ..experiments.experiment import Experiment
from ..experiments.grid import Bench, run_bench
from ..experiments.improve import Improve, run_improve
from ..experiments.papers import SYSTEMS, Reproduce, reproduce
from ..experiments.presets import PRESETS
from ..experiments.together import counted
from ..models.checkpoints import WEIGHTS
from ..models.loading import is_function
from ..records import RESULTS, Result, provenance, write
from ..registry import plain
from ..report.card import length
from ..types import silent
from ..utils.run_folder import nothing_left
from ..utils.workers import current_rank
from . import defaults, summaries
from .audits import audit_networks
from .listing import show_choices, show_status
from .parser import Verb, parse
from .reports import Reports, report
from .sharing import export_network, pull_network, push_run
from .working import working


def run(verb: str, description: str, words: Sequence[str]) -> int:
    """Run one verb; returns the exit status: 1 where a self-test or a cell fails. Bad input: one line on stderr, status 2."""
    try:
        if current_rank().size > 1 and verb != "train":
            raise ValueError(
                f"{current_rank().size} processes were started together, which normwise {verb} does not need; start it once"
            )
        commit()  # of the code that runs, before anybody changes it
        return _VERBS[verb](description, ["--data.download=true" if word == "--download" else word for word in words]) or 0
    except ValueError as error:
        print(f"normwise: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        raise
    except OSError as error:
        print(
            f"normwise: {error.filename or 'a file'}: {error.strerror or error}; check the path, the permissions and the free space",
            file=sys.stderr,
        )
        return 2
    except (MemoryError, torch.OutOfMemoryError) as error:
        print(
            f"normwise: out of memory ({' '.join(str(error).split())[:80]}); use smaller batches or images",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt as stop:
        kept = bool(stop.args)  # said by `working`
        outcome = "finished work is kept, and the same command resumes there" if kept else "nothing was finished"
        print(f"normwise: stopped; {outcome}", file=sys.stderr)
        return 130


def _bench(description: str, words: Sequence[str]) -> int:
    from ..report import page

    settings, _, out = parse(Verb("bench", description, "runs/bench"), Bench, words, defaults.for_bench)
    with working("cells", out) as report:
        finished = run_bench(settings, out, report)
    if not finished.results:
        raise ValueError(f"no cell finished: {'; '.join(f'{name}: {why}' for name, why in finished.failures.items())}")
    path = page.write(out, finished.results, title="normwise bench", provenance=provenance(), failures=finished.failures)
    summaries.of_results(finished.results)
    summaries.of_dead(finished.results)
    print(f"report: {path}\nrecords: {out / RESULTS}, {out / 'results.csv'}, {out / 'cells'}")
    for name, why in finished.failures.items():
        print(f"failed: {name}: {why}")
    return int(bool(finished.failures))


def _train(description: str, words: Sequence[str]) -> None:
    verb = Verb("train", f"{description}; PRESET: {', '.join(PRESETS)}", "runs/train", "[PRESET|MODEL]", 0, 1)
    e, _, out = parse(verb, Experiment, words, defaults.for_train)
    e, rank = counted(e), current_rank().rank
    if rank:  # of several processes that torchrun has started: the first one evaluates and reports
        if not experiment.finished(e, out):
            experiment.train(e, out, silent)
        return
    with working("train", out) as report:
        result = experiment.run(e, out, report=report)
    _show(result, out)
    if is_function(e.start):  # whose folder alone runs nobody's code
        print(f"network: {e.start} --weights {out / WEIGHTS}")


def _evaluate(description: str, words: Sequence[str]) -> None:
    verb = Verb("evaluate", description, "runs/evaluate", "MODEL", 0, 1)
    result, _, out = _judged(verb, words)
    _show(result, out)
    clear(out)


def _judged(verb: Verb, words: Sequence[str]) -> tuple[Result, list[Path], Path]:
    """Evaluate; the verb `attack` keeps the images too. Returns the result, what was written beside it, and where."""
    from ..evaluation.artifacts import keep_images, keep_rows

    settings, _, out = parse(verb, Evaluate, words, defaults.for_evaluate, defaults.read_evaluate)
    with working(verb.name, out) as report:
        result, verdict = run_evaluation(settings, out, report)
    paths = [keep_rows(verdict, out / "rows.csv")]
    if leaderboard.PARTS in result.evaluation.per_attack and settings.threat.name in ("linf", "l2"):
        about = {"name": settings.model, "architecture": str(result.experiment["model"])}
        write(out / "robustbench.json", leaderboard.entry(result.evaluation, **about).to_json())
    if verb.name == "attack":
        paths += keep_images(verdict, out)
    return result, paths, out


def _attack(description: str, words: Sequence[str]) -> None:
    result, (_, *paths), out = _judged(Verb("attack", description, "runs/attack", "MODEL", 0, 1), words)
    _show(result, out)
    print(f"images: {', '.join(map(str, paths))}")
    clear(out)


def _selftest(description: str, words: Sequence[str]) -> int:
    from ..report.selftest import write_page

    verb = Verb("selftest", description, "runs/selftest", "[MODEL]", 0, 1)
    settings, _, out = parse(verb, SelfTest, words, defaults.for_selftest)
    with working("selftest", out) as report:
        checks = run_selftest(settings, out, report)
    for check in checks:
        if check.status != "pass":
            print(f"{check.status}: {check.name}: {check.why}")
    summaries.of_checks(checks)
    path = write_page(out, json.loads((out / SELFTEST).read_text()))
    print(f"report: {path}\nrecord: {out / SELFTEST}")
    return int(any(check.status == "fail" for check in checks))


def _improve(description: str, words: Sequence[str]) -> None:
    from ..report import audit, improve

    settings, _, out = parse(
        Verb("improve", description, "runs/improve", "MODEL", 0, 1), Improve, words, defaults.for_improve
    )
    with working("improve", out) as report:
        record = run_improve(settings, out, report)
    print("\n".join(record["sentences"]))
    audit.write(out, [audit.read(path) for path in sorted(out.glob(f"audit-*/{audit.RECORD}"), reverse=True)])
    summaries.of_ways(record)
    if record["chosen"]:
        print(f"network: {record['network']}\nto train it again ({record['again']['how']}): {record['again']['command']}")
    print(f"report: {improve.write_page(out, record)}\nrecord: {out / improve.RECORD}")


def _diagnose(description: str, words: Sequence[str]) -> None:
    from ..report import diagnosis

    verb = Verb("diagnose", description, "runs/diagnose", "MODEL [MODEL ...]", 0, 1000)
    settings, _, out = parse(verb, Diagnose, words, defaults.for_diagnose)
    with working("diagnose", out) as report:
        found = run_diagnose(settings, out, report)
    path, findings = diagnosis.write(out, plain(found))
    for sentence in findings:
        print(sentence)
    summaries.of_diagnosis(plain(found))
    print(f"report: {path}\nrecords: {out / 'diagnose.json'}, {out / 'tables'}")


def _shifts(description: str, words: Sequence[str]) -> None:
    from ..report import shifts as page

    settings, _, out = parse(
        Verb("shifts", description, "runs/shifts", "MODEL [MODEL ...]", 0, 100), Shifts, words, defaults.for_shifts
    )
    with working("shifts", out) as report:
        record = run_shifts(settings, out, report)
    path = page.write_page(out, record)
    print("\n".join(record["sentences"]))
    summaries.of_shifts(record)
    print(f"report: {path}\nrecord: {out / RECORD}")


def _reproduce(description: str, words: Sequence[str]) -> None:
    systems = ", ".join(SYSTEMS)
    verb = Verb("reproduce", f"{description}; SYSTEM: {systems}, all", "runs/reproduce", "[SYSTEM]", 0, 1)
    settings, _, out = parse(
        verb, Reproduce, words, lambda operands, given: ({}, {"system": operands[0]} if operands else {})
    )
    with working("reproduce", out) as report:
        table = reproduce(settings, out, report)
    summaries.of_claims([one for one in table if settings.system in ("all", one["system"])])
    print(f"report: {out / 'claims.html'}\nrecords: {out / 'claims.json'}, {out / 'claims.md'}, {out / 'cells'}")


def _show(result: Result, out: Path) -> None:
    """Write the report of one run and say what came out."""
    from ..evaluation.artifacts import kept_examples
    from ..report import page

    path = page.write(out, [result], title=result.name, provenance=provenance(), examples=[kept_examples(out)])
    e = result.evaluation
    first = sorted((one for one in e.broken_by.items() if one[0] != "clean"), key=lambda one: -one[1])
    wrong = f"wrong without an attack: {e.broken_by['clean']}; " if e.broken_by.get("clean") else ""
    print(f"{wrong}first broken by: {', '.join(f'{name} {count}' for name, count in first) or 'nothing'}")
    for check in e.checks:
        if check.status != "pass":
            print(f"{check.status}: {check.name}: {check.measured}; {check.why}")
    for curve in e.curves:
        values = (
            f"{length(e.threat, value) if curve.over == 'eps' else f'{value:g}'}: {score}"
            for value, score in zip(curve.values, curve.scores, strict=True)
        )
        print(f"over {curve.over}: {', '.join(values)}")
    summaries.of_result(result)
    print(f"report: {path}")


def _report(description: str, words: Sequence[str]) -> None:
    verb = Verb("report", description, "runs/report", "RUN [RUN ...]", 0, 1000)
    settings, _, out = parse(
        verb, Reports, words, lambda operands, given: ({}, {"runs": list(operands)} if operands else {})
    )
    with nothing_left(out):
        pages, results = report(settings, out)
    summaries.of_dead(results)
    for path in pages:
        print(f"report: {path}")


_VERBS: dict[str, Callable[[str, Sequence[str]], int | None]] = {
    "bench": _bench,
    "train": _train,
    "evaluate": _evaluate,
    "attack": _attack,
    "audit": audit_networks,
    "improve": _improve,
    "diagnose": _diagnose,
    "shifts": _shifts,
    "selftest": _selftest,
    "reproduce": _reproduce,
    "push": push_run,
    "pull": pull_network,
    "export": export_network,
    "list": show_choices,
    "report": _report,
    "status": show_status,
}
