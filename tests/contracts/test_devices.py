"""What runs on the CPU runs on any other device too: nothing is left behind when a model moves."""

import copy
from contextlib import suppress

import pytest
import torch

from normwise.attacks import APGD, ATTACKS, PGD
from normwise.evaluation.evaluator import evaluate
from normwise.evaluation.plan import AttackPlan
from normwise.models.abnn import Adaptive, abnn
from normwise.norms import MBN, NORMS, MultiBN, NoNorm
from normwise.norms.surgery.conversion import convert, recalibrate
from normwise.seeding import generator
from normwise.threats import THREATS, Linf
from normwise.training.loop import fit
from normwise.training.recipes import RECIPES
from normwise.training.schedule import Schedule
from normwise.types import Batch
from normwise.utils.model_state import moved
from otherdevice import elsewhere
from toys import Stripes, fitting, images, labels, some, trained

BATCHES = [Batch(images(8), labels(8), torch.arange(8))]
FEW = {"steps": 3, "queries": 10, "binary_steps": 2, "repeats": 1, "updates": 3}
BALL, SHORT = Linf(eps=0.1), PGD(steps=3)


def judged(model, device, threat=BALL, attack=SHORT, strongest=()):
    verdict = evaluate(copy.deepcopy(model).to(device), BATCHES, AttackPlan(threat, [attack], strongest=strongest))
    return verdict.x_adv, verdict.rows.predictions.double(), verdict.rows.step.double()


def here_and_there(work):
    """What is made on the CPU, and on the device that is not there."""
    here = work(torch.device("cpu"))
    with elsewhere() as device:
        return here, [one.cpu() for one in work(device)]


def test_a_tensor_left_on_the_cpu_is_met_with_an_error():
    model = trained()
    model.register_forward_hook(lambda module, args, logits: logits + torch.zeros(8, 3))
    with elsewhere() as device, pytest.raises(ValueError, match="expected all tensors on one device"):
        judged(model, device)


EVERYWHERE = ("apgd", "square")  # two that meet all that regions and walks can do
CASES = [(name, kind) for name in ATTACKS for kind in ("first", *THREATS) if kind == "first" or name in EVERYWHERE]


@pytest.mark.parametrize(("name", "kind"), some(CASES, *(case for case in CASES if case[1] in ("first", "l1", "patch"))))
def test_attacks_search_there_as_here(name, kind):
    attack, suit = ATTACKS[name](**{field: few for field, few in FEW.items() if hasattr(ATTACKS[name], field)}), []
    for threat in (fitting(THREATS[threat]) for threat in (("linf", *THREATS) if kind == "first" else [kind])):
        with suppress(ValueError):  # it is not defined there
            attack.check(threat.around(images(1), generator=generator(0)))
            suit.append(threat)
    for threat in suit[:1]:
        here, there = here_and_there(lambda device: judged(trained(), device, threat, attack))  # noqa: B023
        torch.testing.assert_close(there, list(here))


@pytest.mark.parametrize("name", some(NORMS, "bn", "rn", "mbn", "gn"), ids=str)
def test_norms_are_recalibrated_and_attacked_there_as_here(name):
    model = convert(trained(), NORMS[name]())
    if hasattr(model.norm, "reset_running_stats"):
        here, there = here_and_there(
            lambda device: recalibrate(copy.deepcopy(model).to(device), [images()]).state_dict().values()
        )
        torch.testing.assert_close(there, list(here))
        model = recalibrate(model, [images()])
    else:  # what is another function has to be trained before it is judged
        model = trained(NORMS[name]())
    here, there = here_and_there(lambda device: judged(model, device, strongest=[APGD(steps=3)]))
    torch.testing.assert_close(there, list(here))


@pytest.mark.parametrize("source", ["features", "statistics", "constant", "fusion"])
def test_a_substitute_is_listened_to_there_as_here(source):
    model = abnn(trained(), trained(seed=1), Adaptive(source=source, taps=("conv2",)), shape=(2, 6, 6))
    here, there = here_and_there(lambda device: judged(model, device))
    torch.testing.assert_close(there, list(here))


@pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter")  # it is none, and is copied
@pytest.mark.parametrize("name", some(RECIPES, "adversarial", "mbn", "abnn", "nofrost-star"), ids=str)
def test_recipes_train_there_as_here(name):
    recipe = RECIPES[name](**({"steps": 2} if hasattr(RECIPES[name], "steps") else {}))
    special = {"mbn": lambda: convert(trained(), MBN()), "multibn": lambda: convert(trained(), MultiBN())}
    special |= {"nofrost": lambda: trained(NoNorm())}
    special["nofrost-star"] = special["nofrost"]
    special["abnn"] = lambda: abnn(trained(), trained(), Adaptive(taps=("conv2",)), shape=(2, 6, 6))
    schedule = Schedule(epochs=1, batch_size=32, lr=0.05, crop=1, flip=True, ema=0.9)
    model = special.get(name, trained)()

    def train(device):
        return fit(moved(model, device), Stripes(), recipe, BALL, schedule, seed=0).model.state_dict().values()

    here, there = here_and_there(train)
    torch.testing.assert_close(there, list(here), rtol=1e-3, atol=1e-4)
