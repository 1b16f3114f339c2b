"""What every diagnosis promises, for networks with every norm, with none, and of anybody's."""

import dataclasses
import json
import math

import pytest
import torch
from torch import nn

from normwise.diagnostics import DIAGNOSES, Diagnosis, Table
from normwise.diagnostics.run import diagnose
from normwise.norms import NORMS, DyT
from normwise.records import to_json
from normwise.seeding import generator
from normwise.threats import L2, Linf, Patch
from normwise.utils.model_state import digest
from toys import CLIP, ChannelsFirst, Linear, Small, batches, filmed, images, some, trained

PARTS = batches(1, 5)
FEW = {"steps": 2, "cells": 3}


def few(kind):
    """The diagnosis with its own settings, but few steps."""
    options = {}
    for field in dataclasses.fields(kind):
        if field.name in FEW:
            options[field.name] = (1, 2) if isinstance(field.default, tuple) else FEW[field.name]
    return kind(**options)


class Tokens(nn.Module):
    """LayerNorm over the last axis, as in a transformer, and another norm that is called twice."""

    def __init__(self):
        super().__init__()
        self.embed, self.norm, self.head = nn.Linear(12, 8), nn.LayerNorm(8), nn.Linear(8, 3)
        self.twice = nn.BatchNorm1d(6)

    def forward(self, x):
        y = self.norm(self.embed(x.flatten(2).reshape(len(x), 6, 12))).relu()
        return self.head(self.twice(self.twice(y)).mean(1))


class Unused(Small):
    """A norm layer that the network never calls, and one without a scale."""

    def __init__(self):
        super().__init__()
        self.norm, self.unused = nn.BatchNorm2d(8, affine=False), nn.BatchNorm2d(8)


class Squares(nn.Module):
    """Norms whose channels lie where their class does not say, on pictures with as many rows and columns as channels."""

    def __init__(self, norm=ChannelsFirst):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(2, 6, 3, padding=1), norm(6), nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.norm(self.conv(x)).mean((2, 3)))


class Called(Small):
    """Calls its norm by the name of the input."""

    def forward(self, x):
        return self.linear(self.norm(input=self.conv1(x)).relu().mean((2, 3)))


class Functions(Small):
    """Normalizes by a function."""

    def __init__(self):
        super().__init__()
        self.norm = nn.Identity()

    def forward(self, x):
        return self.linear(nn.functional.group_norm(self.conv1(x), 2).relu().mean((2, 3)))


class OwnNorm(nn.Module):
    """A norm of a kind that nobody knows, by its name alone."""

    def __init__(self, channels):
        super().__init__()

    def forward(self, x):
        return x / (1 + x.square().mean(1, keepdim=True))


def seeded(make):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make().eval()


NETS = {name: lambda norm=norm: trained(norm()) for name, norm in NORMS.items()} | {
    "nn.BatchNorm2d": trained,
    "tokens": lambda: seeded(Tokens),
    "unused": lambda: seeded(Unused),
    "no site": lambda: Linear((2, 6, 6)),
    "channels first": lambda: seeded(Squares),
    "called by name": lambda: seeded(Called),
    "functions": lambda: seeded(Functions),
    "unknown": lambda: seeded(lambda: Squares(OwnNorm)),
    "clips": filmed,
}
HIDDEN = {
    "no site": "the network normalizes nowhere",
    "functions": "the network normalizes by functions, or in compiled layers: there is no norm layer to measure",
    "unknown": "not measured, because these layers cannot be read: norm (OwnNorm)",
}


@pytest.fixture(params=DIAGNOSES, ids=str)
def diagnosis(request):
    return few(DIAGNOSES[request.param])


