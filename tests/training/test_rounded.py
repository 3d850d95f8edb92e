"""A twin with rounded weights does what autocast does, and follows the original."""

from __future__ import annotations

import copy

import torch
from torch import nn

from glamkit.training.accelerate.rounded import Rounded


def made() -> nn.ModuleDict:
    torch.manual_seed(0)
    layers = {"stem": nn.Linear(5, 7), "head": nn.Sequential(nn.Linear(7, 9), nn.LayerNorm(9), nn.Linear(9, 3))}
    return nn.ModuleDict(layers)


def run(net: nn.ModuleDict, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        early = net["stem"](x)
        with torch.autocast("cpu", torch.bfloat16):
            return net["head"](early)


def test_the_twin_gives_the_same_bits_and_follows() -> None:
    net, x = made(), torch.randn(11, 5)
    before = copy.deepcopy(net.state_dict())
    rounded = Rounded(net, torch.bfloat16, [net["stem"]])
    assert torch.equal(run(rounded.renewed(), x), run(net, x))
    first = run(net, x)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    assert not torch.equal(run(net, x), first)
    assert not torch.equal(run(rounded.twin, x), run(net, x))
    assert torch.equal(run(rounded.renewed(), x), run(net, x))
    assert all(not torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_only_what_is_rounded_is_held_twice() -> None:
    net = made()
    rounded = Rounded(net, torch.bfloat16, [net["stem"]])
    own, other = dict(net.named_parameters()), dict(rounded.twin.named_parameters())
    shared = {name for name in own if other[name] is own[name]}
    assert shared == {"stem.weight", "stem.bias", "head.1.weight", "head.1.bias"}
    assert all(other[name].dtype == torch.bfloat16 for name in own.keys() - shared)
    assert all(parameter.dtype == torch.float32 and parameter.requires_grad for parameter in net.parameters())


def test_in_float32_the_twin_is_the_module() -> None:
    net = made()
    assert Rounded(net, torch.float32, [net["stem"]]).renewed() is net
