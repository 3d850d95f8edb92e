"""Looking into a run: imagined rollouts beside real play, the variation that GMamba expects, memory, events.

Everything here reads a run or a trainer and returns arrays, pictures or tables. `analysis.studio` is the interactive
part.
"""

from glamkit.analysis.activations import watch
from glamkit.analysis.monitor import Monitor, overview
from glamkit.analysis.open_loop import measure_open_loop
from glamkit.analysis.starts import find_starts, good_start
from glamkit.analysis.variation import Lens

__all__ = ["Lens", "Monitor", "find_starts", "good_start", "measure_open_loop", "overview", "watch"]
