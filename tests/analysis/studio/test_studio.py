"""A dream goes where its rules say, comes back exactly, and is the dream that the library's other dreams are."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from glamkit.analysis import rollouts
from glamkit.analysis.starts import good_start
from glamkit.analysis.studio import dream_tree
from glamkit.analysis.studio.dream_tree import Rules
from glamkit.analysis.studio.studio import Dream
from glamkit.errors import GlamkitError
from glamkit.training.accelerate import imagination
from glamkit.training.load import LoadedRun, open_run

pytestmark = pytest.mark.usefixtures("no_end")


def copied(run: LoadedRun, folder: Path) -> Path:
    return Path(shutil.copytree(run.run.folder, folder))


def numbers(dream: Dream) -> list[tuple[float, ...]]:
    return [(m.number, m.parent, m.action, m.reward, m.ended, m.value, m.total, *m.policy) for m in dream.nodes]


def sampled(run: LoadedRun, start: int = 40, seed: int = 0) -> Dream:
    return Dream(run, start, seed, rules=Rules(latents="sampled", temperature=3.0))


def test_it_begins_at_a_good_start_by_itself(run: LoadedRun) -> None:
    assert Dream(run).start == good_start(run).step
    assert Dream(run, context=20).start == good_start(run, 20).step


@pytest.mark.parametrize("memory", ["window", "recurrent"])
def test_with_the_recorded_actions_it_is_the_dream_beside_the_truth(run: LoadedRun, memory: str) -> None:
    config = run.config.override({"imagination.memory": memory})
    expected = rollouts.dream(run._replace(config=config), 40 - config.imagination.context_length, 6)
    dream = Dream(run, 40, rules=Rules(memory=memory, latents="probabilities"))
    pictures, rewards = [dream.picture()], []
    for action in run.replay.actions[40:46].tolist():  # nothing has been overwritten, so rows are step numbers
        assert dream.recorded(dream.now.depth) == action
        rewards.append(dream.step(action).reward)
        pictures.append(dream.picture())
    # A number between two brightnesses may be rounded to either.
    assert np.abs(np.stack(pictures[:-1]).astype(int) - expected.imagined).max() <= 1
    np.testing.assert_allclose(rewards, expected.predicted, atol=1e-5)
    assert dream.now.total == pytest.approx(sum(rewards), abs=1e-5)


def test_going_back_and_acting_as_before_leads_to_the_same_moment(run: LoadedRun) -> None:
    dream = sampled(run)
    for action in (0, 2, 1, 0):
        dream.step(action)
    before, seen, way = numbers(dream), dream.picture().copy(), [m.number for m in dream.path(dream.here)]
    (future,) = dream.futures(["RIGHT"], horizon=5)
    assert dream.here == way[-1] and len(dream.nodes) == len(before) + 5
    dream.rewind(3)
    assert [dream.step(action).number for action in (2, 1, 0)] == way[2:]
    np.testing.assert_array_equal(dream.picture(), seen)
    assert numbers(dream)[: len(before)] == before
    assert dream.step("RIGHT").number == future.numbers[0]
    again = sampled(run)  # another dream of the same seed, which never branched
    for action in (0, 2, 1, 0):
        again.step(action)
    assert numbers(again) == before and not np.array_equal(again.picture(), Dream(run, 40, 1).picture())


@pytest.mark.parametrize("kernels", [False, True])
def test_random_numbers_belong_to_the_node_and_its_noise_seed(
    run: LoadedRun, kernels: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On GPUs memories have shapes of their own, but for dreams that branch.
    monkeypatch.setattr(imagination, "by_kernels", lambda _: kernels)
    dream = sampled(run)
    one, two, other = dream.uniforms(0, 3), dream.uniforms(0, 3), dream.uniforms(1, 3)
    assert np.array_equal(one, two) and not np.array_equal(one, other)
    assert not np.array_equal(one[1:], dream.uniforms(0, 4)[:-1])  # streams of neighbours share no number
    result = dream.futures(["LEFT"], draws=8, horizon=2)
    assert len({tuple(dream.nodes[f.numbers[0]].latent.tolist()) for f in result}) > 4
    shares = (
        np.bincount([dream.choose(dream.now._replace(noise_seed=noise)) for noise in range(3000)], minlength=3) / 3000
    )
    np.testing.assert_allclose(shares, dream.now.policy, atol=0.03)


def test_drawn_latents_follow_the_prior(run: LoadedRun) -> None:
    dream = sampled(run)
    prior = torch.log(torch.tensor([[0.7, 0.1, 0.1, 0.1]] * 4)).expand(4000, 4, 4)
    drawn = dream._draw(prior, list(range(4000)), [0] * 4000)
    even = torch.softmax(prior[0] / 3, -1)
    np.testing.assert_allclose(drawn.mean(0), even, atol=0.03)
    dream.rules = Rules(latents="likeliest")
    assert torch.equal(dream._draw(prior[:1], [0], [0])[0, :, 0], torch.ones(4))


def test_futures_in_one_batch_are_the_futures_one_by_one(run: LoadedRun) -> None:
    dream = Dream(run, 40)
    dream.step(1)
    result = dream.futures(draws=2, horizon=4)
    assert [(f.first, f.noise_seed) for f in result] == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]
    assert len({id(node.memory) for node in dream.nodes}) == 2 + 4  # one batch a step
    for future in result:
        alone = Dream(run, 40)
        alone.step(1)
        rewards = [alone.step(dream.nodes[number].action).reward for number in future.numbers]
        np.testing.assert_allclose([dream.nodes[n].reward for n in future.numbers], rewards, atol=1e-5)
        assert future.gain == pytest.approx(alone.now.total - alone.path(alone.here)[1].total, abs=1e-4)
    made = len(dream.nodes)
    assert dream.futures(draws=2, horizon=4) == result and len(dream.nodes) == made


def test_rewards_after_the_end_do_not_count(run: LoadedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dream_tree, "OVER", -1.0)  # every step ends the episode
    dream = Dream(run, 40)
    first = dream.step(0)
    assert first.over and first.total == first.reward and dream.step(0).total == first.total
    assert dream.futures([1])[0].value == 0.0


@pytest.mark.parametrize("off", ["gmamba", "lmamba"])
def test_a_module_switched_off_is_left_out_from_the_next_step_on(run: LoadedRun, off: str) -> None:
    model, dream, plain = run.agent.world_model.sequence_model, Dream(run, 40), Dream(run, 40)
    dream.step(0), plain.step(0)
    dream.switch(modules=off)
    assert numbers(dream) == numbers(plain)
    dream.step(0), plain.step(0)
    assert dream.now.reward != plain.now.reward and model.added == "both"
    tokens = torch.cat([dream.tokens, *(m.token[None, None] for m in dream.path(dream.here)[1:])], 1)[:, -8:]
    alone = dream.sequence[off].memory(tokens)
    torch.testing.assert_close(dream.now.memory.hidden, alone.hidden)
    part = plain.now.memory.variation if off == "gmamba" else plain.now.memory.hidden - plain.now.memory.variation
    torch.testing.assert_close(alone.hidden, part, atol=1e-5, rtol=1e-4)


def test_memory_can_change_on_the_way(run: LoadedRun) -> None:
    dream, recurrent = Dream(run, 40), Dream(run, 40, rules=Rules(memory="recurrent", latents="probabilities"))
    for other in (dream, recurrent):
        other.step(0)
    dream.switch(memory="recurrent")
    for other in (dream, recurrent):
        other.step(1)
    # Not the same dream, as the first step read a window; but the same memory of its own tokens.
    tokens = torch.cat([dream.tokens, *(m.token[None, None] for m in dream.path(dream.here)[1:])], 1)
    torch.testing.assert_close(dream.now.memory.hidden, dream.sequence["both"].memory(tokens, "recurrent").hidden)
    dream.switch(memory="window")
    dream.futures(draws=2, horizon=2)
    tokens = torch.cat([dream.tokens, *(m.token[None, None] for m in dream.path(len(dream.nodes) - 1)[1:])], 1)
    memory = dream.nodes[-1].memory
    torch.testing.assert_close(memory.hidden[-1:], dream.sequence["both"].memory(tokens[:, -8:]).hidden)


MISTAKES = {
    "start = 7 is outside 8 to 120: there must be 8 real steps before it, and 0 from it on.": lambda o: Dream(o, 7),
    "start = 121 is outside 8 to 120": lambda o: Dream(o, 121),
    "start = 'now' is not a whole number": lambda o: Dream(o, "now"),
    "context = 1 is outside its range: at least 2": lambda o: Dream(o, 40, context=1),
    "unknown action 'LEFFT'; did you mean 'LEFT'?": lambda o: Dream(o, 40).step("LEFFT"),
    "action 3 is not one of 0 to 2: LEFT, STAY, RIGHT": lambda o: Dream(o, 40).step(3),
    "this is step 0 of the dream; it cannot go back by 1": lambda o: Dream(o, 40).rewind(),
    "there is no node 9; this dream has nodes 0 to 0": lambda o: Dream(o, 40).go(9),
    "horizon = 0 is outside its range: at least 1": lambda o: Dream(o, 40).futures([0], 1, 0),
    "unknown rule 'modlues'; did you mean 'modules'?": lambda o: Dream(o, 40).switch(modlues="both"),
    "modules = 'lmmba' is not one of the choices": lambda o: Dream(o, 40).switch(modules="lmmba"),
    "temperature = 0.0 is outside 0.05 to 20": lambda o: Dream(o, 40).switch(temperature=0),
    "this dream has 1 of at most 20,000 steps; no 21,000 more": lambda o: Dream(o, 40).futures([0], 1000, 21),
}


@pytest.mark.parametrize("sentence", MISTAKES)
def test_a_mistake_gets_a_sentence(run: LoadedRun, sentence: str) -> None:
    with pytest.raises(GlamkitError) as error:
        MISTAKES[sentence](run)
    assert sentence in str(error.value) and "\n" not in str(error.value)


def test_a_module_that_was_never_trained_cannot_be_switched_on(run: LoadedRun, tmp_path: Path) -> None:
    folder = copied(run, tmp_path / "alone")
    stored = json.loads((folder / "config.json").read_text())
    stored["config"]["world_model"]["modules"] = "gmamba"
    (folder / "config.json").write_text(json.dumps(stored))
    dream = Dream(open_run(folder), 40)
    assert dream.rules.modules == "gmamba"
    with pytest.raises(GlamkitError, match="modules = 'both' cannot be used: this run was trained with 'gmamba' alone"):
        dream.switch(modules="both")


def test_dreaming_leaves_the_run_and_the_model_as_they_were(run: LoadedRun) -> None:
    files = [path for path in sorted(run.run.folder.rglob("*")) if path.is_file()]
    state = {path: (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns) for path in files}
    model = {name: value.clone() for name, value in run.agent.state_dict().items()}
    random = torch.get_rng_state()
    dream = sampled(run)
    dream.step(), dream.futures(draws=2, horizon=3), dream.switch(modules="gmamba"), dream.step()
    assert all(torch.equal(value, model[name]) for name, value in run.agent.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    left = [path for path in sorted(run.run.folder.rglob("*")) if path.is_file()]
    assert {p: (hashlib.sha256(p.read_bytes()).hexdigest(), p.stat().st_mtime_ns) for p in left} == state


def test_the_present_can_be_dreamt_on_from(run: LoadedRun) -> None:
    dream = Dream(run, run.replay.count)
    assert dream.recorded(0) is None and dream.recorded(-1) is not None and dream.step().depth == 1
