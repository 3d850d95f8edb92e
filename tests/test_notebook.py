"""What tables and bars look like as HTML."""

from pathlib import Path

import pytest

from glamkit import notebook
from glamkit.cli import notebooks


def test_parts_of_a_line_stay_apart() -> None:
    text = "4 of 4 runs done  step 384/384"
    for shown in (notebook.Bar(text, 1, 2), notebook.Table([("a", "b")], text)):
        assert "4 of 4 runs done &nbsp;·&nbsp; step 384/384" in shown._repr_html_()
        assert text in repr(shown)


def test_notebooks_of_a_checkout_of_any_name_are_opened_where_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    checkout = tmp_path / "glamkit" / "notebooks"  # as git clone calls it
    checkout.mkdir(parents=True)
    for name in ("02_train.ipynb", "Untitled.ipynb"):
        (checkout / name).write_text("{}")
    monkeypatch.setattr(notebooks, "folder", lambda: checkout)
    assert notebooks.place(None) == checkout
    assert notebooks.find("train") == checkout / "02_train.ipynb"
    assert notebooks.find("Untitled") == checkout / "Untitled.ipynb"
