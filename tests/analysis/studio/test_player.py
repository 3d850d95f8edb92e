"""The player does what buttons and keys ask for, and says what there is to draw."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from players import done, wait

from glamkit.analysis.starts import Start
from glamkit.analysis.studio import dream_tree, export
from glamkit.analysis.studio.dream_tree import Rules
from glamkit.analysis.studio.keys import keys_of
from glamkit.analysis.studio.player import Player
from glamkit.analysis.studio.studio import Dream
from glamkit.analysis.studio.view import controls, state, what_if
from glamkit.training.load import LoadedRun

pytestmark = pytest.mark.usefixtures("no_end")


def place(shown: Player) -> tuple[int, int]:
    """The present step and the last one of its branch, as the page shows them."""
    return state(shown)["depth"], state(shown)["last"]


def test_commands_move_the_dream(playing: Player, run: LoadedRun) -> None:
    plain = Dream(run, 40)
    for command, values, step in (("act", (2,), 2), ("act", ("LEFT",), 0), ("forward", (), None)):
        done(playing, command, *values)
        plain.step(step)
        assert playing.dream.now.reward == plain.now.reward
    assert place(playing) == (3, 3)
    done(playing, "back"), done(playing, "back")
    assert playing.dream.now.depth == 1 and place(playing) == (1, 3)
    done(playing, "scrub", 3)
    assert playing.dream.here == 3
    done(playing, "scrub", 0)
    done(playing, "act", 0)  # another way: a line of its own
    assert place(playing) == (1, 1)
    done(playing, "scrub", 0), done(playing, "back")
    assert playing.dream.here == 0
    done(playing, "switch", modules="gmamba", temperature=2.0)
    assert playing.dream.rules.modules == "gmamba"
    done(playing, "begin", 50)
    assert playing.dream.start == 50 and playing.dream.rules.modules == "gmamba"


def test_a_mistake_is_said_and_the_player_goes_on(playing: Player) -> None:
    done(playing, "begin", 3)
    assert "start = 3 is outside 8 to 120" in playing.message
    assert playing.dream.start == 40
    done(playing, "forward")
    assert playing.message == "" and playing.dream.now.depth == 1
    done(playing, "act", 1.5)
    assert playing.message == "action = 1.5 is not a whole number."
    done(playing, "nonsense")  # a fault of ours must not end the thread, nor be swallowed
    assert "has no attribute 'nonsense'" in playing.message
    assert done(playing, "forward").dream.now.depth == 2


def test_keys_step_while_paused_and_steer_while_playing(playing: Player, monkeypatch: pytest.MonkeyPatch) -> None:
    done(playing, "keys", ["ArrowLeft"])
    assert playing.dream.now.action == 0
    done(playing, "keys", ["ArrowLeft"])  # still held: no second step
    done(playing, "keys", [])
    assert playing.dream.now.depth == 1
    done(playing, "keys", ["Digit3"])
    assert playing.dream.now.action == 2
    done(playing, "keys", ["Period"]), done(playing, "keys", [])
    assert playing.dream.now.depth == 3
    done(playing, "keys", ["Backspace"]), done(playing, "keys", [])
    assert playing.dream.now.depth == 2
    done(playing, "keys", ["KeyB"]), done(playing, "keys", [])
    assert len(playing.what_if) == 63 and playing.dream.now.depth == 2
    monkeypatch.setattr(export, "SPEED", 200)
    done(playing, "keys", ["Enter"])
    done(playing, "keys", ["ArrowRight"])
    assert playing.playing and playing.who == "you"
    first = playing.dream.now.depth  # the policy may have played before
    wait(lambda: playing.dream.now.depth >= first + 10)
    done(playing, "keys", [])
    done(playing, "toggle")
    way = [moment.action for moment in playing.dream.path(playing.dream.here)][first + 1 :]
    assert set(way[:8]) == {2} and set(way) <= {1, 2}  # held, then STAY
    assert not playing.playing


def test_the_clock_keeps_its_pace(playing: Player) -> None:
    began = time.monotonic()
    done(playing, "toggle")
    wait(lambda: playing.dream.now.depth >= 10)
    took = time.monotonic() - began
    done(playing, "toggle")
    assert took > 8 / export.SPEED and playing.dream.now.depth >= 10  # how late a busy machine is, it cannot help


def test_action_names_become_keys() -> None:
    atari = ["NOOP", "FIRE", "UP", "RIGHTFIRE", "DOWNLEFT", "UPRIGHTFIRE"]
    result = {action: codes for codes, action in keys_of(atari).items() if not any("Digit" in code for code in codes)}
    assert result == {
        1: {"Space"},
        2: {"ArrowUp"},
        3: {"ArrowRight", "Space"},
        4: {"ArrowDown", "ArrowLeft"},
        5: {"ArrowUp", "ArrowRight", "Space"},
    }
    assert keys_of(["action 0", "action 1"]) == {frozenset({"Digit1"}): 0, frozenset({"Digit2"}): 1}
    assert len(keys_of([f"action {i}" for i in range(18)])) == 10


def test_saving_asked_for_goes_into_a_folder_of_its_own(playing: Player, run: LoadedRun) -> None:
    done(playing, "act", 0)
    for _ in range(2):
        done(playing, "save")
    names = {path.name for path in (run.run.folder / "dreams").iterdir()}
    assert names == {"dream-40-1.gif", "dream-40-2.gif"}


def test_nothing_saved_is_written_over(playing: Player, run: LoadedRun) -> None:
    for _ in range(3):
        done(playing, "save")
    first, *_, last = sorted((run.run.folder / "dreams").glob("dream-40-*.gif"))
    kept = last.read_bytes()
    first.unlink()
    done(playing, "act", 0), done(playing, "save")
    assert last.read_bytes() == kept != first.read_bytes()


def test_a_full_dream_is_begun_anew(playing: Player, monkeypatch: pytest.MonkeyPatch) -> None:
    done(playing, "act", 0), done(playing, "begin", 40)
    assert len(playing.dream.nodes) == 2, "the same dream goes on"
    monkeypatch.setattr(dream_tree, "MOST", 2)
    assert "this dream has 2 of at most 2 steps; no 63 more: begin at a start again" in done(playing, "ask", 1).message
    done(playing, "begin", 40)
    assert len(playing.dream.nodes) == 1


def test_what_cannot_be_shown_does_not_end_the_player(playing: Player, caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: Any) -> None:
        raise RuntimeError("CUDA out of memory")

    playing.shown = fail
    done(playing, "act", 0)
    assert playing.note == "RuntimeError: CUDA out of memory" and "The player stopped" in caplog.text
    playing.shown = lambda _: None
    assert done(playing, "act", 0).dream.now.depth == 2


def test_dreams_of_a_shared_run_are_saved_beside_the_notebook(
    playing: Player, run: LoadedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run.run, "shared_file", tmp_path / "shared.json")
    run.run.shared_file.touch()
    done(playing, "act", 0)
    done(playing, "save")
    assert (tmp_path / "dreams" / "dream-40-1.gif").exists()
    assert playing.note == f"Saved as {tmp_path / 'dreams' / 'dream-40-1.gif'}"


@pytest.fixture
def over(playing: Player, monkeypatch: pytest.MonkeyPatch) -> Player:
    """A player whose dream ends at step 3, with any action."""
    for action in (0, 1):
        done(playing, "act", action)
    monkeypatch.setattr(dream_tree, "OVER", -1.0)
    return done(playing, "act", 2)


def test_the_end_of_the_game_pauses_and_is_said(over: Player, monkeypatch: pytest.MonkeyPatch) -> None:
    total = over.dream.now.total
    sentence = f"The dream has ended, return {total:+z.1f}. Press R to begin again."
    assert over.message == sentence and state(over)["over"]
    for command in ("forward", "act", "ask"):
        done(over, command, *([0] if command == "act" else []))
        assert over.dream.now.depth == 3 and over.message == sentence and over.what_if is None
    assert state(over)["next"] == -1
    done(over, "keys", ["KeyR"]), done(over, "keys", [])
    assert over.dream.now.depth == 0 and not over.running and over.message == ""
    monkeypatch.setattr(export, "SPEED", 200)
    done(over, "other_noise")  # so these are steps of their own, and each ends the game
    done(over, "toggle")
    wait(lambda: over.dream.now.over)
    assert over.dream.now.depth == 1 and not over.running
    monkeypatch.setattr(dream_tree, "OVER", 2.0)
    done(over, "other_noise")
    done(over, "again")  # it played until the end, so it plays on
    wait(lambda: over.dream.now.depth > 4)
    assert over.playing and over.dream.now.depth > 4


def test_each_start_stands_once_in_the_list(run: LoadedRun) -> None:
    shown = Player(Dream(run, 40), starts=[Start(50, "worst"), Start(40, "here"), Start(50, "too"), Start(60, "last")])
    listed = controls(shown)["starts"]
    assert [one["step"] for one in listed] == list(shown.starts) == [50, 40, 60]
    assert all(one["picture"].startswith("data:image/png") for one in listed)
    shown.close()


def test_a_key_that_is_let_go_before_the_clock_comes_is_played(playing: Player) -> None:
    playing.playing = True
    playing.keys(["ArrowRight"])
    playing.keys([])
    playing.forward()
    assert playing.dream.now.action == 2
    playing.forward()
    assert playing.dream.now.action == playing.idle == 1  # once


def test_branches_that_were_left_stay_reachable(playing: Player) -> None:
    for action in (0, 0, 0):
        done(playing, "act", action)
    left = playing.dream.here
    done(playing, "scrub", 1), done(playing, "act", 2), done(playing, "act", 2)
    done(playing, "ask", 2)  # futures are no branches
    shown = state(playing)["branches"]
    assert [b["here"] for b in shown] == [False, True]
    assert "3 steps, return" in shown[0]["title"]
    done(playing, "branch", 0)
    assert playing.dream.here == left and place(playing) == (3, 3)
    done(playing, "scrub", 1), done(playing, "act", 2)  # as before: on the second branch again, which is no new one
    assert [b["here"] for b in state(playing)["branches"]] == [False, True] and place(playing) == (2, 3)
    done(playing, "begin", 50), done(playing, "begin", 40)  # and back: nothing of the first dream is lost
    assert len(state(playing)["branches"]) == 2 and playing.dream.now.depth == 0


def test_what_takes_long_says_so_at_once(run: LoadedRun) -> None:
    said: list[str] = []
    shown = Player(Dream(run, 40), lambda player: said.append(player.message))
    for command, values, sentence, kept in (
        ("ask", [2], "Computing 63 futures of 2 steps ...", "63 futures of 2 steps from step 0"),
        ("save", [], "Saving ...", "Saved as"),
    ):
        said.clear()
        done(shown, command, *values)
        assert len(said) == 2 and said[0] == sentence and kept in said[1] != sentence
    shown.close()


def test_what_if_is_about_one_step(playing: Player) -> None:
    done(playing, "act", 0), done(playing, "ask", 2)
    assert "from step 1" in playing.message
    done(playing, "act", 1)
    assert what_if(playing)["title"].endswith("63 futures from step 1")


def test_other_noise_draws_the_next_action_anew_too(run: LoadedRun) -> None:
    dreams = (Dream(run, 40, seed=seed) for seed in range(50))
    dream = next(dream for dream in dreams if dream.choose(dream.now) != dream.choose(dream.now, 1))
    shown, expected = Player(dream), dream.choose(dream.now, 1)
    done(shown, "other_noise")
    assert state(shown)["next"] == expected
    done(shown, "forward")
    assert dream.now.action == expected and dream.now.noise_seed == 1
    dream.go(0)
    assert dream.step(None, noise_seed=1).action == expected
    shown.close()


def test_other_noise_leads_elsewhere_with_the_same_actions(run: LoadedRun) -> None:
    shown = Player(Dream(run, 40, rules=Rules(latents="sampled", temperature=3.0)))
    done(shown, "act", 0), done(shown, "act", 1)
    before = shown.dream.now
    done(shown, "again"), done(shown, "other_noise"), done(shown, "act", 0), done(shown, "act", 1)
    assert shown.dream.now.noise_seed == 1 and shown.dream.now.value != before.value
    assert len(shown.dream.branches) == 2
    shown.close()
