"""What tables and bars look like as HTML."""

from glamkit import notebook


def test_parts_of_a_line_stay_apart() -> None:
    text = "4 of 4 runs done  step 384/384"
    for shown in (notebook.Bar(text, 1, 2), notebook.Table([("a", "b")], text)):
        assert "4 of 4 runs done &nbsp;·&nbsp; step 384/384" in shown._repr_html_()
        assert text in repr(shown)
