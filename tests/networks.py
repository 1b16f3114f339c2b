"""Small networks of the kinds that people bring, each by a function without arguments; all answer 3 classes, to 3 x 8 x 6 images or to clips.

`KINDS` says of each what is to be expected of it: that it is judged right, or refused in one line. Importable as `networks:NAME`.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune

from normwise.seeding import generator
from toys import CLIP, filmed

SHAPE, CLASSES = (3, 8, 6), 3  # a picture that is not square


def images(rows: int = 12, seed: int = 0, shape: tuple[int, ...] = SHAPE) -> Tensor:
    return torch.rand(rows, *shape, generator=generator(seed, "kinds"))


class Kind(NamedTuple):
    """A kind of network. `refused`: how the one line begins or goes on, where it cannot be asked at all.

    `refuses`: the surgery that it refuses, by its names in test_networks; `may_refuse`: that which it refuses where torch has compiled it,
    and not where torch has given up and runs it as it is. `blind`: no gradient reaches the pixels; `coupled`: its
    rows depend on each other; `apart`: how much logits may differ after surgery that leaves the function, relative to the largest.
    `shape`: that of what it reads.
    """

    make: Callable[[], nn.Module]
    refused: str = ""
    refuses: tuple[str, ...] = ()
    may_refuse: tuple[str, ...] = ()
    blind: bool = False
    coupled: bool = False
    apart: float = 1e-4
    shape: tuple[int, ...] = SHAPE


KINDS: dict[str, Kind] = {}
SEALED = ("bn", "sync", "affine", "share", "insert", "gn", "rnt", "recalibrate", "head", "abnn", "alone")  # no layer is seen
WITHOUT_NORMS = ("bn", "affine", "share", "gn", "rnt", "recalibrate")
WITHOUT_STATISTICS = ("bn", "share", "recalibrate")
OF_ITS_OWN = ("bn", "sync", "share", "gn", "rnt")  # norms that do more than their class
FEW = (  # what makes kinds differ, once each
    "plain",
    "subtracts_in_place",
    "bfloat16",
    "float64_far_from_zero",
    "a_norm_that_activates",
    "scripted",
    "quantized",
    "pruned",
    "a_hook_that_answers",
    "a_dict",
    "functional_norms",
    "statistics_of_the_batch",
    "vision_transformer",
    "clips",
)


def kind(**options: Any) -> Callable[[Callable[[], nn.Module]], Callable[[], nn.Module]]:
    def keep(make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
        def made() -> nn.Module:
            with torch.random.fork_rng(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch's own, of jit, quantization and older weight norms
                torch.manual_seed(1)
                return make()

        KINDS[make.__name__] = Kind(made, **options)
        return made

    return keep


class Plain(nn.Module):
    """Two convolutions with norms, a pool, a linear layer."""

    def __init__(self, norm: Callable[[int], nn.Module] = nn.BatchNorm2d) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 8, 3, padding=1), norm(8)
        self.conv2, self.norm2 = nn.Conv2d(8, 8, 3, padding=1), norm(8)
        self.linear = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Any:
        y = self.norm1(self.conv1(x)).relu()
        y = self.norm2(self.conv2(y)).relu()
        return self.linear(y.mean((2, 3)))


def settled(model: nn.Module) -> Any:
    """The model in evaluation mode, its running statistics those of images, its classes about as frequent as each other."""
    model.train()
    with torch.no_grad():
        for seed in range(10):
            model(images(32, seed + 1))
        model.eval()
        if isinstance(getattr(model, "linear", None), nn.Linear):
            model.linear.weight.mul_(20)
            answer = model(images(48))
            logits = (
                answer if isinstance(answer, Tensor) else Tensor(answer["logits"]) if isinstance(answer, dict) else answer[0]
            )
            model.linear.bias.sub_(logits.mean(0).to(model.linear.bias))
    return model


@kind()
def plain():
    return settled(Plain())


# what writes into its input


class Subtracts(Plain):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x.sub_(0.5).div_(0.25))


@kind()
def subtracts_in_place():
    return settled(Subtracts())


class Rounds(Plain):
    def forward(self, x: Tensor) -> Any:
        with torch.no_grad():
            x.mul_(255).round_().div_(255)
        return super().forward(x)


@kind()
def rounds_in_place():
    return settled(Rounds())


class Draws(Plain):
    def forward(self, x: Tensor) -> Any:
        x[:, :, 0] = 0.5
        return super().forward(x)


@kind()
def writes_a_row_of_pixels():
    return settled(Draws())


@kind()
def relu_in_place_first():
    return nn.Sequential(nn.ReLU(inplace=True), plain())


# dtypes


class Casts(nn.Module):
    """Computes in another dtype, and answers in it."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.inner, self.dtype = plain().to(dtype), dtype

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.to(self.dtype))


