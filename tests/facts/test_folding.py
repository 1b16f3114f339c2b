"""Folding is the same function with fewer operations, and leaves alone what it must."""

import jaxtyping
import pytest
import torch
from torch import nn

from normwise.folding import fold
from normwise.limits import unmapped
from normwise.models import MODELS
from normwise.modes import digest
from normwise.norms import NORMS, norm_reads, sites
from worlds import Activated, Small, images, trained


@pytest.fixture(autouse=True)
def _tracing_without_run_time_types():
    """A tracer's stand-in for a tensor is no tensor: the run-time checker would refuse it."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def shaken(model):
    """Every parameter and statistic away from its start, so that nothing is equal by chance."""
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if tensor.is_floating_point() and "standardize" not in name:
                tensor.copy_(tensor.abs() + torch.rand_like(tensor)) if "running" in name else tensor.add_(
                    0.3 * torch.rand_like(tensor)
                )
    return model.eval()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", ["resnet", "preactresnet18", "vgg"])
def test_the_function_is_the_same_and_the_model_given_is_untouched(name, norm):
    options = {"resnet": {"depth": 8}, "vgg": {"depth": 11}}.get(name, {"width": 8})
    model = shaken(MODELS[name](**options)(NORMS[norm](), classes=5, mean=(0.5,), std=(0.2,)).double())
    side = 32 if name == "vgg" else 16  # it halves five times, and instance norm needs positions
    x, before = torch.rand(4, 1, side, side, dtype=torch.float64), digest(model)
    folded = fold(model)
    torch.testing.assert_close(folded(x), model(x), rtol=1e-9, atol=1e-9)
    assert digest(model) == before
    with torch.no_grad():
        for p in folded.parameters():
            p.zero_()
    assert digest(model) == before
    fixed = norm in ("bn", "rnt", "powerbn", "meanonly", "median", "none")  # maps of each channel by itself
    if fixed and name != "preactresnet18":
        assert sites(folded) == {}
    if not fixed:
        assert norm_reads(folded) == norm_reads(model)
    assert unmapped(folded).keys() == sites(folded).keys()


def test_hooks_ties_and_second_readers_are_left_alone():
    hooked = trained()
    hooked.norm.register_forward_hook(lambda module, args, out: out + 1)

    class Twice(Small):
        def forward(self, x):
            y = self.conv1(x)
            return self.linear((self.norm(y) + y).mean((2, 3)))

    tied = nn.Sequential(nn.Conv2d(2, 2, 1), norm := nn.BatchNorm2d(2), nn.Conv2d(2, 2, 1), norm)
    for model in (hooked, Twice(), tied):
        model = shaken(model)
        torch.testing.assert_close(fold(model)(images()), model(images()))
        assert norm_reads(fold(model)) == norm_reads(model)


def test_a_norm_is_folded_only_where_it_is_known_to_normalize_the_layers_channels():
    by_position, features = torch.rand(5, 4, 3), torch.rand(5, 3, 1)
    cases = [
        (nn.Sequential(nn.Conv2d(2, 4, 1), Activated(4)), images(), False),
        (nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), by_position, False),
        (nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(4)), by_position, False),
        (nn.Sequential(nn.Flatten(), nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4), nn.BatchNorm1d(4)), features, True),
    ]
    for model, x, folds in cases:
        model = shaken(model)
        torch.testing.assert_close(fold(model)(x), model(x))
        assert (sites(fold(model)) == {}) == folds


def test_a_model_that_cannot_be_traced_is_copied():
    class Asks(Small):
        def forward(self, x):
            return super().forward(x if x.mean() > 0.5 else 1 - x)

    model = shaken(Asks())
    torch.testing.assert_close(fold(model)(images()), model(images()))
