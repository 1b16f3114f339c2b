"""What every recipe promises."""

import pytest
import torch

from normwise.adaptive import Adaptive, abnn
from normwise.modes import digest, frozen
from normwise.norms import NORMS
from normwise.recipes import RECIPES
from normwise.schedule import Schedule
from normwise.seeding import generator
from normwise.threats import Linf
from normwise.training import fit
from normwise.types import Recipe
from worlds import Stripes, images, labels, trained

QUICK = Schedule(epochs=2, batch_size=16, lr=0.05, decay="constant")


def learner(recipe, norm=None):
    """A network that the recipe can train."""
    model = trained(norm)
    return (
        abnn(model, trained(seed=1), Adaptive(source="statistics", taps=("conv2",)), shape=(2, 6, 6))
        if recipe.name == "abnn"
        else model
    )


@pytest.fixture(params=RECIPES, ids=str)
def recipe(request):
    return RECIPES[request.param]()


def test_preparing_returns_a_copy(recipe):
    assert isinstance(recipe, Recipe)
    model = learner(recipe)
    before = digest(model)
    prepared = recipe.prepare(model)
    for p in prepared.parameters():
        p.data.zero_()
    assert digest(model) == before


@pytest.mark.parametrize("norm", NORMS)
def test_the_loss_falls_on_sixteen_images_and_trains_what_may_train(recipe, norm):
    model = recipe.prepare(learner(recipe, NORMS[norm]())).train()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    x, y = images(16), labels(16)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.01)
    values = []
    for step in range(100):
        cost = recipe.loss(model, x, y, Linf(eps=0.02), generator=generator(0, step))
        optimizer.zero_grad()
        cost.loss.backward()
        optimizer.step()
        values.append(float(cost.loss.detach()))
        assert cost.forwards >= 16
        assert cost.backwards >= 16
    assert sum(values[-5:]) < 0.8 * sum(values[:5])
    for name, p in model.named_parameters():
        assert torch.equal(p, before[name]) != p.requires_grad
    fixed = frozen(model)
    assert all(module.training != (module in fixed) for module in model.modules())


def test_crafting_leaves_the_buffers_to_the_training_forwards_alone(recipe):
    """One training step moves the running statistics once per training forward, however many steps the attack takes."""
    model = recipe.prepare(learner(recipe)).train()
    norm = model.target.norm if recipe.name == "abnn" else model.norm
    seen = int(norm.num_batches_tracked)
    recipe.loss(model, images(16), labels(16), Linf(), generator=generator(0))
    assert int(norm.num_batches_tracked) == seen + 1


def test_training_leaves_the_given_model_and_the_global_random_state_alone(recipe):
    model = learner(recipe)
    before, state = digest(model), torch.random.get_rng_state()
    fitted = fit(model, Stripes(validation_size=24), recipe, Linf(eps=0.1), QUICK, seed=0)
    assert digest(model) == before
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not fitted.model.training
    assert fitted.training.parameters == sum(p.numel() for p in model.parameters())


def test_the_cost_is_counted_exactly(recipe):
    fitted = fit(learner(recipe), Stripes(), recipe, Linf(eps=0.1), QUICK, seed=0)
    steps = getattr(recipe, "steps", 0)  # 96 rows, 2 epochs, no validation rows
    assert fitted.training.backwards == 2 * 96 * (steps + 1)
    assert fitted.training.forwards == fitted.training.backwards * (
        2 if recipe.name == "abnn" else 1
    )  # and the substitute's


def test_abnn_refuses_a_network_without_adaptive_layers():
    with pytest.raises(ValueError, match=r"got a Small without any; make one with abnn\("):
        RECIPES["abnn"]().prepare(trained())
