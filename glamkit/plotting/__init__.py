"""Static figures: one restrained style, colours that colour-blind readers can tell apart, titles that say what to see.

Every function returns a `Picture`, a matplotlib Figure that any notebook shows by itself.
Nothing here touches pyplot, so no figure outlives its reader and no backend is chosen.
"""

from glamkit.plotting.curves import (
    Entries,
    decades,
    draw_curves,
    draw_series,
    evaluations,
    learning_curve,
    live,
    losses,
    same_steps,
    series,
)
from glamkit.plotting.frames import film, films, show, strip
from glamkit.plotting.intervals import interval, student
from glamkit.plotting.picture import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    SMALL,
    STEPS,
    WIDE,
    Picture,
    count,
    figure,
    heading,
    in_words,
    label,
    legend_below,
    lines,
    look,
    panel_title,
    style,
)
