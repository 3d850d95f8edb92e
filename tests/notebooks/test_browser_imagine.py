"""The dream studio in a real JupyterLab: what a person presses is what the Python `Dream` does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import nbformat
import numpy as np
import pytest
from lab import RUN, Lab, new_page, open_notebook, wait_for_end
from mirror import CONTRAST, HORIZON, LATENCY, STUDIO, Mirror

from glamkit.training.load import open_run

FIELD = ("latent", "nats", "token", "prior", "worst clip", "free bits")  # plain English stands for these
HARD = ("random numbers", "picture code", "how it is dreamt")  # words that a newcomer could not read
pytestmark = [pytest.mark.browser, pytest.mark.slow]
THEME = "name => window.jupyterapp.commands.execute('apputils:change-theme', {theme: name})"
# Whether a part shows a step.
AT = "([part, step]) => { const one = document.querySelector(part); return (one.value ?? one.textContent) === step }"
PRESS = """([code, key, repeat]) => ['keydown', 'keyup'].forEach(kind => document.activeElement.dispatchEvent(
    new KeyboardEvent(kind, {code, key, repeat: repeat && kind === 'keydown', bubbles: true, cancelable: true})))"""
PARTS = "button, select, input, canvas, .glamkit-numbers > div, img.glamkit-futures"
CLOSE = "() => window.jupyterapp.shell.currentWidget.sessionContext.shutdown()"


@pytest.fixture(scope="module")
def studio(lab: Lab, root: Path) -> Iterator[Mirror]:
    """Notebook 03 on a run that has learnt its game, run to its end; the studio in it, and its mirror."""
    lab.put(root / "notebooks" / "03_imagine.ipynb", "imagine.ipynb", run_dir="catch", horizon=HORIZON)
    with new_page(lab) as page:
        open_notebook(page, lab, "imagine.ipynb")
        page.evaluate(RUN, "notebook:run-all-cells")
        wait_for_end(page)
        page.wait_for_selector(f"{STUDIO}[data-n]")
        page.evaluate("document.querySelector('.glamkit-studio').scrollIntoView()")
        mirror = Mirror(page, open_run("catch"))
        mirror.agrees()
        yield mirror
        mirror.player.close()


@pytest.fixture
def fresh(studio: Mirror) -> Mirror:
    """The same studio with the dream of the longest game, at its step 0, and nothing beside it."""
    # At once: an answer to an earlier press may tick or untick one while the browser looks for it.
    checked = f"document.querySelectorAll('{STUDIO} input[type=checkbox]:checked')"
    studio.page.evaluate(f"() => {checked}.forEach(box => box.click())")
    studio.page.wait_for_function(f"() => !{checked}.length")
    studio.player.do("compare", [])
    studio.press(f"start-{studio.longest}", "begin", list(studio.player.starts)[studio.longest - 1])
    return studio


def test_a_person_stands_inside_a_dream(fresh: Mirror) -> None:
    page = fresh.page
    for _ in range(2):
        fresh.press("action-2", "act", 2)
    cells = page.locator(".jp-Notebook .jp-Cell").count()
    for _ in range(2):  # the button has given the focus back to the picture
        page.keyboard.press("ArrowLeft")
        fresh.ask("act", 0)
    for _ in range(4):
        page.keyboard.press("ArrowLeft")
        fresh.ask("act", 0)
    page.keyboard.press("b")  # to JupyterLab itself this would mean: add a cell
    fresh.ask("ask")
    assert "63 futures of 15 steps from step 8" in page.inner_text(".glamkit-note")
    page.wait_for_function("() => document.querySelector('img.glamkit-futures')?.naturalWidth > 500")
    assert page.get_attribute("img.glamkit-futures", "alt").startswith("Mean return by first action")
    assert page.locator(".jp-Notebook .jp-Cell").count() == cells
    page.click(f"{STUDIO} canvas")
    page.keyboard.press("Backspace")
    fresh.ask("back")
    assert page.inner_text(".glamkit-what-if figcaption").endswith("63 futures from step 8")

    (before,) = fresh.player.dream.futures([1], horizon=1)
    page.select_option(".glamkit-modules", "gmamba")
    fresh.ask("switch", modules="gmamba")
    fresh.press("action-1", "act", 1)
    assert fresh.player.dream.now.reward != fresh.player.dream.nodes[before.numbers[0]].reward
    for latents in ("sampled", "likeliest"):
        page.select_option(".glamkit-latents", latents)
        fresh.ask("switch", latents=latents)

    assert page.locator(".glamkit-branch").all_inner_texts() == ["1", "2"]
    page.focus(".glamkit-branch >> nth=0")
    page.evaluate("window.chip = document.activeElement")
    page.keyboard.press("Enter")
    fresh.ask("branch", 0)
    assert page.evaluate("document.activeElement === window.chip && window.chip.ariaPressed") == "true"
    assert len(fresh.seen) > 6  # the picture changed


def test_the_game_ends_in_the_dream(fresh: Mirror) -> None:
    page = fresh.page
    page.select_option(".glamkit-rate", "2")
    colors = "[...document.querySelectorAll('.glamkit-meter > span')].map(one => getComputedStyle(one).backgroundColor)"
    (colored,) = set(page.evaluate(colors))
    page.click(".glamkit-play")
    page.wait_for_selector(".glamkit-over")
    assert page.inner_text(".glamkit-note").startswith("The dream has ended, return ")
    assert page.inner_text(".glamkit-play") == "Play"
    bar = "one => [getComputedStyle(one, '::after').content, one.clientHeight - one.firstChild.offsetHeight]"
    assert page.locator(".glamkit-stage").evaluate(bar) == ['"END"', 22]  # below the picture
    (grey,) = set(page.evaluate(colors))
    assert grey != colored  # of an ended game nothing is expected or taken
    depth = page.inner_text(".glamkit-value >> nth=0")
    page.keyboard.press("ArrowLeft")  # nothing follows the end
    page.keyboard.press("r")
    page.wait_for_function("() => document.querySelector('.glamkit-play').textContent === 'Pause'")
    page.wait_for_selector(".glamkit-over")
    assert page.inner_text(".glamkit-value >> nth=0") == depth  # the same actions, the same noise
    assert page.inner_text(".glamkit-step-of") == f"step {depth} of {depth}"


def test_keys_and_the_slider_are_let_go(fresh: Mirror) -> None:
    page = fresh.page
    page.select_option(".glamkit-modules", "both")  # with one alone the dream may end at step 2
    fresh.ask("switch", modules="both")
    page.click(f"{STUDIO} canvas")
    page.keyboard.down("ArrowLeft"), page.keyboard.down("Control"), page.keyboard.up("ArrowLeft")
    page.keyboard.up("Control")
    page.wait_for_function(AT, arg=[".glamkit-value", "1"])
    page.keyboard.press("ArrowLeft")  # were it held still, this would be no press
    page.wait_for_function(AT, arg=[".glamkit-value", "2"])
    page.click(".glamkit-back")
    page.wait_for_function(AT, arg=[".glamkit-value", "1"])
    # The system repeats a key that was pressed before the click took the focus away: it is no new press.
    page.evaluate(PRESS, ["ArrowLeft", "ArrowLeft", True])
    page.evaluate(PRESS, ["Comma", ".", False])  # the point of a French keyboard: one step
    page.wait_for_function(AT, arg=[".glamkit-value", "2"])
    box = page.locator(".glamkit-place").bounding_box()
    page.mouse.move(box["x"] + box["width"] - 4, box["y"] + box["height"] / 2)
    page.mouse.down(), page.mouse.up()  # where the handle is: nothing changes
    page.click(".glamkit-step")
    for part in (".glamkit-value", ".glamkit-place"):
        page.wait_for_function(AT, arg=[part, "3"])


def test_real_and_without_lmamba_stand_beside_the_dream(fresh: Mirror) -> None:
    page = fresh.page
    fresh.press("compare-real", "compare", ["real"])
    fresh.press("compare-lmamba", "compare", ["real", "lmamba"])
    for _ in range(4):
        fresh.press("step", "forward")
    assert page.locator(".glamkit-beside figcaption").count() == 2
    assert page.is_checked(".glamkit-who-recorded")
    labels = page.locator(f"{STUDIO} canvas").evaluate_all("all => all.map(one => one.getAttribute('aria-label'))")
    assert labels[1:] == ["what really happened", "LMamba off"] and "Picture of a dream" in labels[0]
    other = (fresh.player.dream.recorded(4) + 1) % 3
    fresh.press(f"action-{other}", "act", other)
    apart = "real game: other actions since step 5"
    assert page.locator(".glamkit-apart").all_inner_texts() == [apart, ""]
    said = page.locator(".glamkit-beside canvas").first.get_attribute("aria-label")
    assert said == f"what really happened; {apart}"


def test_the_studio_can_be_used_by_keys_and_read(fresh: Mirror) -> None:
    page = fresh.page
    active = "() => document.activeElement.className || document.activeElement.tagName"
    fresh.press("back", "back")
    assert page.evaluate(active) == "CANVAS" and "Keys are on" in page.inner_text(".glamkit-focus")
    page.keyboard.press("Escape")
    assert page.evaluate(active) != "CANVAS" and "Keys are off" in page.inner_text(".glamkit-focus")
    page.click(f"{STUDIO} canvas")
    page.keyboard.press("Tab")
    assert "Keys are off" in page.inner_text(".glamkit-focus")
    page.focus(".glamkit-step")
    page.keyboard.press("Enter")  # who came by keys stays there
    fresh.ask("forward")
    assert page.evaluate(active) == "glamkit-step"

    controls = page.locator(f"{STUDIO} :is(button, select, input)")
    assert controls.count() > 25
    for title, name in controls.evaluate_all(
        "all => all.map(one => [one.title || one.closest('label')?.title,"
        " one.ariaLabel || one.closest('label')?.innerText || one.innerText])"
    ):
        assert title and name.strip(), (title, name)
    assert page.locator(f"{STUDIO} img:not([alt])").count() == 0
    live = page.locator(f"{STUDIO} :is([role=status], [role=alert], [aria-live])")
    assert live.count() == 2  # the messages; nothing of what changes 15 times a second
    words = page.inner_text(STUDIO).lower()
    for word in ("moment", "rules", "luck", "foresee", "chance", "foretell", "noise", "|<", *HARD, *FIELD):
        assert word not in words, word


def test_it_fits_and_is_read_in_every_theme(fresh: Mirror) -> None:
    page = fresh.page
    fresh.press("compare-lmamba", "compare", ["lmamba"])
    for theme in ("Light", "Dark"):
        page.evaluate(THEME, f"JupyterLab {theme}")
        page.wait_for_selector(f"body[data-jp-theme-name='JupyterLab {theme}']", state="attached")
        ground = page.evaluate("() => getComputedStyle(document.body).getPropertyValue('--jp-layout-color1')")
        back = page.evaluate(
            "color => { const one = document.createElement('i'); one.style.color = color;"
            " document.body.append(one); const rgb = getComputedStyle(one).color; one.remove(); return rgb }",
            ground,
        )
        for part, kind, least in (
            (".glamkit-keys", "color", 4.5),
            (".glamkit-value", "color", 4.5),
            (".glamkit-label", "color", 4.5),
            (".glamkit-note", "color", 4.5),
            (".glamkit-warning", "color", 4.5),
            (".glamkit-on .glamkit-focus", "color", 4.5),
            (".glamkit-meter", "borderTopColor", 3),
            (".glamkit-meter > span", "backgroundColor", 3),
            (".glamkit-play", "borderTopColor", 3),
            (f"{STUDIO} canvas", "borderTopColor", 3),
        ):
            color = page.locator(part).first.evaluate("(one, kind) => getComputedStyle(one)[kind]", kind)
            assert page.evaluate(CONTRAST, [color, back]) >= least, (theme, part, color, back)
        assert (
            page.locator(".glamkit-meter")
            .first.evaluate("one => getComputedStyle(one).backgroundColor")
            .endswith(", 0)")
        )
        for width in (1440, 1000, 900, 700, 460):
            page.set_viewport_size({"width": width, "height": 900})
            page.wait_for_timeout(100)
            inside = page.locator(".glamkit-studio").bounding_box()
            for part in page.locator(f"{STUDIO} :is({PARTS})").all():
                box = part.bounding_box()
                if box:
                    assert box["x"] >= inside["x"] and box["x"] + box["width"] <= inside["x"] + inside["width"] + 1
            side = page.locator(f"{STUDIO} canvas").first.evaluate("one => one.clientWidth")
            now, stage = (page.locator(part).bounding_box() for part in (".glamkit-now", ".glamkit-stage"))
            columns = now["x"] > stage["x"] + stage["width"] - 1
            boxes, beside = (page.locator(part).bounding_box() for part in (".glamkit-compare", ".glamkit-beside"))
            assert boxes["x"] == beside["x"] and 0 <= beside["y"] - boxes["y"] - boxes["height"] < 10
            assert (side, columns) == (384 if width > 1000 else 256, width > 700)
            for part in (".glamkit-value", ".glamkit-name"):  # no number and no name is cut off
                fits = page.locator(part).evaluate_all("all => all.map(one => one.scrollWidth <= one.clientWidth)")
                assert fits.count(False) == 0, (width, part)


@pytest.mark.parametrize(("width", "height"), [(1440, 900), (900, 800)])
def test_playing_needs_no_scrolling(fresh: Mirror, width: int, height: int) -> None:
    page = fresh.page
    page.set_viewport_size({"width": width, "height": height})
    page.evaluate("document.querySelector('.glamkit-studio').scrollIntoView()")
    page.wait_for_timeout(200)
    visible = page.locator(".jp-WindowedPanel-outer").bounding_box()
    for part in ("stage", "now", "transport", "line", "actions", "more", "who", "message"):
        box = page.locator(f".glamkit-{part}").bounding_box()
        assert visible["y"] <= box["y"] and box["y"] + box["height"] <= visible["y"] + visible["height"], part
    page.set_viewport_size({"width": 1280, "height": 1000})


def test_nothing_moves_while_it_plays(fresh: Mirror) -> None:
    """A line that grows or a message that comes must not push the controls down."""
    page = fresh.page
    places = "() => [...document.querySelectorAll('.glamkit-dream > *')].map(one => one.offsetTop).join()"
    page.click(".glamkit-again")
    page.wait_for_timeout(200)
    before = page.evaluate(places)
    for name in ("step", "play", "noise", "back", "again"):
        page.click(f".glamkit-{name}")
        page.wait_for_timeout(200)
        assert page.evaluate(places) == before, name


def test_a_key_is_answered_within_a_tenth_of_a_second(fresh: Mirror) -> None:
    page = fresh.page
    page.select_option(".glamkit-memory", "recurrent")
    page.click(f"{STUDIO} canvas")
    page.evaluate(LATENCY, 1)
    times = []
    for _ in range(8):  # a game of Catch is short
        page.click(".glamkit-again")
        page.wait_for_timeout(150)
        times += page.evaluate(LATENCY, 3)
    assert np.percentile(times, 25) < 100, times  # how long it takes beside other programs is for the measurement


def test_what_is_saved_outlives_the_kernel(fresh: Mirror, lab: Lab) -> None:
    page = fresh.page
    page.click(".glamkit-play")
    page.wait_for_function("() => document.querySelector('.glamkit-value').textContent > 1")
    page.evaluate(RUN, "docmanager:save")
    page.wait_for_function("() => window.outcome")
    cells = nbformat.read(lab.folder / "imagine.ipynb", as_version=4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 6  # these outlive the kernel
    page.click(".glamkit-back")
    page.wait_for_selector(".glamkit-play:has-text('Play')")
    open_notebook(page, lab, "imagine.ipynb")  # the tab was closed, the kernel goes on: so does the studio
    page.wait_for_selector(f"{STUDIO}[data-n]")
    assert page.locator(".glamkit-thumbnails img").count() == len(fresh.player.starts)
    before = int(page.inner_text(".glamkit-value >> nth=0"))
    page.click(".glamkit-back")
    page.wait_for_function("step => document.querySelector('.glamkit-value').textContent === step", arg=str(before - 1))
    page.click(".glamkit-noise")
    page.wait_for_selector(".glamkit-note:has-text('From the next step on it goes on differently')")
    page.evaluate(CLOSE)
    page.wait_for_selector(".glamkit-warning:has-text('it was closed or restarted. Run all cells again.')")
    assert page.locator(".glamkit-note").is_hidden()  # one message
    open_notebook(page, lab, "imagine.ipynb")  # a new kernel knows nothing of the studio
    page.wait_for_selector(".jp-OutputArea-output img")
    assert page.locator(STUDIO).count() == 0
