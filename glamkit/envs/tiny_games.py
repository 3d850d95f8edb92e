"""Tiny games whose rules are known exactly, so that learning and dreaming can be scored against the truth.

All chance lies in how a game begins: a state is a tuple of whole numbers, one is drawn, and `advance` and `draw` are
functions of it alone. Everything that matters is at least 4 x 4 pixels in the strongest colours: a squared error over
pixels notices small or dim things last.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete

SIZE = 32  # pixels
WHITE, YELLOW, CYAN = (255, 255, 255), (255, 255, 0), (0, 255, 255)

State = tuple[int, ...]


class TinyGame(gymnasium.Env):
    """What the games share; a game gives names of `actions`, all states it `starts` with, `advance` and `draw`."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 8}
    actions: tuple[str, ...] = ()
    starts: tuple[State, ...] = ()

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.observation_space = Box(0, 255, (SIZE, SIZE, 3), np.uint8)
        self.action_space = Discrete(len(self.actions))
        self.state: State = ()

    def advance(self, state: State, action: int) -> tuple[State, float, bool]:
        """The next state, the reward, and whether the game is over."""
        raise NotImplementedError

    def draw(self, state: State) -> np.ndarray:
        """The picture (32, 32, 3) uint8 of a state."""
        raise NotImplementedError

    def get_action_meanings(self) -> list[str]:
        """Names of the actions, under gymnasium's usual name."""
        return list(self.actions)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts a game."""
        super().reset(seed=seed, options=options)
        self.state = self.starts[int(self.np_random.integers(len(self.starts)))]
        return self.draw(self.state), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Plays one step."""
        self.state, reward, over = self.advance(self.state, int(action))
        return self.draw(self.state), reward, over, False, {}

    def render(self) -> np.ndarray:
        """The present picture."""
        return self.draw(self.state)


class Catch(TinyGame):
    """A ball falls obliquely, bouncing off the walls; be under it when it reaches the bottom.

    Tests whether motion is understood: one picture does not say where the ball is going, but two do. It lands in the
    twelfth picture. The step after that brings +1 for a catch or -1 for a miss, and ends the game.
    Mean return: at random -0.75; running after the ball -1/11, as that is late whenever it moves sideways; optimal 1.
    State: row (0 .. 11) and column (0 .. 7) of the ball, its sideways step (-1, 0, 1), column of the paddle.
    """

    actions = ("LEFT", "STAY", "RIGHT")
    cells, rows = 8, 12
    # Anywhere, but not at a wall and towards it: from a ball that rests there, two pictures do not tell where it goes.
    starts = tuple(
        (0, column, sideways, paddle)
        for column in range(8)
        for sideways in (-1, 0, 1)
        if (column, sideways) not in ((0, -1), (7, 1))
        for paddle in range(8)
    )

    def advance(self, state: State, action: int) -> tuple[State, float, bool]:
        """Moves the paddle and the ball by one column and the ball down by one row; once it has landed, it counts."""
        row, column, sideways, paddle = state
        if row == self.rows - 1:
            return state, (1.0 if column == paddle else -1.0), True
        paddle = min(max(paddle + action - 1, 0), self.cells - 1)
        if 0 <= column + sideways < self.cells:
            column += sideways
        else:  # it rests for one step at the wall, so that it lands there as often as anywhere
            sideways = -sideways
        return (row + 1, column, sideways, paddle), 0.0, False

    def draw(self, state: State) -> np.ndarray:
        """A white ball and a cyan paddle in the bottom row, both 4 x 4 pixels; they never overlap."""
        row, column, _, paddle = state
        picture, cell = np.zeros((SIZE, SIZE, 3), np.uint8), SIZE // self.cells
        paint(picture, SIZE - cell, paddle * cell, cell, cell, CYAN)
        paint(picture, row * (SIZE - 2 * cell) // (self.rows - 1), column * cell, cell, cell, WHITE)
        return picture


class Memory(TinyGame):
    """A lamp shows for two steps which of two doors is the right one; a walker reaches them long after.

    Tests memory: between lamp and doors all pictures are the same for both answers. One action counts, at the doors.
    The next picture shows the walker at its door and the right one lit; the step after it brings +1 or -1 and the end.
    In every fourth episode the right door is lit on arrival too: only so does Mamba's output hold the lamp on the way.
    With ``delay`` = 6 (Memory) the lamp is out of reach for LMamba's four tokens, but within the eight that an imagined
    step looks at. With ``delay`` = 12 (LongMemory) it is within the 16 steps of acting, but outside the imagination's:
    with ``imagination.memory=window`` no dream can tell the doors apart, and only ``recurrent`` can.
    Mean return: at random 0; any player without memory at most 0.25; optimal 1.

    State: step (0 .. delay + 2), the right door (0 up, 1 down), the door taken (0, 1; -1 before), whether the right
    one is lit on arrival (0, 1).
    """

    actions = ("UP", "DOWN")
    starts = tuple((0, door, -1, int(draw == 0)) for door in (0, 1) for draw in range(4))

    def __init__(self, render_mode: str | None = None, delay: int = 6) -> None:
        super().__init__(render_mode)
        self.delay = delay

    def advance(self, state: State, action: int) -> tuple[State, float, bool]:
        """One step towards the doors; at them, through one; then it counts."""
        step, door, taken, shown = state
        if taken >= 0:
            return state, (1.0 if taken == door else -1.0), True
        return (step + 1, door, action if step == self.delay + 1 else -1, shown), 0.0, False

    def draw(self, state: State) -> np.ndarray:
        """Two cyan doors on the right, of which one may be lit, a white walker, and at first a yellow lamp."""
        step, door, taken, shown = state
        picture, lit = np.zeros((SIZE, SIZE, 3), np.uint8), taken >= 0 or (shown and step == self.delay + 1)
        for number, row in enumerate((0, SIZE - 8)):
            paint(picture, row, SIZE - 4, 8, 4, YELLOW if lit and number == door else CYAN)
        if step < 2:
            paint(picture, door * (SIZE - 8), 0, 8, 8, YELLOW)
        along = round(min(step, self.delay + 1) * (SIZE - 8) / (self.delay + 1))
        paint(picture, SIZE // 2 - 2 if taken < 0 else taken * (SIZE - 8) + 2, along, 4, 4, WHITE)
        return picture


def paint(picture: np.ndarray, top: int, left: int, height: int, width: int, color: tuple[int, int, int]) -> None:
    """Fills a rectangle of pixels."""
    picture[top : top + height, left : left + width] = color


gymnasium.register("glamkit/Catch-v0", f"{__name__}:Catch")
gymnasium.register("glamkit/Memory-v0", f"{__name__}:Memory")
gymnasium.register("glamkit/LongMemory-v0", f"{__name__}:Memory", kwargs={"delay": 12})
