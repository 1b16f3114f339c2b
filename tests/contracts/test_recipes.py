"""What every recipe promises, on images and on clips."""

import dataclasses
import re
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import NamedTuple

import pytest
import torch
from torch import nn

from normwise.data import MovingDigits, TensorData
from normwise.models.abnn import Adaptive, abnn
from normwise.norms import MBN, NORMS, MultiBN, NoNorm
from normwise.norms.surgery.conversion import convert
from normwise.seeding import drawing, generator
from normwise.threats import Linf
from normwise.training.loop import fit
from normwise.training.recipes import RECIPES
from normwise.training.schedule import Schedule
from normwise.types import Recipe
from normwise.utils.model_state import digest, frozen
from toys import CLIP, Stripes, across, filmed, images, labels, some, trained

QUICK = Schedule(epochs=2, batch_size=16, lr=0.05, decay="constant")


PASSES = {  # forwards and backwards per image beyond one of each per step of the attack
    "standard": (1, 1),
    "adversarial": (1, 1),
    "mixed": (2, 2),
    "nofrost": (2, 2),
    "nofrost-star": (4, 4),
    "mixed-star": (4, 4),
    "trades": (3, 2),
    "fgsm-rs": (2, 2),
    "n-fgsm": (2, 2),
    "mbn": (2, 2),
    "multi": (3, 3),  # two attackers of one step
    "multibn": (4, 4),
    "abnn": (2, 1),  # and the substitute's forward
}
UPDATES = {
    "mixed": 2,
    "trades": 2,
    "mbn": 2,
    "multibn": 3,
    "nofrost": 0,
    "nofrost-star": 0,
    "mixed-star": 4,
}  # of running statistics, if not 1


REFUSED = {  # a network of this class, with so many norms
    "nofrost": "for networks that normalize nothing; this one has {1} norms",
    "nofrost-star": "for networks that normalize nothing; this one has {1} norms",
    "mbn": "mbn trains networks with routes; {0} has none",
    "multibn": "multibn trains networks with routes by attack and a detector; {0} has none",
    "abnn": "trains a network with adaptive layers; got a {0} without any",
}


class World(NamedTuple):
    """What is trained on what: a network by its norm and seed, the places where ABNN adapts it, the shape of a row, and data."""

    make: Callable[..., nn.Module]
    taps: tuple[str, ...]
    shape: tuple[int, ...]
    data: TensorData


IMAGES = World(trained, ("conv2",), (2, 6, 6), Stripes())
CLIPS = World(partial(filmed, classes=4), (), CLIP, MovingDigits(train_limit=16, validation_size=0, test_limit=4))
BOTH = pytest.mark.parametrize("world", [IMAGES, CLIPS], ids=["images", "clips"])


def fitting(recipe, norm=None, world=IMAGES):
    """A network that the recipe takes, if there is one with this norm."""
    if recipe.name == "abnn":
        options = Adaptive(source="statistics", taps=world.taps)
        return abnn(world.make(norm), world.make(seed=1), options, shape=world.shape)
    if recipe.name in ("nofrost", "nofrost-star"):  # bounded functions normalize nothing
        return world.make(norm or NoNorm()) if norm is None or norm.name in ("none", "dyt", "derf") else None
    if recipe.name == "multibn":
        with drawing(0):  # the detector is new
            return convert(world.make(), MultiBN()) if norm is None or norm == MultiBN() else None
    own = {"mbn": MBN()}.get(recipe.name, norm)
    return world.make(own) if norm is None or own == norm else None


@pytest.fixture(params=RECIPES, ids=str)
def recipe(request):
    """The recipe with its own settings but few steps; TRADES lighter, whose divergence is mostly the noise of dropout here."""
    known = RECIPES[request.param]
    steps = 1 if request.param in ("multi", "multibn") else 2
    few = {field.name: steps for field in dataclasses.fields(known) if field.name == "steps"}
    return known(**few, **({"beta": 1.0} if request.param == "trades" else {}))


@BOTH
def test_preparing_returns_a_copy(recipe, world):
    assert isinstance(recipe, Recipe)
    model = fitting(recipe, world=world)
    before = digest(model)
    prepared = recipe.prepare(model)
    for p in prepared.parameters():
        p.data.zero_()
    assert digest(model) == before


