"""Would the tests notice? Some forty faults, planted one at a time into a copy of the package, each with the tests that should see it.

    python tests/mutations.py                 all of them, about ten minutes on two cores; exits 1 if more than two are not seen
    python tests/mutations.py --only apgd     those whose file or promise holds this word

Each fault would give a wrong figure or break a promise in silence. It is a piece of source and what stands in its place; the piece
must stand once in its file, and a line says so where it no longer does: plant the same fault in the new source. First the tests run
without a fault, for a test that fails anyhow sees nothing.
"""

import argparse
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PACKAGE = Path("src/normwise")
UNSEEN = 2  # faults that the tests may miss
LONGEST = 900  # seconds of one run of tests; one that takes longer has not seen the fault


class Fault(NamedTuple):
    """What is broken, in which file, by which replacement, and the tests that should notice: files, or FILE::TEST."""

    promise: str
    file: str
    before: str
    after: str
    tests: str


FAULTS = [
    # the root
    Fault("dlr divides by the gap to the third logit", "losses.py", "top[:, 0] - top[:, 2])", "top[:, 0] - top[:, 1])", "facts/test_apgd.py facts/test_autoattack.py"),
    Fault("every batch and restart draws from a stream of its own", "seeding.py", "part in (seed, *names))", "part in (seed, *names[:2]))", "facts/test_planted_faults.py"),
    Fault("the lower of joint and single is quoted", "records.py", "single.value < joint.value", "single.value > joint.value", "verdict/test_protocol_and_strongest.py verdict/test_malicious_neighbours.py facts/test_report.py"),
    # utils
    Fault("intervals are of 95%", "utils/intervals.py", "inv_cdf(0.975)", "inv_cdf(0.95)", "facts/test_report.py verdict/test_verdict.py"),
    Fault("a network that writes into its input writes into a copy", "utils/forward.py", "model(x.clone())", "model(x)", "contracts/test_networks.py"),
    # data
    Fault("validation images do not train", "data/tensors.py", "~torch.isin(rows, held)", "torch.isin(rows, rows)", "facts/test_data.py"),
    Fault("Gaussian noise has the deviation of its table", "data/corruptions/noise.py", "scale=deviation, size", "scale=deviation**2, size", "facts/test_corruptions.py"),
    # norms
    Fault("running spreads are those of the population", "norms/layer.py", "self._measure.tracked(spread, n)", "spread", "facts/test_statnorm.py"),
    Fault("RobustNorm adds eps behind the power", "norms/robust.py", "eps_inside=False,\n            centre_share=self", "eps_inside=True,\n            centre_share=self", "facts/test_statnorm.py"),
    Fault("what is read elsewhere too is not folded", "norms/surgery/folding.py", "len(before.users) > 1 or ", "", "facts/test_folding.py"),
    Fault("recalibrated statistics are a plain average", "norms/surgery/conversion.py", "module.momentum = 1 / seen", "module.momentum = 0.1", "facts/test_surgery.py"),
    # threats
    Fault("random starts fill the whole ball", "threats/lp.py", "uniform_(-1, 1, gen", "uniform_(0, 1, gen", "contracts/test_threats.py"),
    # report
    Fault("the worst case shown is the headline", "report/tables.py", "_score(e.headline, ", "_score(e.robust_accuracy, ", "facts/test_report.py verdict/test_malicious_neighbours.py"),
    # models
    Fault("a weaker attacker sees no gradient of the substitute", "models/abnn.py", "x.detach()).logits", "x).logits", "facts/test_abnn.py"),
    Fault("no large file is fetched from the hub", "models/hub.py", "size is None or size > limit", "size is None", "flow/test_sharing.py"),
    # attacks
    Fault("a pattern for all images is made without test rows", "experiments/patterns.py", "data.train(batch_size=self.batch_size, generator=self.generator)", "data.test(batch_size=self.batch_size)", "facts/test_universal.py"),
    Fault("what a turned patch leaves free stays clean", "attacks/universal.py", "torch.where(free, clean, turned)", "torch.where(free, turned, turned)", "facts/test_universal.py"),
    Fault("a misclassified image beats a larger loss", "attacks/best_iterate.py", "(fallen & ~fell) | ((fallen == fell) & larger)", "larger", "facts/test_planted_faults.py"),
    Fault("images that go backward are counted", "attacks/oracle.py", "self.backwards += len(x)", "self.backwards += 1", "facts/test_pgd.py facts/test_apgd.py"),
    Fault("APGD has momentum", "attacks/apgd.py", "share = 0.75 if self.step else 1.0", "share = 1.0", "facts/test_planted_faults.py"),
    Fault("later restarts begin at random", "attacks/pgd.py", "if self.random_start or restart else", "if self.random_start else", "facts/test_planted_faults.py"),
    # training
    Fault("means of processes differ, and that is part of the variance", "norms/synchronized.py", "variances + (means - whole).square()", "variances", "contracts/test_distributed.py"),
    Fault("gradients go through the statistics to the rows of other processes", "utils/processes.py", "        add(grad)\n", "", "contracts/test_distributed.py"),
    Fault("the last checkpoint within a standard error is kept", "training/loop.py", "enough = self.state.top - (", "enough = self.state.top - 0 * (", "facts/test_fit.py"),
    Fault("TRADES weighs the divergence", "training/recipes/trades.py", "self.beta * _divergence", "_divergence", "facts/test_recipes_losses.py"),
    Fault("norms are spared weight decay where asked", "training/schedule.py", '"weight_decay": 0.0}', '"weight_decay": schedule.weight_decay}', "facts/test_fit.py facts/test_trainable.py"),
    # evaluation
    Fault("flips are of untouched images", "evaluation/coupling.py", "flipped |= kept & ", "flipped |= ~kept & ", "facts/test_planted_faults.py"),
    Fault("a curve never rises", "evaluation/curves.py", "return one & other", "return other", "facts/test_planted_faults.py"),
    Fault("resumed batches are of the same images", "evaluation/store.py", 'about["mark"] != mark', "not mark", "verdict/test_resume.py"),
    Fault("a random network is asked 11 times", "evaluation/predictor.py", "DRAWS = 11", "DRAWS = 1", "verdict/test_verdict.py verdict/test_sanity_checks.py"),
    # auditing
    Fault("an image is put down to what broke it first", "auditing/checks/ledger.py", "self.first.setdefault(one, called)", "self.first[one] = called", "facts/test_planted_faults.py"),
    Fault("what could not be seen supports no claim", "auditing/checks/verdict.py", 'UNSEEN = ("fail", "could not run")', 'UNSEEN = ("fail",)', "facts/test_planted_faults.py"),
    # diagnostics
    Fault("curvature is measured at half a radius", "diagnostics/smoothness.py", "self.reach * region.radius", "region.radius", "facts/test_diagnoses_known.py"),
    # experiments
    Fault("an interval over seeds is Student's", "experiments/papers/inference.py", "stdtr(self.seeds - 1,", "stdtr(1000,", "facts/test_inference.py"),
    Fault("verdicts are corrected for the number of claims", "experiments/papers/decide.py", "*map(holm, families)", "*map(list, families)", "facts/test_claims.py"),
    Fault("the seed that tunes decides nothing", "experiments/papers/decide.py", "seed >= size.first]", "seed >= 0]", "facts/test_claims.py"),
    Fault("an arm that was not tuned decides nothing", "experiments/papers/decide.py", "unfit(used, claim.cells) or claim", "claim", "facts/test_claims.py"),
    Fault("images that the network has learned do not choose", "experiments/unseen.py", "learned = getattr(data, \"validation_size\", 0), above(seen, new)", "learned = getattr(data, \"validation_size\", 0), False", "facts/test_improve.py"),
    Fault("a way that is better by chance is not chosen", "experiments/ways.py", "not _leads(new, old, ways)", "False", "facts/test_improve.py"),
    Fault("finished tries of a search are not made again", "experiments/tuning.py", "{one.rate: one for one in _kept(file)}", "dict[float, Try]()", "facts/test_tuning.py"),
    Fault("chance is corrected for the number of ways", "utils/intervals.py", "flipped(*rows)[2] * tests < LEVEL", "flipped(*rows)[2] < LEVEL", "facts/test_improve.py"),
    Fault("AutoAttack is not asked about coupled images", "experiments/papers/attackers.py", "if not found.coupling.coupled:", "if True:", "flow/test_reproduce.py"),
    Fault("a row counts in the union only if it stands under all", "evaluation/several.py", "fewest = left.all(0)", "fewest = left.any(0)", "facts/test_several.py"),
    Fault("each image's worst is of largest loss", "training/recipes/multi.py", "_of_worst([one.x_adv for one in crafted], losses)", "_of_worst([one.x_adv for one in crafted], -losses)", "facts/test_multi.py"),
    # cli
    Fault("a file of settings wins over what suits the data", "cli/parser.py", "preferred, file, operand", "file, preferred, operand", "flow/test_cli.py::test_later_wins_preset_file_operand_words"),
]  # fmt: skip


