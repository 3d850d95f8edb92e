"""A slider over the steps of a stretch, with the picture of the chosen one: for JupyterLab; the pictures are plain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ipywidgets
import numpy as np

from glamkit import notebook
from glamkit.analysis.variation.events import GameEvent
from glamkit.analysis.variation.frame_plots import moment
from glamkit.analysis.variation.metrics import VariationView
from glamkit.plotting import DARK_PAGE, Picture


class StepViews:
    """The steps of a stretch, and the picture of each; a picture is drawn when it is first asked for.

    Args:
        view: the stretch.
        window: effects of LMamba's tokens at each of its steps, see `effective_memory.window`.
        events: of the run.
    """

    def __init__(self, view: VariationView, window: np.ndarray, events: Sequence[GameEvent]) -> None:
        self.view, self.window = view, window
        self.first, self.last = int(view.numbers[0]), int(view.numbers[-1])
        self.events = [event for event in events if self.first <= event.step <= self.last]
        self.drawn: dict[int, tuple[bytes, bytes]] = {}

    def picture(self, step: int) -> Picture:
        """The picture of a step."""
        kinds = [event.kind for event in self.events if event.step == step]
        return moment(self.view, self.window, step - self.first, f" ({' and '.join(kinds)})" if kinds else "")

    def pngs(self, step: int) -> tuple[bytes, bytes]:
        """The same as PNG files, for light pages and for dark ones, drawn once."""
        if step not in self.drawn:
            self.drawn[step] = self.picture(step).pngs()
        return self.drawn[step]

    def striking(self) -> int:
        """The step worth a first look: the last event, or where most was predicted to change; no new game's."""
        marks = [event.step for event in self.events if self.view.counted[event.step - self.first]]
        sizes = np.where(self.view.counted, self.view.variation.size_expected, -1)
        return marks[-1] if marks else self.first + int(sizes.argmax())

    def beside(self, step: int, forward: bool) -> int:
        """The next event after a step, or the one before it; the step itself if there is none."""
        later = [event.step for event in self.events if event.step > step]
        earlier = [event.step for event in self.events if event.step < step]
        return min(later, default=step) if forward else max(earlier, default=step)


ALONE = "The slider needs a running kernel: run this cell again. The step it began at is folded below."
THEMES = f"""<style>.glamkit-on-dark, {DARK_PAGE} .glamkit-on-light {{ display: none }}
{DARK_PAGE} .glamkit-on-dark {{ display: block }}</style>"""


class StepSlider(ipywidgets.VBox):
    """The slider, buttons to the events, and the picture."""

    def __init__(self, moments: StepViews) -> None:
        self.moments = moments
        # A page sends the newest place only, once the one before it is drawn: dragging never falls behind.
        self.slider = ipywidgets.IntSlider(
            moments.striking(), moments.first, moments.last, description="step", layout={"flex": "1 1 300px"}
        ).add_class("glamkit-steps")
        layout = {"max_width": "100%", "align_self": "flex-start"}  # enlarged it would blur
        pair = [ipywidgets.Image(format="png", layout=layout).add_class("glamkit-moment") for _ in range(2)]
        self.images = pair[0].add_class("glamkit-on-light"), pair[1].add_class("glamkit-on-dark")
        self._draw(self.slider.value)
        self.slider.observe(lambda change: self._draw(change["new"]), "value")
        buttons = [self._button("event before", "before", False), self._button("next event", "next", True)]
        row = ipywidgets.HBox([self.slider, *buttons], layout={"flex_flow": "row wrap"})
        super().__init__([ipywidgets.HTML(THEMES), row, *self.images])

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Any:
        """What is saved of it; readers without a kernel take the sentence, JupyterLab with one the widget."""
        return notebook.alone(super()._repr_mimebundle_(include=include, exclude=exclude), ALONE)

    def _button(self, text: str, name: str, forward: bool) -> Any:
        layout = {"width": "auto", "flex": "0 0 auto"}  # never narrower than its text
        button = ipywidgets.Button(description=text, disabled=not self.moments.events, layout=layout)
        button.on_click(lambda _: self._jump(forward))
        return button.add_class(f"glamkit-{name}")

    def _jump(self, forward: bool) -> None:
        self.slider.value = self.moments.beside(self.slider.value, forward)

    def _draw(self, step: int) -> None:
        for image, png in zip(self.images, self.moments.pngs(step), strict=True):
            image.value = png


def show(moments: StepViews) -> notebook.Folded | Picture:
    """Shows the slider where somebody watches, and returns the picture that a saved notebook keeps.

    Below a slider the picture is folded, so that it stands there only once.
    """
    picture = moments.picture(moments.striking())
    if not notebook.is_interactive():
        return picture
    from IPython.display import display

    display(StepSlider(moments))
    return notebook.Folded("The step it began at (no slider above? run all cells again)", picture)
