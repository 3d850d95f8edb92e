"""The studio of notebook 03 in a page, beside the same dream in this process."""

from __future__ import annotations

from typing import Any

import numpy as np

from glamkit.analysis.open_loop import measure_open_loop
from glamkit.analysis.starts import find_starts, good_start
from glamkit.analysis.studio.player import Player
from glamkit.analysis.studio.studio import Dream
from glamkit.analysis.studio.view import state
from glamkit.training.load import LoadedRun

HORIZON = 6
PIXELS = """canvas => [canvas.width, canvas.height,
    ...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data]"""
STUDIO = ".glamkit-dream"
# Contrast of a colour with the one behind it, as WCAG defines it.
CONTRAST = """([front, back]) => {
    const channels = text => text.match(/[\\d.]+/g).map(Number);
    const over = ([r, g, b, a = 1], below) => [r, g, b].map((c, i) => a * c + (1 - a) * below[i]);
    const light = rgb => rgb.map(c => c / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
        .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
    const ground = over(channels(back), [255, 255, 255]);
    const [one, two] = [light(over(channels(front), ground)), light(ground)].sort((a, b) => b - a);
    return (one + 0.05) / (two + 0.05);
}"""
# Milliseconds from a key to the picture it leads to, of some presses one after the other.
LATENCY = """async presses => {
    const studio = document.querySelector('.glamkit-dream'), canvas = studio.querySelector('canvas'), times = [];
    for (let press = 0; press < presses; press++) {
        const began = performance.now();
        const drawn = new Promise(done => new MutationObserver((_, watch) => { watch.disconnect(); done(); })
            .observe(studio, {attributes: true, attributeFilter: ['data-n']}));
        canvas.dispatchEvent(new KeyboardEvent('keydown', {code: press % 2 ? 'ArrowLeft' : 'ArrowRight'}));
        await drawn;
        times.push(performance.now() - began);
        canvas.dispatchEvent(new KeyboardEvent('keyup', {code: press % 2 ? 'ArrowLeft' : 'ArrowRight'}));
        await new Promise(done => setTimeout(done, 60));
    }
    return times;
}"""


class Mirror:
    """The same dream in this process, and whether the page shows it."""

    def __init__(self, page: Any, run: LoadedRun) -> None:
        chosen = find_starts(run, "random", 6, 0, None, HORIZON)
        good = good_start(run, None, HORIZON)
        dream, starts = Dream(run, good.step), [*measure_open_loop(run, HORIZON).failures(), *chosen, good]
        self.page, self.player = page, Player(dream, starts=starts)
        lengths = []
        for start in self.player.starts:
            played = Dream(run, start)
            while not played.now.over and played.now.depth < 20:
                played.step()
            lengths.append(played.now.depth)
        self.longest = 1 + lengths.index(max(lengths))  # number of the start
        self.seen: set[bytes] = set()

    def agrees(self) -> None:
        shown, dream = state(self.player), self.player.dream
        beside = [one.at(dream.here) for one in self.player.beside]
        self.page.wait_for_function(
            "now => [...document.querySelectorAll('.glamkit-value')].map(one => one.textContent).join() === now",
            arg=",".join(shown["now"]),
        )
        self.page.wait_for_function(
            "note => document.querySelector('.glamkit-note').textContent === note", arg=shown["message"]
        )
        self.page.wait_for_function(
            "texts => [...document.querySelectorAll('.glamkit-beside figcaption')].map(one => one.textContent)"
            ".join('|') === texts",
            arg="|".join(f"{one.name}: {one.caption}{one.note}" for one in beside),
        )
        for canvas, picture in zip(
            self.page.locator(f"{STUDIO} canvas").all(),
            [dream.picture(), *(one.picture for one in beside)],
            strict=True,
        ):
            width, height, *values = canvas.evaluate(PIXELS)
            drawn = np.array(values, np.uint8).reshape(height, width, 4)[..., :3]
            np.testing.assert_array_equal(drawn, picture)
        # Not inner texts: those depend on whether JupyterLab has the cell laid out just then.
        shares = self.page.locator(".glamkit-share").all_text_contents()
        assert shares == [f"{round(100 * share)}%" for share in shown["policy"]]
        self.seen.add(dream.picture().tobytes())

    def press(self, name: str, command: str, *values: Any) -> None:
        """Presses a control, and asks the mirror for what it should do."""
        self.page.click(f".glamkit-{name}")
        self.ask(command, *values)

    def ask(self, command: str, *values: Any, **named: Any) -> None:
        self.player.do(command, *values, **named)
        self.player.todo.join()
        self.agrees()
