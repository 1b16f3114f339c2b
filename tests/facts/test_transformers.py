"""ViT and ConvNeXt: timm's names and logits, any norm, surgery that knows tokens, and what has to be trained anew."""

import pickle
from pathlib import Path

import jaxtyping
import pytest
import torch
from torch import nn

import normwise as nw
from normwise.attacks import APGD, FAB, PGD, Square
from normwise.diagnostics.drift import Drift
from normwise.diagnostics.taps import layers_of
from normwise.evaluation.acceleration import FAST, faster
from normwise.evaluation.evaluator import evaluate
from normwise.evaluation.plan import AttackPlan
from normwise.models import MODELS, ConvNeXt, ViT
from normwise.models.checkpoints import save
from normwise.norms import NORMS, LayerNorm2d, sites
from normwise.norms.surgery.conversion import with_known_statistics
from normwise.norms.surgery.unmapped import unmapped
from normwise.threats import Linf
from normwise.types import Batch
from toys import ChannelsFirst, some

TIMM = [line.split() for line in (Path(__file__).parent / "given/timm_vit_convnext.txt").read_text().splitlines()[1:]]
THEIRS = {
    "vit_tiny_patch16_224": ViT(side=224, patch=16, width=192, depth=12, heads=3),
    "convnext_atto": ConvNeXt(patch=4),
    "convnextv2_atto": ConvNeXt(patch=4, grn=True),
}
COLOUR = {"classes": 3, "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.25, 0.3)}
TINY = {
    "vit": ViT(side=8, patch=2, width=24, depth=2, heads=2),
    "conv stem": ViT(side=8, patch=4, stem="conv", width=32, depth=1, heads=2),
    "convnext": ConvNeXt(width=8),
}


def small(kind, norm=None):
    torch.manual_seed(0)
    model = TINY[kind](norm and NORMS.make(norm), **COLOUR).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.add_(0.3 * torch.randn_like(p) if "weight" in name else 0.1 + 0.1 * torch.randn_like(p))
    return model


def test_the_response_norm_within_a_block_of_version_2_is_no_site_of_its_own():
    torch.manual_seed(0)
    model = ConvNeXt(width=8, grn=True)(NORMS.make("layernorm2d"), **COLOUR).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    assert not any(".mlp." in path for path in sites(model))
    assert torch.equal(nw.convert(model, "layernorm2d")(pictures()), model(pictures()))


def pictures(rows=8):
    return torch.rand(rows, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("theirs", THEIRS)
def test_names_and_shapes_are_timms_key_for_key(theirs):
    with torch.device("meta"):
        model = THEIRS[theirs](classes=1000, mean=(0.5,) * 3, std=(0.5,) * 3)
        known = {key: tuple(map(int, shape.split("x"))) for name, key, shape in TIMM if name == theirs}
        assert {key: tuple(p.shape) for key, p in model.named_parameters()} == known
        model.load_state_dict({key: torch.empty(shape) for key, shape in known.items()}, assign=True)


@pytest.mark.slow
@pytest.mark.parametrize("theirs", THEIRS)
def test_logits_are_timms(theirs):
    timm = pytest.importorskip("timm", reason="timm, which needs torchvision, is not installed", exc_type=ImportError)
    torch.manual_seed(0)
    other = timm.create_model(theirs).eval()
    with torch.no_grad():
        for p in other.parameters():
            p.add_(0.02 * torch.randn_like(p))
    model = THEIRS[theirs](classes=1000, mean=(0.0,) * 3, std=(1.0,) * 3).eval()
    model.load_state_dict(other.state_dict())
    x = torch.rand(2, 3, 224, 224)
    torch.testing.assert_close(model(x), other(x), atol=1e-5, rtol=1e-4)


def test_images_of_other_sides_are_answered():
    assert small("vit")(torch.rand(2, 3, 16, 12)).shape == (2, 3)
    assert small("convnext")(torch.rand(2, 3, 7, 9)).shape == (2, 3)


@pytest.mark.parametrize(
    "wrong", [{"side": 30}, {"width": 101}, {"heads": 0}, {"patch": 6, "side": 36, "stem": "conv"}, {"width": 0}]
)
def test_impossible_sizes_are_refused(wrong):
    with pytest.raises(ValueError, match=r"(of vit|width of vit) is |of vit halves the image|of vit counts channels"):
        ViT(**wrong)


@pytest.mark.parametrize("norm", some(NORMS, "bn", "dyt", "layernorm2d", "wsgn", "frn"))
@pytest.mark.parametrize("kind", TINY)
def test_folding_and_fast_copies_leave_the_function(kind, norm):
    jaxtyping.config.update("jaxtyping_disable", True)  # a tracer's stand-in for a tensor is no tensor
    try:
        model = small(kind, norm)
        refused = (kind == "vit" and norm in ("frn", "grn", "evonorm-s0")) or (kind == "convnext" and norm == "in")
        if refused or (kind == "conv stem" and norm in ("frn", "grn", "evonorm-s0")):
            with pytest.raises(ValueError, match=r"reads height and width|reads the positions"):
                model(pictures())
            return
        x, folded = pictures(), nw.fold(model)
        torch.testing.assert_close(folded(x), model(x), rtol=1e-4, atol=1e-4)
        assert unmapped(folded).keys() == sites(folded).keys()
        stays = {path for path, site in sites(model).items() if site.axis == -1}
        assert stays <= set(sites(folded)), "a norm of tokens was folded"
        copies = faster(model, FAST, x, 0)
        assert copies.made
        assert not copies.difference
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def test_diagnoses_find_the_channels_of_tokens_last():
    model, x = small("vit"), pictures()
    layers = layers_of(model, x)
    assert {layer.axis for layer in layers.values()} == {-1}
    batch = Batch(x, model(x).argmax(1), torch.arange(len(x)))
    [patient] = nw.diagnose({"vit": small("vit", "dyt")}, [batch], Linf(eps=0.05), [Drift(steps=(1,))])
    assert {row[0] for row in patient.tables["drift"].rows} == set(layers)


@pytest.mark.parametrize("kind", ["vit", "convnext"])
def test_they_are_attacked_and_judged_as_any_network(kind):
    model, x = small(kind), pictures(6)
    batch = Batch(x, model(x).argmax(1), torch.arange(len(x)))
    plan = AttackPlan(Linf(eps=0.1), [PGD(steps=5)], strongest=[APGD(steps=5), FAB(steps=5, targets=1), Square(steps=20)])
    found = evaluate(model, [batch], plan).evaluation
    assert not found.coupled
    assert found.clean_accuracy.value == 1
    assert found.robust_accuracy.value < 1


@pytest.mark.parametrize("norm", ["dyt", "derf", "grn", "evonorm-s0", "frn", "wsgn"])
def test_another_function_in_a_norms_place_has_to_be_trained_first(norm):
    model, x = TINY["convnext"](**COLOUR).eval(), pictures()
    with pytest.warns(
        UserWarning, match=r"^17 norms were converted .*LayerNorm2d before.*fine-tune it\); until then .* refuses"
    ):
        new = nw.convert(model, NORMS[norm]() if "groups" not in str(NORMS[norm]()) else NORMS[norm](groups=4))
    said = unmapped(new)
    assert set(said) == set(sites(new))
    assert all(text == "LayerNorm2d before, another function now: fine-tune it" for text in said.values())
    batch = Batch(x, model(x).argmax(1), torch.arange(len(x)))
    with pytest.raises(
        ValueError, match=r"^17 norms were converted to another function \(stem.1: LayerNorm2d before.*fine-tune it\)"
    ):
        evaluate(new, [batch], Linf(eps=0.1), [PGD(steps=1)])
    with pytest.raises(ValueError, match=r"^ConvNeXtNetwork: 17 norms were converted"):
        nw.diagnose(new, [batch], Linf(eps=0.1))
    new.train()(x).sum().backward()
    torch.optim.SGD(new.parameters(), lr=1e-6).step()
    assert unmapped(new) == {}
    evaluate(new.eval(), [batch], Linf(eps=0.1), [PGD(steps=1)])


class Mixed(nn.Module):
    """Norms of tokens, of channels, of several axes, and timm's over the second axis of pictures."""

    def __init__(self):
        super().__init__()
        self.conv, self.first, self.second = nn.Conv2d(3, 8, 1), ChannelsFirst(8), LayerNorm2d(8)
        self.tokens, self.rms, self.whole = nn.LayerNorm(8, eps=1e-3), nn.RMSNorm(8), nn.LayerNorm((64, 8))

    def forward(self, x):
        y = self.second(self.first(self.conv(x))).flatten(2).transpose(1, 2)
        return self.whole(self.rms(self.tokens(y)))


def test_every_kind_of_layernorm_is_converted_where_its_channels_are():
    model = Mixed()
    for norm in ("rmsnorm", "layernorm2d", "bn", "none"):
        new = nw.convert(model, norm)
        assert {path: site.axis for path, site in sites(new).items() if path != "whole"} == {
            "first": 1,
            "second": 1,
            "tokens": -1,
            "rms": -1,
        }
        assert unmapped(new)["whole"] == "LayerNorm left as it is"
        assert new.train()(pictures()).shape == (8, 64, 8)
    same, x = nw.convert(model, "layernorm2d"), pictures()
    assert same.tokens.eps == 1e-3
    assert type(same.first) is LayerNorm2d
    torch.testing.assert_close(same.first(x.repeat(1, 3, 1, 1)[:, :8]), model.first(x.repeat(1, 3, 1, 1)[:, :8]))
    assert unmapped(nw.convert(model, "rmsnorm"))["tokens"] == "bias dropped"


def test_a_layernorm_over_the_channels_of_clips_is_converted_too():
    class OfClips(nn.LayerNorm):
        def forward(self, x):
            return super().forward(x.permute(0, 2, 3, 4, 1)).permute(0, 4, 1, 2, 3)

    class OfFrames(OfClips):
        def forward(self, x):
            return super().forward(x.flip(2))

    model = nn.Sequential(nn.Conv3d(1, 8, 1), OfClips(8), OfFrames(8))
    new = nw.convert(model, "gn")
    assert [type(layer).__name__ for layer in new] == ["Conv3d", "GroupNorm", "OfFrames"]
    assert new(torch.rand(2, 1, 4, 5, 5)).shape == (2, 8, 4, 5, 5)


def test_there_and_back_loads_the_same_keys():
    model = small("vit")
    back = nw.convert(nw.convert(model, "dyt"), "layernorm2d")
    torch.testing.assert_close(back(pictures()), model(pictures()))
    assert back.state_dict().keys() == model.state_dict().keys()


def test_the_default_norm_is_layernorm_over_channels():
    kinds = {type(small("vit").get_submodule(path)) for path in sites(small("vit"))}
    assert kinds == {nn.LayerNorm}
    assert {type(small("convnext").get_submodule(path)) for path in sites(small("convnext"))} == {LayerNorm2d}
    assert MODELS["vit"] is ViT


@pytest.mark.parametrize("norm", [name for name in NORMS if name not in {"frn", "evonorm-s0", "grn", "jsbn"}])
def test_a_converted_encoder_of_torch_answers_alike_with_a_graph_and_without(norm):
    """Without a gradient torch computes its layer's norms by their numbers alone, whatever they are."""
    torch.manual_seed(0)
    model = nw.convert(Encoder().eval(), norm)
    model = with_known_statistics(model, [Batch(pictures(), torch.zeros(8).long(), torch.arange(8))])
    with torch.no_grad():
        plain = model(pictures())
    torch.testing.assert_close(plain, model(pictures()), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norm", ["rmsnorm", "dyt"])
def test_a_converted_encoder_of_torch_answers_alike_after_it_was_saved(norm, tmp_path):
    model = nw.convert(Encoder().eval(), norm)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.rand(p.shape, generator=nw.generator(0)))
    where = f"{__name__}:Encoder"
    save(model, tmp_path, {"start": where, "norm": None, "converted": [norm]})
    found = nw.load(where, tmp_path / "model.safetensors").model
    with torch.no_grad():
        assert torch.equal(found(pictures()), model(pictures()))
        torch.testing.assert_close(pickle.loads(pickle.dumps(model))(pictures()), model(pictures()))
    torch.testing.assert_close(found(pictures()), model(pictures()), rtol=1e-4, atol=1e-5)


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.tokens = nn.Conv2d(3, 32, 2, 2)
        layer = nn.TransformerEncoderLayer(32, 2, 16, dropout=0.0, batch_first=True)
        self.encoder, self.head = nn.TransformerEncoder(layer, 2), nn.Linear(32, 3)

    def forward(self, x):
        return self.head(self.encoder(self.tokens(x).flatten(2).transpose(1, 2)).mean(1))
