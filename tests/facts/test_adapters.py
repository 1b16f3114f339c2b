"""Adapters: routes that share statistics and weights, and soups of their scales and shifts."""

import pytest
import torch
from torch import nn

import normwise as nw
from normwise.auditing.checks import CHECKS, Case
from normwise.models import ViT
from normwise.norms import MBN, Routed, norm_reads, on_route, routed
from normwise.seeding import generator
from normwise.threats import Linf
from normwise.training.recipes import Routes
from normwise.types import Batch, Site
from toys import images, labels

ADAPTERS = MBN(share="statistics", of="layernorm2d")


def network():
    torch.manual_seed(0)
    return ViT(side=6, patch=2, width=16, depth=1, heads=2)(classes=3, mean=(0.5,) * 2, std=(0.2,) * 2).eval()


@pytest.mark.parametrize(("of", "plain"), [("layernorm2d", nn.LayerNorm(8, eps=1e-5)), ("rmsnorm", nn.RMSNorm(8, eps=1e-5))])
def test_a_route_is_the_plain_norm_with_its_own_scale_and_shift(of, plain):
    layer, x = MBN(share="statistics", of=of)(Site(8, axis=-1)), torch.randn(3, 5, 8)
    with torch.no_grad():
        layer.weights.copy_(torch.randn(2, 8))
        layer.biases.copy_(torch.randn(2, 8))
        for route in (0, 1):
            with routed(layer, route):
                torch.testing.assert_close(layer(x), plain(x) * layer.weights[route] + layer.biases[route])
        layer.soup = 0.25
        weight, bias = (0.75 * rows[0] + 0.25 * rows[1] for rows in (layer.weights, layer.biases))
        torch.testing.assert_close(layer(x), plain(x) * weight + bias)


def test_a_soup_gives_way_to_a_route_and_comes_back():
    model = nw.convert(network(), MBN(share="statistics", of="layernorm2d", soup=0.5))
    layer = next(module for module in model.modules() if isinstance(module, Routed))
    with routed(model, 1):
        assert layer.soup is None
    assert layer.soup == 0.5
    assert next(module for module in on_route(model, 0).modules() if isinstance(module, Routed)).soup is None


def test_a_converted_network_is_the_same_on_every_route_until_it_trains():
    plain, x = network(), images(8)
    model = nw.convert(plain, ADAPTERS)
    assert norm_reads(model) == {"sample": 3}
    for route in (0, 1):
        torch.testing.assert_close(on_route(model, route)(x), plain(x))
    recipe = Routes(steps=1)
    trained = recipe.prepare(model).train()
    optimizer = torch.optim.Adam(trained.parameters(), lr=0.01)
    for step in range(3):
        optimizer.zero_grad()
        recipe.loss(trained, x, labels(8), Linf(eps=0.1), generator=generator(0, step)).loss.backward()
        optimizer.step()
    clean, robust = (on_route(trained.eval(), route)(x) for route in (0, 1))
    assert not torch.allclose(clean, robust)
    soup = on_route(trained, 0)
    for module in soup.modules():
        if isinstance(module, Routed):
            module.soup = 1.0
    torch.testing.assert_close(soup(x), robust)


def test_the_audit_looks_at_both_routes_beside_a_soup():
    model, x = nw.convert(network(), MBN(share="statistics", of="layernorm2d", soup=0.5)), images(8)
    case = Case(model, [Batch(x, model(x).argmax(1), torch.arange(8))], Linf(eps=0.1))
    [found] = [check.ask(case) for check in CHECKS if check.name == "every route"]
    assert "route 0" in found.measured
    assert "route 1" in found.measured


@pytest.mark.parametrize("wrong", [{"of": "rmsnorm"}, {"soup": 0.5}, {"soup": 2.0, "share": "statistics"}])
def test_options_that_do_not_go_together_are_refused(wrong):
    with pytest.raises(ValueError, match="soup"):
        MBN(**wrong)(Site(8))
