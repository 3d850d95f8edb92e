"""What stands beside a dream, and what the page is given to draw."""

from __future__ import annotations

import numpy as np
import pytest
from players import done

from glamkit.analysis.studio import dream_tree, player
from glamkit.analysis.studio.compare import Beside
from glamkit.analysis.studio.dream_tree import Rules
from glamkit.analysis.studio.keys import COMMANDS
from glamkit.analysis.studio.player import Player
from glamkit.analysis.studio.studio import Dream
from glamkit.analysis.studio.view import controls, state
from glamkit.training.load import LoadedRun

pytestmark = pytest.mark.usefixtures("no_end")


def beside(shown: Player) -> list[Beside]:
    return [one.at(shown.dream.here) for one in shown.beside]


def test_what_really_happened_stands_beside_the_dream(playing: Player, run: LoadedRun) -> None:
    recorded = [playing.dream.recorded(depth) for depth in range(3)]
    done(playing, "act", (recorded[0] + 1) % 3)  # another action than the recorded one
    done(playing, "compare", ["real"])
    assert playing.who == "recorded" and playing.dream.now.depth == 0 and "recorded actions" in playing.message
    for depth in range(1, 4):
        done(playing, "forward")
        (other,) = beside(playing)
        frame = run.replay.frames[40 + depth].numpy()
        np.testing.assert_array_equal(other.picture, frame)
        assert playing.dream.now.action == recorded[depth - 1]
        assert other.name == "what really happened" and other.note == ""
    assert state(playing)["next"] == playing.dream.recorded(3)
    done(playing, "back"), done(playing, "act", (recorded[2] + 1) % 3)
    (other,) = beside(playing)
    # Step 3 shows the first picture that another action led to; the note says so.
    assert other.note == "real game: other actions since step 3"
    done(playing, "forward")
    assert beside(playing)[0].note == "real game: other actions since step 3"  # and from then on
    done(playing, "scrub", 2)
    assert beside(playing)[0].note == ""  # before it both went the same way
    done(playing, "begin", run.replay.count)
    assert beside(playing)[0].picture is None
    assert "No action after step 0 is recorded" in done(playing, "forward").message


@pytest.mark.parametrize(("off", "left"), [("lmamba", "gmamba"), ("gmamba", "lmamba")])
def test_the_dream_without_a_module_meets_the_same_actions_and_noise(run: LoadedRun, off: str, left: str) -> None:
    rules = Rules(latents="sampled", temperature=3.0)
    shown = Player(Dream(run, 40, rules=rules))
    done(shown, "act", 0), done(shown, "compare", [off])
    done(shown, "act", 2), done(shown, "other_noise"), done(shown, "act", 1)
    alone = Dream(run, 40, rules=Rules(left, latents="sampled", temperature=3.0))
    for node in shown.dream.path(shown.dream.here)[1:]:
        alone.step(node.action, node.noise_seed)
    (other,) = beside(shown)
    np.testing.assert_array_equal(other.picture, alone.picture())
    assert f"return {alone.now.total:+.2f}" in other.caption
    assert shown.beside[0].node(shown.dream.here).value == alone.now.value != shown.dream.now.value
    assert len(shown.dream.nodes) == 4  # the dream itself is as it was
    done(shown, "compare", [])
    assert beside(shown) == []
    shown.close()


@pytest.mark.parametrize("off", ["lmamba", "gmamba"])
def test_a_comparison_says_where_its_own_game_ended(run: LoadedRun, off: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Player(Dream(run, 40))
    for action in (0, 1, 2):
        done(shown, "act", action)
    done(shown, "scrub", 1), done(shown, "compare", [off])
    (other,) = beside(shown)
    assert not other.over and other.caption.startswith("reward ")
    monkeypatch.setattr(dream_tree, "OVER", -1.0)  # from here on every step ends a game; those of the dream are taken
    done(shown, "scrub", 3)
    (other,) = beside(shown)
    total = shown.beside[0].node(2).total
    assert other.over and other.caption == f"end of a life or game at step 2, return {total:+.2f}"
    assert not state(shown)["over"]
    shown.close()


def test_where_the_real_game_ended_is_said(run: LoadedRun) -> None:
    end = int(run.replay.terminations[45:].nonzero()[0]) + 45  # the action of this step ends a game
    shown = Player(Dream(run, end - 2))
    done(shown, "compare", ["real"])
    captions = list[str]()
    for _ in range(4):
        done(shown, "forward")
        captions.append(beside(shown)[0].caption)
    total = float(run.replay.rewards[end - 2 : end + 1].sum())
    assert "return" in captions[1] and "end of" not in captions[1]
    assert captions[2] == captions[3] == f"end of a life or game at step 3, return {total:+.2f}"
    assert beside(shown)[0].over and beside(shown)[0].note == ""
    done(shown, "scrub", 1), done(shown, "act", (shown.dream.recorded(1) + 1) % 3), done(shown, "forward")
    (other,) = beside(shown)
    assert other.over and other.note == "real game: other actions since step 2"  # beside its end as well
    shown.close()


def test_the_view_says_which_action_is_taken_next(playing: Player) -> None:
    dream = playing.dream
    assert state(playing)["next"] == dream.choose(dream.now)
    done(playing, "hand", "you")
    assert state(playing)["next"] == -1
    done(playing, "hand", "recorded")
    assert state(playing)["next"] == dream.recorded(0)


def test_speeds_are_parts_of_the_games_own(playing: Player, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(player.time, "perf_counter", lambda: 100.0)
    for rate, pause in (("1/4", 4 / 15), ("1/2", 2 / 15), ("1", 1 / 15), ("2", 1 / 30)):
        playing.pace(rate)
        playing.due = 100.0
        playing.tick()
        assert playing.due == pytest.approx(100 + pause)


def test_the_page_is_given_what_its_controls_need(playing: Player, run: LoadedRun) -> None:
    info = controls(playing)
    assert [name for name, _ in info["actions"]] == list(run.actions)
    assert [key for _, key in info["actions"]] == ["←", "2", "→"]
    assert len(info["keys"]) == len(COMMANDS) and "B what if?" in info["keys"]
    assert all(reason == "" for *_, reason in [*info["modules"], *info["compare"]])
    playing.dream.trained = "gmamba"
    info = controls(playing)
    assert [name for name, _, reason in info["modules"] if reason] == ["both", "lmamba"]
    assert [name for name, _, reason in info["compare"] if reason] == ["lmamba", "gmamba"]
    assert "trained with 'gmamba' alone" in done(playing, "compare", ["lmamba"]).message


def test_a_reward_that_rounds_to_nothing_has_no_minus(playing: Player) -> None:
    now = playing.dream.now._replace(reward=-0.001, total=-0.004, value=-1.004)
    assert "reward +0.00" in repr(now) and "value -1.00, return +0.00" in repr(now)
