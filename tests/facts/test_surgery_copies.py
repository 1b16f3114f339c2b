"""Surgery on networks that resist copying, on what was compiled, and on lazy networks."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

from normwise.experiments.papers.controls import randomized
from normwise.norms import BN, GN
from normwise.norms.surgery.adaptation import with_share
from normwise.norms.surgery.conversion import convert, convert_sync, insert, recalibrate
from normwise.norms.surgery.folding import fold
from normwise.norms.surgery.trainable import only, redrawn_scales, shuffled
from normwise.utils.model_state import copied, digest, set_mode
from toys import images, trained

VERBS = {
    "convert": lambda model: convert(model, BN()),
    "convert_sync": convert_sync,
    "fold": fold,
    "insert": lambda model: insert(model, GN(groups=4), after=["conv1"]),
    "only": lambda model: only(model, "affine"),
    "recalibrate": lambda model: recalibrate(model, [images(seed=4)]),
    "with_share": lambda model: with_share(model, 0.0),
}
SAME = set(VERBS) - {"insert", "recalibrate"}  # these leave the function as it is


def _pruned(model):
    for layer in (model.conv1, model.linear):
        prune.l1_unstructured(layer, "weight", 2)
    return model


def _wrapped(model):
    own = model.forward
    model.forward = lambda x: own(x) + 0
    return model


RESISTING = {
    "pruned": _pruned,
    "older weight norm": lambda model: (weight_norm(model.conv1), model)[1],
    "older spectral norm": lambda model: (spectral_norm(model.conv1), model)[1],
    "parametrized": lambda model: (parametrizations.weight_norm(model.conv1), model)[1],
    "forward replaced": _wrapped,
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("kind", RESISTING)
def test_networks_that_resist_copying_are_copied(kind, verb):
    model, x = RESISTING[kind](trained()), images()
    model(x)  # weights are computed and held
    before = digest(model)
    new = set_mode(VERBS[verb](model), "eval")
    if verb in SAME:
        torch.testing.assert_close(new(x), model(x))
    else:
        assert not torch.equal(new(x), model(x))
    tensors = [*model.parameters(), *model.buffers()]
    assert not {t.data_ptr() for t in tensors} & {t.data_ptr() for t in (*new.parameters(), *new.buffers())}
    model.zero_grad()
    new(x).square().sum().backward()
    opened = [p for p in new.parameters() if p.requires_grad]
    assert all(p.grad is not None for p in opened)
    assert all(p.grad is None for p in model.parameters())
    with torch.no_grad():
        for p in opened:
            p.zero_()
    assert digest(model) == before


def test_weights_that_are_computed_are_not_set_in_vain():
    for work, layer in ((shuffled, "conv1"), (redrawn_scales, "norm"), (randomized, "linear")):
        model = trained()
        prune.l1_unstructured(getattr(model, layer), "weight", 2)
        with pytest.raises(ValueError, match=r"is computed .* cannot be set; make it plain first"):
            work(model)
    model = _pruned(trained())
    opened = {name for name, p in only(model, "subset").named_parameters() if p.requires_grad}
    assert opened == {"conv2.parametrizations.weight.original"}


def _exported(model):
    batch = torch.export.Dim("batch", min=2)
    return torch.export.export(model, (images(),), dynamic_shapes=({0: batch},)).module()


COMPILED = {
    "scripted": lambda model: torch.jit.script(model),
    "traced": lambda model: torch.jit.trace(model, images()),
    "frozen": lambda model: torch.jit.freeze(torch.jit.script(model)),
    "exported": _exported,
}


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("kind", COMPILED)
def test_what_was_compiled_is_copied_or_refused_in_a_line(kind, verb):
    model, x = COMPILED[kind](trained()), images()
    if verb == "fold":
        torch.testing.assert_close(fold(model)(x), model(x))
        return
    with pytest.raises(
        ValueError, match=r"do it before$|^cannot insert after 'conv1': it .* scripted|Module does not say its"
    ):
        VERBS[verb](model)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_a_scripted_networks_copy_has_parameters_of_its_own():
    model = torch.jit.script(trained())
    new = copied(model)
    new(images()).sum().backward()
    assert all(p.grad is not None and p.is_leaf for p in new.parameters())
    assert all(p.grad is None for p in model.parameters())


def test_surgery_on_a_network_that_was_compiled_is_run_or_refused():
    model, plain, x = torch.compile(trained(), backend="eager"), trained(), images()
    with torch.no_grad():
        model(x)
        for verb in sorted(set(VERBS) - {"insert"}):
            torch.testing.assert_close(VERBS[verb](model)(x), VERBS[verb](plain)(x))
        torch.testing.assert_close(convert(model, GN(groups=4))(x), convert(plain, GN(groups=4))(x))
    with pytest.raises(ValueError, match=r"cannot insert after '_orig_mod.conv1': it .* is scripted or compiled"):
        insert(model, BN(), after=["_orig_mod.conv1"])


@pytest.mark.parametrize("verb", sorted(set(VERBS) - {"insert"}))
def test_a_lazy_network_is_refused_by_every_verb(verb):
    with pytest.raises(ValueError, match="is lazy and does not know its channels yet"):
        VERBS[verb](nn.Sequential(nn.LazyConv2d(4, 1), nn.LazyBatchNorm2d(), nn.BatchNorm2d(4)))
