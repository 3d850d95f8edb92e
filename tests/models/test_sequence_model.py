"""GMamba, LMamba and their sum: causality, what each sees, and memories that re-read or carry."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import Tensor

from glamkit.config import WorldModelConfig
from glamkit.models.sequence_model import Blocks, GMamba, LMamba, SequenceModel
from glamkit.training.accelerate import accelerate

WIDTH, S = 16, 4
WAY = {"accelerated": False}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True, params=["plain", "accelerated"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every test holds for the models as written and for what takes their place."""
    monkeypatch.setitem(WAY, "accelerated", request.param == "accelerated")
    return str(request.param)


def config(blocks: int = 1, window: int = S, modules: Literal["both", "gmamba", "lmamba"] = "both") -> WorldModelConfig:
    return WorldModelConfig(width=WIDTH, state=4, blocks=blocks, window=window, modules=modules)


def lively(module: torch.nn.Module) -> torch.nn.Module:
    """Step sizes and gates as large as training makes them, so that what is far back still shows."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.endswith("dt_proj.bias"):
                parameter.uniform_(-3, 0)
            if name.endswith(("x_proj.weight", "out_proj.weight")):
                parameter.mul_(3)
    if WAY["accelerated"]:
        accelerate(module, torch.device("cpu"))
    return module


def model(blocks: int = 1, window: int = S) -> SequenceModel:
    return lively(SequenceModel(config(blocks, window)))  # type: ignore[return-value]


def changed(tokens: Tensor, place: int) -> Tensor:
    copy = tokens.clone()
    copy[:, place] += torch.randn(WIDTH)
    return copy


def by_hand(model: SequenceModel, tokens: Tensor) -> Tensor:
    """h of the last token from the tokens alone: forward of everything, no memory, no sharing."""
    g = model.gmamba(tokens)[:, -1]
    l = model.lmamba.out(model.lmamba.blocks(tokens[:, -model.lmamba.window :]))[:, -1]  # noqa: E741
    return g + l


@pytest.mark.parametrize("blocks", [1, 2])
def test_hidden_states_start_at_s_and_are_the_sum(blocks: int) -> None:
    net, tokens = model(blocks), torch.randn(2, 10, WIDTH)
    hidden, g = net(tokens)
    assert hidden.shape == g.shape == (2, 10 - S, WIDTH)
    for place, t in enumerate(range(S, 10)):
        assert torch.allclose(hidden[:, place], by_hand(net, tokens[:, : t + 1]), atol=1e-5)
        assert torch.allclose(g[:, place], net.gmamba(tokens[:, : t + 1])[:, -1], atol=1e-5)


@pytest.mark.parametrize("length", [2, S - 1, S, S + 1])
def test_as_many_tokens_as_the_window_or_fewer_have_no_hidden_state(length: int) -> None:
    hidden, g = model()(torch.randn(2, length, WIDTH))
    assert hidden.shape == g.shape == (2, max(length - S, 0), WIDTH)


@pytest.mark.parametrize("blocks", [1, 2])
def test_a_later_token_changes_no_earlier_hidden_state(blocks: int) -> None:
    net, tokens, place = model(blocks), torch.randn(2, 12, WIDTH), 8
    for before, after in zip(net(tokens), net(changed(tokens, place)), strict=True):
        assert torch.equal(before[:, : place - S], after[:, : place - S])
        assert (before[:, place - S :] - after[:, place - S :]).abs().amax((0, 2)).min() > 1e-5


def test_gmamba_is_causal_and_sees_everything_before() -> None:
    net, tokens = lively(GMamba(config())), torch.randn(1, 12, WIDTH)
    before = net(tokens)
    for place in range(12):
        moved = (net(changed(tokens, place)) - before).abs().amax((0, 2)) > 0
        first = max(place - 1, 0)  # d_t is at index t - 1
        assert not moved[:first].any()
        assert moved[first:].all()


def test_gmamba_reads_differences_only() -> None:
    net, tokens = lively(GMamba(config())), torch.randn(2, 8, WIDTH)
    assert torch.allclose(net(tokens + torch.randn(WIDTH)), net(tokens), atol=1e-4)
    assert not torch.allclose(net(2 * tokens), net(tokens), atol=1e-2)


@pytest.mark.parametrize("blocks", [1, 2])
@pytest.mark.parametrize("window", [1, 3, 4])
def test_lmamba_sees_exactly_s_tokens(window: int, blocks: int) -> None:
    net, tokens = lively(LMamba(config(blocks, window))), torch.randn(1, 9, WIDTH)
    before = net(tokens)
    assert before.shape == (1, 9 - window + 1, WIDTH)
    for place in range(9):
        moved = (net(changed(tokens, place)) - before).abs().amax((0, 2)) > 0
        seen = [place - window + 1 <= first <= place for first in range(len(moved))]  # window first .. first + S - 1
        assert moved.tolist() == seen


def test_stacked_blocks_read_each_other() -> None:
    stack, x = lively(Blocks(config(blocks=3))), torch.randn(2, 7, WIDTH)
    y = x
    for block in stack:  # type: ignore[attr-defined]
        y = y + block.mixer(block.norm(y))
    assert torch.allclose(stack(x), y, atol=1e-6)
    final = stack[-1]  # type: ignore[index]
    assert not torch.allclose(stack(x), x + final.mixer(final.norm(x)), atol=1e-2)  # re-reading the input


@pytest.mark.parametrize("part", ["gmamba", "lmamba"])
def test_gradients_reach_the_first_of_two_blocks(part: str) -> None:
    net = model(2)
    hidden, _ = net(torch.randn(2, 10, WIDTH))
    hidden.square().sum().backward()
    for block in getattr(net, part).blocks:
        assert all(p.grad is not None and p.grad.abs().max() > 0 for p in block.parameters())


@pytest.mark.parametrize("blocks", [1, 2])
@pytest.mark.parametrize("length", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("window", [S, 6])
def test_window_memory_is_re_reading_at_every_step(window: int, length: int, blocks: int) -> None:
    net, tokens = model(blocks, window), torch.randn(3, length + 9, WIDTH)
    memory = net.memory(tokens[:, :length], "window")
    assert torch.allclose(memory.hidden, by_hand(net, tokens[:, :length]), atol=1e-5)
    for end in range(length + 1, length + 10):
        hidden = memory.read(tokens[:, end - 1])
        assert torch.allclose(hidden, by_hand(net, tokens[:, end - length : end]), atol=1e-5)
        assert torch.equal(hidden, memory.hidden)
        g = net.gmamba(tokens[:, end - length : end])[:, -1]
        assert torch.allclose(memory.variation, g, atol=1e-5)


@pytest.mark.parametrize("blocks", [1, 2])
@pytest.mark.parametrize("length", [1, 2, 8])
def test_recurrent_memory_is_a_window_that_holds_everything(length: int, blocks: int) -> None:
    net, tokens = model(blocks), torch.randn(3, 14, WIDTH)
    memory = net.memory(tokens[:, :length], "recurrent")
    for end in range(length, 15):
        everything = net.memory(tokens[:, :end], "window")
        assert torch.allclose(memory.hidden, everything.hidden, atol=1e-4)
        assert torch.allclose(memory.variation, everything.variation, atol=1e-4)
        if end < 14:
            memory.read(tokens[:, end])


@pytest.mark.parametrize("kind", ["window", "recurrent"])
def test_memories_continue_what_training_saw(kind: str) -> None:
    net, tokens = model(), torch.randn(3, 12, WIDTH)
    hidden, g = net(tokens)
    memory = net.memory(tokens, kind)
    assert torch.allclose(memory.hidden, hidden[:, -1], atol=1e-5)
    assert torch.allclose(memory.variation, g[:, -1], atol=1e-5)


def test_the_two_memories_differ_when_the_window_slides() -> None:
    net, tokens = model(), torch.randn(3, 12, WIDTH)
    memories = [net.memory(tokens[:, :4], kind) for kind in ("window", "recurrent")]
    for token in tokens[:, 4:].unbind(1):
        hidden = [memory.read(token) for memory in memories]
    assert (hidden[0] - hidden[1]).abs().max() > 1e-5


@pytest.mark.parametrize("length", [2, 3])
def test_short_contexts_use_all_their_tokens(length: int) -> None:
    net, tokens = model(), torch.randn(1, length, WIDTH)
    before = net.memory(tokens).hidden
    for place in range(length):
        assert not torch.equal(net.memory(changed(tokens, place)).hidden, before)


@pytest.mark.parametrize("modules", ["gmamba", "lmamba"])
def test_one_module_alone_is_the_hidden_state(modules: Literal["gmamba", "lmamba"]) -> None:
    net, tokens = lively(SequenceModel(config(modules=modules))), torch.randn(2, 10, WIDTH)
    hidden, g = net(tokens)
    local = net.lmamba(tokens)[:, 1:]
    assert torch.equal(g, net.gmamba(tokens)[:, S - 1 :])
    assert torch.equal(hidden, g if modules == "gmamba" else local)
    assert not torch.allclose(g, local, atol=1e-2)
    windows = (tokens[:, t - 6 : t + 1] for t in range(6, 10))
    alone = torch.stack([net.gmamba(w)[:, -1] if modules == "gmamba" else net.lmamba(w)[:, -1] for w in windows], 1)
    for kind, expected in (("window", alone), ("recurrent", hidden[:, 2:])):
        memory = net.memory(tokens[:, :7], kind)
        states = [memory.hidden, *(memory.read(token) for token in tokens[:, 7:].unbind(1))]
        assert torch.allclose(torch.stack(states, 1), expected, atol=1e-5), kind


@pytest.mark.parametrize("modules", ["gmamba", "lmamba"])
def test_what_the_hidden_state_leaves_out_does_not_train_it(modules: Literal["gmamba", "lmamba"]) -> None:
    net = lively(SequenceModel(config(modules=modules)))
    net(torch.randn(2, 10, WIDTH))[0].square().sum().backward()
    gradients = {part: [p.grad for p in getattr(net, part).parameters()] for part in ("gmamba", "lmamba")}
    left_out = "lmamba" if modules == "gmamba" else "gmamba"
    assert all(gradient is None for gradient in gradients[left_out])
    assert all(gradient is not None and gradient.abs().max() > 0 for gradient in gradients[modules])