TRIED = across(RECIPES, NORMS, "standard", "bn", "none", "mbn")
MORE = [("multibn", "multibn"), *product(["nofrost", "nofrost-star"], ["dyt", "derf"])]  # what these take beside
MORE += product(["adversarial", "mixed", "trades"], ["bnwot", "frn"])  # a norm that reads the batch, one with a threshold


@pytest.mark.parametrize(("recipe", "norm"), some([*TRIED, *MORE], *TRIED), indirect=["recipe"])
def test_the_loss_falls_on_sixteen_images_and_trains_what_may_train(recipe, norm):
    begun = fitting(recipe, NORMS[norm]())
    if begun is None:
        with pytest.raises(ValueError, match=REFUSED[recipe.name].format("Small", 1)):
            recipe.prepare(trained(NORMS[norm]()))
        return
    learns(recipe, begun, images(16), steps=100)


def test_the_loss_falls_on_sixteen_clips_and_networks_that_do_not_fit_are_refused(recipe):
    learns(recipe, fitting(recipe, world=CLIPS), images(16, CLIP), steps=20)
    if recipe.name in REFUSED:
        with pytest.raises(ValueError, match=f"^.*{REFUSED[recipe.name].format('ClipNetwork', 12)}.*$"):  # one line
            recipe.prepare(filmed())


def learns(recipe, begun, x, steps):
    """The loss falls on these rows; what may train does, and nothing else."""
    model = recipe.prepare(begun).train()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    y = labels(16)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.01)
    values = []
    for step in range(steps):
        cost = recipe.loss(model, x, y, Linf(eps=0.02), generator=generator(0, step))
        optimizer.zero_grad()
        cost.loss.backward()
        optimizer.step()
        values.append(float(cost.loss.detach()))
        assert cost.forwards >= 16
        assert cost.backwards >= 16
    assert sum(values[-5:]) < 0.8 * sum(values[:5])
    for name, p in model.named_parameters():
        blocked = name.endswith("norm.threshold")  # of FRN, at 0 before a ReLU: no gradient reaches it
        assert torch.equal(p, before[name]) != (p.requires_grad and not blocked)
    fixed = frozen(model)
    assert all(module.training != (module in fixed) for module in model.modules())


@BOTH
def test_crafting_leaves_the_buffers_to_the_training_forwards_alone(recipe, world):
    """One training step moves the running statistics once per training forward, however many steps the attack takes."""
    model = recipe.prepare(fitting(recipe, world=world)).train()
    first = re.compile(r"(target\.)?(norm|bn1)\b.*num_batches")  # of the first norm, with its routes

    def seen():
        return sum(int(value) for name, value in model.state_dict().items() if first.match(name))

    before = seen()
    recipe.loss(model, images(16, world.shape), labels(16), Linf(), generator=generator(0))
    assert seen() == before + UPDATES.get(recipe.name, 1)


def test_training_leaves_the_given_model_and_the_global_random_state_alone(recipe):
    model = fitting(recipe)
    before, state = digest(model), torch.random.get_rng_state()
    fitted = fit(model, Stripes(validation_size=24), recipe, Linf(eps=0.1), QUICK, seed=0)
    assert digest(model) == before
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not fitted.model.training
    assert fitted.training.parameters == sum(p.numel() for p in model.parameters())


@BOTH
def test_the_cost_is_counted_exactly(recipe, world):
    fitted = fit(fitting(recipe, world=world), world.data, recipe, Linf(eps=0.1), QUICK, seed=0)
    steps = getattr(recipe, "steps", 0)
    forwards, backwards = PASSES[recipe.name]
    seen = 2 * (96 if world is IMAGES else 16)  # rows of 2 epochs, none of which validate
    assert fitted.training.forwards == seen * (steps + forwards)
    assert fitted.training.backwards == seen * (steps + backwards)


def test_abnn_refuses_a_network_without_adaptive_layers():
    with pytest.raises(ValueError, match=r"got a Small without any; make one with abnn\("):
        RECIPES["abnn"]().prepare(trained())
