"""The verb `audit`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..auditing.auditor import Audit, run_audit
from ..config import read_yaml
from ..experiments.audits import Audits, run_audits
from ..experiments.evaluation_run import clear
from ..records import write
from ..registry import plain
from . import defaults, summaries
from .parser import Verb, parse, split
from .working import working


def audit_networks(description: str, words: Sequence[str]) -> int:
    """`normwise audit`: one network, or several."""
    from ..report import audit as page

    verb = Verb("audit", description, "runs/audit", "MODEL [MODEL ...]", 0, 1000)
    operands, options = split(words, verb)
    if len(operands) > 1 or ((file := options.get("--config")) and "models" in read_yaml(Path(file))):
        return _audits(verb, words)
    settings, _, out = parse(verb, Audit, words, defaults.for_audit)
    with working("audit", out) as report:
        found = run_audit(settings, out, report)
    for check in found.checks:
        rows = f" (n = {check.n})" if check.n is not None else ""
        status = "does not apply" if check.status == "pass" and check.n is None else check.status
        print(
            f"{status:16}{check.name}{rows}: {check.measured}"
            + (f"; {check.why}" if check.status in ("warn", "fail") else "")
        )
    path = write(out / page.PAGE, page.to_html([{"model": settings.model} | plain(found)], out))
    clear(out)
    print(found.sentence)
    summaries.of_audit(found)
    print(f"report: {path}\nrecord: {out / page.RECORD}")
    return 0


def _audits(verb: Verb, words: Sequence[str]) -> int:
    from ..report import audit as page

    settings, _, out = parse(verb, Audits, words, defaults.for_audits)
    with working("audits", out) as report:
        finished = run_audits(settings, out, report)
    if not finished.audits:
        raise ValueError(f"no audit finished: {'; '.join(f'{name}: {why}' for name, why in finished.failures.items())}")
    path = page.write(out, finished.audits)
    summaries.of_audits(finished.audits)
    print(f"report: {path}\nrecords: {out / 'cells'}")
    for name, why in finished.failures.items():
        print(f"failed: {name}: {why}")
    return int(bool(finished.failures))
