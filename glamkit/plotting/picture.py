"""The style of all figures, a figure that shows itself, and the texts around its panels."""

from __future__ import annotations

import base64
import contextlib
import html
import io
import textwrap
from collections.abc import Iterator
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter
from PIL import Image

from glamkit.runtime import ALONE

# Okabe and Ito's palette: distinct for all common kinds of colour vision, and in grey.
BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, BLACK = "#CC79A7", "#56B4E9", "#000000"
GREY = "#707070"
INK = "#333333"
COLOURS = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY, BLACK)
LINES, MARKERS = ("-", "--", ":"), "osD^vPX"
WIDE = 7.0  # inches: text is still read where JupyterLab leaves 470 pixels, in a window of 900 beside its files
SMALL = 9  # points: no text is smaller
STYLE: dict[Any, Any] = {
    "figure.dpi": 100,
    "font.size": 10,
    "figure.titlesize": 10,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.labelsize": 10,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "axes.labelcolor": INK,
    "text.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e8e8e8",
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "legend.frameon": False,
    "legend.fontsize": SMALL,
    "lines.linewidth": 1.4,
    "axes.formatter.useoffset": False,
}


@contextlib.contextmanager
def styled() -> Iterator[None]:
    """Context in which figures are drawn alike, by one thread at a time."""
    with ALONE, rc_context(STYLE):
        yield


style = styled()
STEPS = "agent steps"


class Picture(Figure):
    """A Figure that shows itself in any notebook, whichever backend there is, and says in words what it shows."""

    def png(self, dpi: int = 100) -> bytes:
        """The figure as a PNG file, on white."""
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=dpi)
        return buffer.getvalue()

    def small_png(self) -> bytes:
        """The figure as a PNG file of 256 colours: a fifth of the size, as notebooks keep it twice."""
        pixels, buffer = Image.open(io.BytesIO(self.png())).convert("RGB"), io.BytesIO()
        # An octree keeps rare colours, as of a small ball; a median cut loses them.
        pixels.quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(buffer, "png")
        return buffer.getvalue()

    def words(self) -> str:
        """Its titles, and what stands in panels with nothing to draw: for people who cannot see it."""
        panels = [axes.get_title(loc="left") for axes in self.axes]
        empty = [text.get_text() for axes in self.axes if not axes.axison for text in axes.texts]
        return ". ".join(" ".join(text.split()) for text in (self.get_suptitle(), *panels, *empty) if text)

    def html(self) -> str:
        """The figure as HTML."""
        return self._repr_mimebundle_()[0]["text/html"]

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, str], dict[str, Any]]:
        png, words = base64.b64encode(self.small_png()).decode(), self.words()
        page = f'<img style="max-width: 100%" alt="{html.escape(words)}" src="data:image/png;base64,{png}">'
        return {"text/html": page, "image/png": png}, {"image/png": {"alt": words}}


def figure(width: float = WIDE, height: float = 3, rows: int = 1, columns: int = 1, **grid: Any) -> tuple[Picture, Any]:
    """An empty figure in inches and its axes, an array (rows, columns); call it in a function decorated `@style`."""
    picture = Picture(figsize=(width, height), layout="constrained", facecolor="white")
    return picture, picture.subplots(rows, columns, squeeze=False, **grid)


def look(place: int) -> tuple[str, str, str]:
    """Colour, line and marker of the first (0), second, .. of several that are compared; the 22nd is as the first."""
    return COLOURS[place % len(COLOURS)], LINES[place // len(COLOURS) % len(LINES)], MARKERS[place % len(MARKERS)]


def heading(picture: Picture, text: str) -> None:
    """The title of a whole figure, in as many lines as its width asks for."""
    picture.suptitle(lines(text, picture.get_figwidth()))


def panel_title(axes: Axes, text: str) -> None:
    """The title of one panel, in as many lines as its share of the figure's width asks for."""
    place = axes.get_subplotspec()
    share = axes.figure.bbox.width / axes.figure.dpi / (place.get_gridspec().ncols if place else 1)
    axes.set_title(lines(text, share - 0.5))  # half an inch is left of the panel


def lines(text: str, inches: float) -> str:
    """Text of a title in lines of at most so many inches; its own line breaks stay."""
    return "\n".join(textwrap.fill(line, int(13 * inches)) for line in text.split("\n"))


def legend_below(axes: Axes, columns: int = 3) -> None:
    """The legend below the panel and its labels, where it covers no curve."""
    if axes.get_legend_handles_labels()[0]:
        ticks, label = axes.xaxis.get_tick_params().get("labelbottom", True), axes.get_xlabel()
        drop = 6 + 12 * bool(ticks) + 14 * (label.count("\n") + 1 if label else 0)  # points
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, 0), borderaxespad=drop / SMALL, ncols=columns)


def nothing(axes: Axes, text: str) -> None:
    """A panel with nothing to draw says so in words; it has no axes."""
    axes.set_axis_off()
    axes.text(0, 0.5, text, transform=axes.transAxes, color=GREY, va="center")


def in_words(text: str) -> Picture:
    """A figure that has nothing to draw says so in words."""
    wrapped = lines(text, WIDE)
    picture, ((axes,),) = figure(WIDE, 0.25 + 0.2 * (1 + wrapped.count("\n")))
    nothing(axes, wrapped)
    return picture


def label(axes: Axes, unit: str, ticks: int = 5) -> None:
    """Axis labels; a few round steps."""
    axes.set_xlabel(STEPS)
    axes.set_ylabel(unit)
    axes.xaxis.set_major_locator(MaxNLocator(ticks, integer=True))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def count(number: int, what: str) -> str:
    """``1 episode``, ``2 episodes``."""
    return f"{number:,} {what}" + ("" if number == 1 else "s")