def copied(place, fault=None):
    """A copy of src in `place`, with a fault planted into it."""
    shutil.copytree(ROOT / "src", place, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    if fault:
        path = place / "normwise" / fault.file
        path.write_text(path.read_text().replace(fault.before, fault.after))


def passes(tests, fault=None):
    """Whether the tests pass on a copy of the package with a fault, or without; and the last line that they say."""
    with TemporaryDirectory() as folder:
        copied(Path(folder) / "src", fault)
        words = [
            sys.executable,
            "-m",
            "pytest",
            "-x",
            "-q",
            "-m",
            "not slow",
            "-p",
            "no:cacheprovider",
            *(f"tests/{name}" for name in tests),
        ]
        environment = os.environ | {"PYTHONPATH": f"{folder}/src", "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        try:
            run = subprocess.run(
                words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=LONGEST, check=False
            )
        except subprocess.TimeoutExpired:
            return True, f"took longer than {LONGEST} s"
    if run.returncode not in (0, 1):
        sys.exit(f"pytest ended with status {run.returncode}: {run.stdout[-500:]}{run.stderr[-500:]}")
    failures = [line for line in run.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return run.returncode == 0, (failures or [""])[0][:110]


def misplaced(faults):
    """The faults whose piece of source does not stand in its file exactly once, each in a line."""
    counts = [(ROOT / PACKAGE / one.file).read_text().count(one.before) for one in faults]
    return [
        f"{one.file}: {one.before!r} stands there {count} times, expected once; plant the fault {one.promise!r} in the new source"
        for one, count in zip(faults, counts, strict=True)
        if count != 1
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="WORD", help="faults whose file or promise holds this word")
    parser.add_argument("--jobs", type=int, default=2, help="runs of tests side by side")
    asked = parser.parse_args()
    faults = [one for one in FAULTS if asked.only in one.file + one.promise]
    if lines := misplaced(faults):
        sys.exit("\n".join(lines))
    tests = sorted({name for one in faults for name in one.tests.split()})
    with ThreadPoolExecutor(asked.jobs) as pool:
        for name, (good, failure) in zip(tests, pool.map(lambda name: passes([name]), tests), strict=True):
            if not good:
                sys.exit(f"{name} fails without a fault: {failure}")
        seen = 0
        for one, (good, failure) in zip(faults, pool.map(lambda one: passes(one.tests.split(), one), faults), strict=True):
            seen += not good
            print(f"{'NOT SEEN' if good else 'seen    '}  {one.file:32}{one.promise}: {failure or one.tests}", flush=True)
    print(f"{seen} of {len(faults)} faults seen")
    sys.exit(len(faults) - seen > UNSEEN)


if __name__ == "__main__":
    main()