@kind()
def float64():
    return Casts(torch.float64)


@kind(apart=0.3)
def bfloat16():
    return Casts(torch.bfloat16)


@kind(apart=0.01)
def float16():
    return Casts(torch.float16)


class Far(nn.Module):
    """Logits in float64 that differ far behind the digits that float32 has."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Casts(torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) + 1e12


@kind()
def float64_far_from_zero():
    return Far()


class Autocasts(Plain):
    def forward(self, x: Tensor) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return super().forward(x)


@kind(apart=0.3)
def autocast_inside():
    return settled(Autocasts())


@kind(refused="cannot take images")
def all_of_bfloat16():
    return plain().bfloat16()


# shared and tied


class Tied(Plain):
    def forward(self, x: Tensor) -> Any:
        y = self.norm1(self.conv1(x)).relu()
        y = self.norm2(self.conv2(y)).relu()
        y = self.norm2(self.conv2(y)).relu()
        return self.linear(y.mean((2, 3)))


@kind(refuses=("abnn",))
def one_layer_twice():
    return settled(Tied())


@kind()
def one_weight_in_two_layers():
    model = Plain()
    model.conv3 = nn.Conv2d(8, 8, 3, padding=1)
    model.conv3.weight = model.conv2.weight
    model.norm2 = nn.Sequential(model.conv3, model.norm2)
    return settled(model)


class ByName(Plain):
    def forward(self, x: Tensor) -> Any:
        y = self.norm1(self.conv1(x))
        back = F.conv_transpose2d(y, self.conv1.weight, padding=1)
        y = self.norm2(self.conv2(y.relu())).relu()
        return self.linear(y.mean((2, 3))) + back.mean((2, 3))


@kind()
def a_weight_read_by_name():
    return settled(ByName())


# subclassed


class Activated(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).relu()


@kind(refuses=OF_ITS_OWN)
def a_norm_that_activates():
    return settled(Plain(Activated))


class Standardized(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        w = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, w / w.std((1, 2, 3), keepdim=True), self.bias, padding=1)


@kind()
def a_convolution_that_standardizes():
    model = Plain()
    model.conv1 = Standardized(3, 8, 3)
    return settled(model)


class Skips(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + x.mean((2, 3))


@kind()
def a_sequence_of_its_own_kind():
    return Skips(plain())


class Split(nn.BatchNorm2d):
    """As timm's SplitBatchNorm2d: norms within a norm."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.aux = nn.ModuleList([nn.BatchNorm2d(channels)])

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        first, second = x.chunk(2)
        return torch.cat([super().forward(first), self.aux[0](second)])


@kind(refuses=OF_ITS_OWN)
def a_norm_within_a_norm():
    return settled(Plain(Split))


# not yet, or no longer, plain modules


@kind(refuses=("insert", "abnn", "alone"))
def lazy_and_known():
    model = nn.Sequential(
        nn.LazyConv2d(8, 3), nn.LazyBatchNorm2d(), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(3)
    )
    return settled(model)


@kind(refused="lazy")
def lazy_and_unknown():
    return nn.Sequential(nn.LazyConv2d(8, 3), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(3))


def by_script(make):
    """torch knows its own functions by their `id`, and may take a list at the address of one that is gone for it: then once more."""
    kept = [make()]
    for _ in range(3):
        try:
            return torch.jit.script(kept[-1])
        except RuntimeError as error:
            if "builtin cannot be used as a value" not in str(error):
                raise
            kept.append(make())
    return torch.jit.script(kept[-1])


@kind(refuses=SEALED)
def scripted():
    return by_script(plain)


@kind(refuses=SEALED)
def traced():
    return torch.jit.trace(plain(), images(2))


@kind(refuses=SEALED)
def scripted_and_frozen():
    return torch.jit.freeze(by_script(plain))


@kind(refuses=SEALED)
def exported():
    batch = torch.export.Dim("batch")
    return torch.export.export(plain(), (images(4),), dynamic_shapes=({0: batch},)).module()


@kind(refuses=("insert",), may_refuse=("abnn", "alone"))
def compiled_eagerly():
    return torch.compile(plain(), backend="eager")


@kind(apart=1e-3, refuses=("bn", "share", "insert", "gn", "recalibrate", "abnn", "alone"))
def compiled_ahead_of_time():
    return torch.compile(settled(ViT()), backend="aot_eager")


@kind(blind=True, coupled=True, apart=0.02, refuses=("head",))
def quantized():
    """The scale of the features is the batch's: who else is in it decides how they are rounded."""
    return torch.ao.quantization.quantize_dynamic(plain(), {nn.Linear}, torch.qint8)


