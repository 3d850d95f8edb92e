"""Games: opened by name, seen as square uint8 pictures, checked for what the agent relies on.

`registry` opens them, `pixel_env` is one game as the agent meets it, `tiny_games` are three built-in ones. `check`
examines any game, `atari100k` has the scores of the 26 Atari games.
"""

from glamkit.envs.check import check_env
from glamkit.envs.pixel_env import PixelEnv
from glamkit.envs.registry import make_env

__all__ = ["PixelEnv", "check_env", "make_env"]