@pytest.mark.parametrize("net", some(NETS, "bn", "rn", "mbn", *(name for name in NETS if name not in NORMS)))
def test_figures_are_plain_and_the_network_is_left_as_it_was(diagnosis, net):
    assert isinstance(diagnosis, Diagnosis)
    model = NETS[net]()
    for p in model.parameters():
        p.grad = torch.full_like(p, 7.0)
    list(model.train().modules())[-1].eval()  # modes come back one by one
    before, modes, random = digest(model), [m.training for m in model.modules()], torch.random.get_rng_state()
    buffers = {name: id(buffer) for name, buffer in model.named_buffers()}
    parts = [part._replace(y=part.y % 2) for part in PARTS] if net == "no site" else PARTS
    parts = [part._replace(x=images(5, CLIP)) for part in PARTS] if net == "clips" else parts
    table = diagnosis(model, parts, Linf(eps=0.1), generator=generator(0))
    assert (digest(model), [m.training for m in model.modules()]) == (before, modes)
    assert {name: id(buffer) for name, buffer in model.named_buffers()} == buffers
    assert all((p.grad == 7).all() for p in model.parameters())
    assert torch.equal(torch.random.get_rng_state(), random)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert table == diagnosis(model.eval(), parts, Linf(eps=0.1), generator=generator(0))
    assert len(table.columns) == len(table.units) == len(set(table.columns))
    nothing = diagnosis.nothing if diagnosis.name == "saturation" and net not in ("dyt", "derf") else ""
    assert table.note == (HIDDEN.get(net, "") if diagnosis.of_norms else nothing)
    assert bool(table.rows) != bool(nothing or (diagnosis.of_norms and net in HIDDEN))
    for row in table.rows:
        assert len(row) == len(table.columns)
        for value, unit in zip(row, table.units, strict=True):
            assert value is None or isinstance(value, str) or math.isfinite(value)
            assert not isinstance(value, str) or not unit, "words count nothing"
    assert json.loads(to_json(table))["columns"] == list(table.columns)


def test_hooks_and_modes_come_back_when_the_network_fails(diagnosis):
    class Breaks(Small):
        calls = 0

        def forward(self, x):
            y = super().forward(x)
            self.calls += 1
            if self.calls > 3 or self.norm._forward_hooks or self.norm._forward_pre_hooks:
                raise RuntimeError("broken")
            return y

    model = Breaks(DyT() if diagnosis.name == "saturation" else None).train()
    before, buffers = digest(model), {name: id(b) for name, b in model.named_buffers()}
    with pytest.raises(RuntimeError, match="broken"):
        diagnosis(model, PARTS, Linf(), generator=generator(0))
    assert digest(model) == before
    assert {name: id(b) for name, b in model.named_buffers()} == buffers
    assert all(m.training for m in model.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("threat", [L2(eps=0.5), Linf(eps=0.0), Patch(size=2)], ids=["l2", "radius 0", "patch"])
def test_other_regions_are_measured_or_refused_in_a_line(diagnosis, threat):
    if diagnosis.name == "margins" and threat.name == "patch":
        with pytest.raises(ValueError, match="fmn needs linf, l2 or l1; got patch"):
            diagnosis(trained(), PARTS, threat, generator=generator(0))
        return
    table = diagnosis(trained(DyT()), PARTS, threat, generator=generator(0))
    assert table.rows
    assert all(value is None or isinstance(value, str) or math.isfinite(value) for row in table.rows for value in row)


def test_no_images_are_refused(diagnosis):
    with pytest.raises(ValueError, match=f"{diagnosis.name} needs images"):
        diagnosis(trained(), [], Linf(), generator=generator(0))


def test_one_that_fails_is_named_and_the_others_go_on():
    made = [few(kind) for name, kind in DIAGNOSES.items() if name in ("margins", "gamma")]
    [one] = diagnose({"net": trained()}, PARTS, Patch(size=2), made)
    assert one.tables["margins"] == Table(
        columns=tuple(DIAGNOSES["margins"].columns),
        units=tuple(DIAGNOSES["margins"].columns.values()),
        note="could not be measured: fmn needs linf, l2 or l1; got patch; for patch take loap, patchattack, roa, sparse_rs or universal",
    )
    assert one.tables["gamma"].rows
    assert set(one.seconds) == {"margins", "gamma"}