class Int8(Plain):
    """Weights and features on a grid of 8 bits, as quantized networks have them; rounding has no gradient."""

    def forward(self, x: Tensor) -> Any:
        return super().forward((x * 255).round() / 255)


@kind(blind=True)
def rounded_pixels():
    return settled(Int8())


@kind()
def pruned():
    model = settled(Plain())
    prune.l1_unstructured(model.conv1, "weight", 0.3)
    model(images(2))
    return model


@kind()
def weight_norm_of_old():
    model = Plain()
    nn.utils.weight_norm(model.conv1)
    return settled(model)


@kind()
def spectral_norm_of_old():
    model = Plain()
    nn.utils.spectral_norm(model.conv1)
    return settled(model)


@kind()
def weight_norm_parametrized():
    model = Plain()
    parametrizations.weight_norm(model.conv1)
    return settled(model)


@kind()
def spectral_norm_parametrized():
    model = Plain()
    parametrizations.spectral_norm(model.conv1)
    return settled(model)


@kind()
def data_parallel():
    return nn.DataParallel(plain())


# hooks


@kind()
def a_hook_that_answers():
    model = plain()
    model.conv2.register_forward_hook(lambda module, args, y: 2 * y)
    return model


@kind()
def a_hook_before():
    model = plain()
    model.register_forward_pre_hook(lambda module, args: (1 - args[0],))
    return model


@kind()
def a_hook_that_remembers():
    model, model_seen = plain(), []
    model.seen = model_seen
    model.conv2.register_forward_hook(
        lambda module, args, y: model_seen.append(y) or model_seen.__delitem__(slice(None, -1))
    )
    model(images(2))
    return model


class Keeps(Plain):
    """Keeps its last features, as networks do that are looked into afterwards."""

    def forward(self, x: Tensor) -> Any:
        self.features = self.norm2(self.conv2(self.norm1(self.conv1(x)).relu())).relu()
        return self.linear(self.features.mean((2, 3)))


@kind()
def keeps_its_features():
    return settled(Keeps())


# what it answers


