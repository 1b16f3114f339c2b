"""Folding is the same function with fewer operations, and leaves alone what it must."""

import jaxtyping
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from normwise.models import MODELS
from normwise.norms import NORMS, norm_reads, sites
from normwise.norms.surgery.folding import fold
from normwise.norms.surgery.unmapped import unmapped
from normwise.utils.model_state import digest
from toys import Activated, Small, images, trained


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
    fixed = norm in (
        "bn",
        "rnt",
        "powerbn",
        "meanonly",
        "median",
        "none",
        "jsbn",
        "batchrenorm",
    )  # maps of each channel by itself
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


class Reads(Small):
    """Uses a number of a layer that could be folded a second time, by its name."""

    def __init__(self, read):
        super().__init__()
        self.read, self.also = read, nn.Conv2d(2, 8, 3, padding=1)
        self.also.weight = self.conv1.weight

    def forward(self, x):
        y = self.norm(self.conv1(x)).relu()
        return self.linear(y.mean((2, 3))) + self.read(self, x, y)


def last(y):
    return y.flatten(1)[:, :3]


class Keeps(nn.BatchNorm2d):
    """Another norm, which holds a convolution where no module looks for it."""

    def __init__(self, conv):
        super().__init__(2)
        self.kept = {"conv": [conv]}

    def forward(self, x):
        return super().forward(x) * self.kept["conv"][0].weight.mean()


BY_NAME = {
    "the weight, backwards": lambda m, x, y: last(F.conv_transpose2d(y, m.conv1.weight, padding=1)),
    "the weight, computed with": lambda m, x, y: last(F.conv2d(x, F.normalize(m.conv1.weight))),
    "the weight under another name": lambda m, x, y: last(F.conv2d(x, m.also.weight)),
    "the bias": lambda m, x, y: last(y * m.conv1.bias.view(-1, 1, 1)),
    "all parameters": lambda m, x, y: last(y) * sum(p.square().sum() for p in m.parameters()),
    "the buffer of the norm": lambda m, x, y: last(y - m.norm.running_mean.view(-1, 1, 1)),
    "the saved values": lambda m, x, y: last(y) * m.state_dict()["norm.weight"].sum(),
    "another layer's hold": lambda m, x, y: last(m.keeps(x)),
}


@pytest.mark.parametrize("name", BY_NAME)
def test_what_is_read_by_name_is_not_folded(name):
    model = Reads(BY_NAME[name])
    if name == "another layer's hold":
        model.keeps = Keeps(model.conv1)
    model = shaken(model)
    folded = fold(model)
    torch.testing.assert_close(folded(images()), model(images()))
    why = (
        "another layer holds it" if "hold" in name else "its numbers, or those of the layer before it, are read by name too"
    )
    assert unmapped(folded)["norm"].startswith(f"not folded: {why}")


def test_what_is_asked_of_a_weight_beside_its_numbers_does_not_matter():
    model = shaken(Reads(lambda m, x, y: last(y.to(m.conv1.weight.dtype)) * m.norm.num_features))
    assert unmapped(fold(model)) == {}
    torch.testing.assert_close(fold(model)(images()), model(images()))


def test_a_linear_layer_whose_weight_is_read_by_name_is_not_folded():
    class Cosine(nn.Module):
        def __init__(self):
            super().__init__()
            self.flat, self.fc, self.norm = nn.Flatten(), nn.Linear(72, 5), nn.BatchNorm1d(5)

        def forward(self, x):
            x = self.flat(x)
            return self.norm(self.fc(x)) + F.linear(F.normalize(x), F.normalize(self.fc.weight))

    model = shaken(Cosine())
    torch.testing.assert_close(fold(model)(images()), model(images()))
    assert "read by name" in unmapped(fold(model))["norm"]


def _put_in_training(model):
    class Wakes(nn.Module):
        def forward(self, x):
            self.kept[0].train()
            return x

    wakes = Wakes()
    wakes.kept = [model.norm]
    model.conv1 = nn.Sequential(wakes, model.conv1)
    return model


def _twice_named(model):
    model.body = nn.Sequential(model.conv1, model.norm)
    model.conv1, model.norm, model.first = model.body, nn.Identity(), model.norm
    model._modules = dict(reversed(model._modules.items()))  # the name that is not used comes first
    return model


def _watched_whole(model):
    model.register_forward_hook(lambda module, args, out: out + module.norm(module.conv1(args[0])).mean())
    return model


def _other_conv(model):
    own = model.conv1.forward
    model.conv1.forward = lambda x: own(x).relu()
    return model


@pytest.mark.parametrize(
    ("change", "folds"),
    [(_put_in_training, False), (_twice_named, True), (_watched_whole, False), (_other_conv, False)],
    ids=["training", "two names", "hook", "forward"],
)
def test_what_a_network_does_beside_its_layers_is_kept(change, folds):
    model, x = change(shaken(Small())), images()
    folded = fold(model)
    torch.testing.assert_close(folded(x), model(x))
    assert (unmapped(folded) == {}) == folds


def test_tracing_leaves_no_trace():
    class Remembers(Small):
        def forward(self, x):
            self.seen = self.norm(self.conv1(x))
            self.calls = getattr(self, "calls", 0) + 1
            return self.linear(self.seen.mean((2, 3)) + torch.ones(8))

    folded = fold(shaken(Remembers()))
    assert not {"seen", "calls", "_tensor_constant0"} & vars(folded).keys()
    assert unmapped(folded) == {}
