"""Acting encodes each frame once, and the cache never shows in what is done."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from glamkit.config import OptimizerConfig, preset
from glamkit.models.actor_critic import ActorCritic
from glamkit.models.agent import Agent, RecentSteps
from glamkit.models.networks import Encoder
from glamkit.models.world_model import WorldModel
from glamkit.training.accelerate import accelerate
from glamkit.training.updates import adam

CPU, ACTIONS, GAMES, STEPS = torch.device("cpu"), 3, 4, 20


def made(off: set[str], acting: str = "posterior") -> tuple[Agent, list[int]]:
    """An accelerated agent, and a list that gets the number of frames of each call of its first convolution."""
    torch.manual_seed(0)
    config = preset("debug", {"agent.acting": acting})
    world_model = WorldModel(config.world_model, ACTIONS)
    agent = Agent(config.agent, world_model, ActorCritic(config.actor_critic, world_model.features, ACTIONS)).eval()
    accelerate(agent, CPU, off)
    counts: list[int] = []
    world_model.encoder[0].register_forward_hook(lambda _module, _inputs, output: counts.append(len(output)))
    return agent, counts


def played(agent: Agent, change: Callable[[Encoder], object] = lambda _: None, at: int = STEPS) -> list[Tensor]:
    """The actions of games whose frames are drawn anew at each step; before step `at` something is changed."""
    torch.manual_seed(1)
    drawn, past, chosen = np.random.default_rng(1), RecentSteps(agent.config, GAMES, 32, CPU), []
    for step in range(STEPS):
        if step == at:
            change(agent.world_model.encoder)
        frames = drawn.integers(0, 256, (GAMES, 32, 32, 3), np.uint8)
        chosen.append(agent.act(frames, past))
        past.add(frames, chosen[-1], np.zeros(GAMES, bool))
    return chosen


@pytest.mark.parametrize(("acting", "whole"), [("posterior", 1), ("prior", 0)])
def test_each_frame_is_encoded_once(acting: str, whole: int) -> None:
    agent, counts = made(set(), acting)
    cached = played(agent)
    assert len(cached) == STEPS
    # The first action is random. The past's frames are known from when they were the present, if that was looked at.
    assert counts[1:] == [GAMES] * len(counts[1:]) and len(counts) == STEPS - 1 + whole
    plain, every = made({"embedding_cache"}, acting)
    assert all(map(torch.equal, cached, played(plain))), "the same actions, to the bit"
    assert sum(every) > 4 * sum(counts)


def stepped(encoder: Encoder) -> None:
    """One step of the optimiser, as training does it."""
    weights = list(encoder.parameters())
    for weight in weights:
        weight.grad = torch.randn_like(weight)
    adam(encoder, OptimizerConfig(learning_rate=0.01)).step()


def loaded(encoder: Encoder) -> None:
    encoder.load_state_dict({name: value * 1.5 for name, value in encoder.state_dict().items()})


def measured(encoder: Encoder) -> None:
    """New averages in BatchNorm alone."""
    encoder.train()
    with torch.no_grad():
        encoder(torch.rand(8, 3, 32, 32))
    encoder.eval()


def replaced(encoder: Encoder) -> None:
    encoder[0].weight = torch.nn.Parameter(encoder[0].weight.detach() * 1.5)


@pytest.mark.parametrize("change", [stepped, loaded, measured, replaced])
def test_other_weights_are_other_embeddings(change: Callable[[Encoder], None]) -> None:
    agent, counts = made(set())
    played(agent, change, at=STEPS - 1)
    assert counts[-2] > GAMES and counts[-1] == GAMES, "the whole past, and the present frames"
    frames = torch.randint(256, (5, 3, 32, 32), dtype=torch.uint8)
    encoder = agent.world_model.encoder
    with torch.no_grad():
        before, again = encoder(frames), encoder(frames)
        change(encoder)
        after = encoder(frames)
    assert torch.equal(before, again) and not torch.allclose(before, after)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["debug", "laptop", "atari100k"])
def test_an_embedding_is_the_same_whichever_frames_are_encoded_with_it(name: str, precision: torch.dtype) -> None:
    config = preset(name)
    side = config.env.image_size
    encoder = Encoder(config.world_model.channels).eval().to(memory_format=torch.channels_last)
    accelerate(encoder, CPU)
    frames = torch.randint(256, (330, side, side, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    with torch.no_grad(), torch.autocast("cpu", dtype=precision, enabled=precision != torch.float32):
        together = encoder(frames)
        for count in (1, 2, 3, 8, 17, 129):
            encoder.state = ()  # nothing is known
            assert torch.equal(encoder(frames[-count:]), together[-count:]), count


def test_training_pictures_and_many_frames_are_not_kept() -> None:
    encoder = made(set())[0].world_model.encoder
    frames = torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8)
    encoder(frames)
    with torch.no_grad():
        encoder(frames / 255)
        encoder(frames.repeat(300, 1, 1, 1))
    assert not vars(encoder).get("newer"), "gradients, numbers other than bytes, contexts from the replay"