class Answers(nn.Module):
    def __init__(self, inner: nn.Module, form: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.inner, self.form = inner, form

    def forward(self, x: Tensor) -> Any:
        return self.form(self.inner(x))


@dataclasses.dataclass
class Output:
    logits: Tensor
    hidden: Any = None


class Named(NamedTuple):
    logits: Tensor
    aux: Tensor


def _dict(y: Tensor) -> Any:
    return {"features": y.repeat(1, 2), "logits": y}


def _one_entry(y: Tensor) -> Any:
    return {"out": y}


def _pair(y: Tensor) -> Any:
    return y, y.square().mean(1)


def _features_first(y: Tensor) -> Any:
    return y.repeat(1, 2), y


def _list(y: Tensor) -> Any:
    return [y]


def _features_and_lists(y: Tensor) -> Any:
    return torch.zeros(len(y), 64), [y]


def _features_and_dicts(y: Tensor) -> Any:
    return torch.zeros(len(y), 64), {"heads": {"first": (y,)}}


def _list_of_lists(y: Tensor) -> Any:
    return ([y],)


def _pair_with_feature_maps(y: Tensor) -> Any:
    return y, [torch.zeros(len(y), 4, 2, 2)], None


def _named(y: Tensor) -> Any:
    return Named(y, y.sum())


def _words(y: Tensor) -> Any:
    return {"a": y, "b": y}


def _one_logit(y: Tensor) -> Any:
    return y[:, :1]


def _flat(y: Tensor) -> Any:
    return y[:, 0]


def _classes(y: Tensor) -> Any:
    return y.argmax(1)


for _name, _form, _refused in (
    ("a_dict", _dict, ""),
    ("a_dict_of_one", _one_entry, ""),
    ("a_pair", _pair, ""),
    ("features_and_logits", _features_first, "2 of whose entries may be them"),
    ("features_and_a_list", _features_and_lists, "2 of whose entries may be them"),
    ("features_and_a_dict", _features_and_dicts, "2 of whose entries may be them"),
    ("a_list_of_lists", _list_of_lists, "names no logits"),
    ("logits_and_feature_maps", _pair_with_feature_maps, ""),
    ("a_list", _list, ""),
    ("a_dataclass", Output, ""),
    ("a_named_tuple", _named, ""),
    ("a_dict_of_two", _words, "names no logits"),
    ("one_logit", _one_logit, "two classes or more"),
    ("no_classes", _flat, r"expected logits of shape \(b, classes\)"),
    ("answers_of_classes", _classes, r"expected logits of shape \(b, classes\)"),
):

    def _make(form: Any = _form) -> nn.Module:
        return Answers(plain(), form)

    _make.__name__ = _name
    globals()[_name] = kind(refused=_refused)(_make)


# norms of other kinds


class Functional(Plain):
    def __init__(self) -> None:
        super().__init__(lambda channels: nn.Identity())
        self.register_buffer("mean", torch.full((8,), 0.1))
        self.register_buffer("var", torch.full((8,), 0.5))

    def forward(self, x: Tensor) -> Any:
        y = F.batch_norm(self.conv1(x), self.mean, self.var).relu()
        y = F.layer_norm(self.conv2(y), y.shape[1:]).relu()
        return self.linear(y.mean((2, 3)))


@kind(refuses=WITHOUT_NORMS)
def functional_norms():
    return settled(Functional())


class LayerNorm2d(nn.LayerNorm):
    """ConvNeXt's: over channels, which come first."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


@kind(refuses=WITHOUT_STATISTICS)
def layernorm_of_channels():
    return settled(Plain(LayerNorm2d))


class RMS(nn.RMSNorm):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


@kind(refuses=("bn", "share", "gn", "rnt", "recalibrate"))
def rmsnorm_of_channels():
    return settled(Plain(RMS))


@kind(refuses=WITHOUT_NORMS)
def no_norm():
    return settled(Plain(lambda channels: nn.Identity()))


@kind()
def momentum_of_none():
    return settled(Plain(lambda channels: nn.BatchNorm2d(channels, momentum=None)))


@kind(coupled=True, refuses=WITHOUT_STATISTICS)
def statistics_of_the_batch():
    return settled(Plain(lambda channels: nn.BatchNorm2d(channels, track_running_stats=False)))


@kind()
def tracking_switched_off():
    """torch reads running statistics in evaluation wherever a layer has them, whatever the switch says."""
    model = settled(Plain())
    model.norm1.track_running_stats = model.norm2.track_running_stats = False
    return model


@kind()
def buffers_that_are_not_saved():
    model = Plain()
    for norm in (model.norm1, model.norm2):
        for name, buffer in list(norm._buffers.items()):
            norm.register_buffer(name, buffer, persistent=False)
    return settled(model)


@kind(refuses=("share",))
def instance_norm():
    return settled(Plain(lambda channels: nn.InstanceNorm2d(channels, affine=True, track_running_stats=True)))


class ViT(nn.Module):
    """Patches, a class token, two encoder layers: torch's own have another way in evaluation without gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.token = nn.Conv2d(3, 12, 2, 2), nn.Parameter(torch.randn(1, 1, 12))
        layer = nn.TransformerEncoderLayer(12, 2, 24, dropout=0.1, batch_first=True)
        self.layers, self.linear = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Any:
        y = self.patches(x).flatten(2).transpose(1, 2)
        return self.linear(self.layers(torch.cat([self.token.expand(len(y), -1, -1), y], 1))[:, 0])


@kind(apart=1e-3, refuses=("bn", "share", "gn", "recalibrate", "abnn", "alone"))
def vision_transformer():
    return settled(ViT())


# what reads clips


@kind(shape=CLIP, refuses=("gn",))
def clips():
    return filmed()


# ways of their own


class Silent(Plain):
    def train(self, mode=True):
        super().train(mode)

    def eval(self):
        super().train(False)

    def to(self, *args, **options):
        super().to(*args, **options)

    def requires_grad_(self, asked=True):
        super().requires_grad_(asked)


@kind()
def methods_that_return_nothing():
    return settled(Silent())


class Locked(Plain):
    """Holds what cannot be copied."""

    def __init__(self) -> None:
        super().__init__()
        self.lines = (line for line in "abc")


@kind(refuses=(*SEALED, "fold", "straight"))
def holds_what_cannot_be_copied():
    return settled(Locked())


class Checkpointed(Plain):
    def forward(self, x: Tensor) -> Any:
        from torch.utils.checkpoint import checkpoint

        return self.linear(checkpoint(self.features, x, use_reentrant=False))

    def features(self, x: Tensor) -> Tensor:
        return self.norm2(self.conv2(self.norm1(self.conv1(x)).relu())).relu().mean((2, 3))


@kind()
def checkpointed():
    return settled(Checkpointed())


class Branches(Plain):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x if float(x.detach().mean()) > -1 else 0 * x)


@kind()
def control_flow():
    return settled(Branches())


class Frequencies(Plain):
    def forward(self, x: Tensor) -> Any:
        return super().forward(torch.fft.ifft2(torch.fft.fft2(x)).real)


@kind()
def fourier():
    return settled(Frequencies())


class Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.sign()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


class Custom(Plain):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x + 0.01 * Step.apply(x - 0.5))


@kind()
def a_gradient_of_its_own():
    return settled(Custom())


class Options(Plain):
    def forward(self, x: Tensor, scale: float = 1.0, **more: Any) -> Any:
        return scale * super().forward(x)


@kind()
def more_arguments():
    return settled(Options())
