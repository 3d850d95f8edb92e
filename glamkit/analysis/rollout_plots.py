"""Pictures of imagined rollouts beside real play."""

from __future__ import annotations

from glamkit.analysis.rollouts import RolloutComparison
from glamkit.plotting import SMALL, WIDE, Picture, figure, film, style


@style
def dream_beside_truth(dream: RolloutComparison, per_row: int = 5) -> Picture:
    """Real frames, what the autoencoder keeps of them, and the imagined ones of the same steps, rewards below."""
    starts = range(0, len(dream.real), per_row)
    picture, grid = figure(WIDE, 0.4 + 4.2 * len(starts), len(starts))
    for (axes,), start in zip(grid, starts, strict=True):
        part = slice(start, start + per_row)
        rows = {"real": dream.real[part], "reconstructed": dream.reconstructed[part], "imagined": dream.imagined[part]}
        pairs = zip(dream.rewards[part], dream.predicted[part], strict=True)
        film(axes, rows, [f"+{start + i}\n{real:+g}\n{guess:+.2f}" for i, (real, guess) in enumerate(pairs, 1)])
        names = {
            "xycoords": "axes fraction",
            "textcoords": "offset points",
            "ha": "right",
            "va": "top",
            "fontsize": SMALL,
            "linespacing": 1.3,
        }
        axes.annotate("steps ahead\nreal reward\nimagined reward", (0, 0), (-4, -4), **names)
    title = "Imagined beside real\nthe model sees the frames before these, and the actions"
    grid[0, 0].set_title(title)
    return picture
