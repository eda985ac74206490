"""What surrounds the panels of a picture: titles that fit, and one legend with an explanation."""

import textwrap
from collections.abc import Mapping, Sequence

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure, SubFigure
from matplotlib.text import Text
from matplotlib.textpath import text_to_path

_POINTS = 72  # per inch
_SMALL = 7  # points, the letters below a picture
_SMALLEST = 5  # points, letters of narrow pictures
_LEAST = 2.6  # inches, the height of narrow pictures
_NARROWEST = 12  # letters
#: What the sample of an entry of a legend takes beside its words, in points.
_SAMPLE = 36
#: What the labels of the vertical axis take of the width of a panel, in points.
_BESIDE = 36


def explain(picture: Figure, panels: Sequence[Axes], about: str = "") -> None:
    """Put one legend of all panels below a picture, off the curves, with an explanation above it.

    Args:
        picture: The picture.
        panels: Whose labelled artists are named; of several with one label, the first.
        about: Whatever else a reader must know.
    """
    entries: dict[str, Artist] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    _place_legend(picture, entries, about)


def _place_legend(
    picture: Figure, entries: Mapping[str, Artist], about: str, size: float = _SMALL
) -> None:
    width = _width(picture)
    font = Text(fontsize=size)
    longest = max((_length(label, font) for label in entries), default=0)
    legend = picture.legend(
        list(entries.values()),
        list(entries),
        loc="outside lower center",
        ncols=max(1, min(len(entries), int(width / (longest + _SAMPLE)))),
        fontsize=size,
        title=_wrapped(about, width - 2 * size, font),
        title_fontsize=size,
        frameon=False,
    )
    legend.get_title().set_horizontalalignment("center")


def resize(picture: Figure, width: float) -> None:
    """Give a picture another width, in inches, and its height and letters in proportion.

    Letters keep their size in a wider picture and shrink to no less than 5 points in a narrower
    one, which has room for them in height.
    """
    own_width, own_height = picture.get_size_inches()
    share = width / own_width
    picture.set_size_inches(width, max(share * own_height, min(own_height, _LEAST)))
    for text in picture.findobj(Text):
        assert isinstance(text, Text)
        size = text.get_fontsize()
        text.set_fontsize(max(min(share, 1) * size, min(size, _SMALLEST)))
    for axes in picture.axes:
        for axis in axes.findobj(Axis):
            assert isinstance(axis, Axis)
            (tick,) = axis.get_major_ticks(1)  # others are made like it where they are needed
            axis.set_tick_params(labelsize=tick.label1.get_fontsize())


def fit(picture: Figure) -> None:
    """Break the titles that are wider than their place, and lay out the legend for the width."""
    for legend in list(picture.legends):
        pairs = zip(legend.get_texts(), legend.legend_handles, strict=True)
        entries = {text.get_text(): handle for text, handle in pairs if handle is not None}
        title = legend.get_title()
        legend.remove()
        about = " ".join(title.get_text().split())
        _place_legend(picture, entries, about, float(title.get_fontsize()))
    for part in _parts(picture):
        for text in part.texts:
            text.set_text(_wrapped(text.get_text(), _width(part), text))
    for axes in picture.axes:
        place = axes.get_subplotspec()
        if place is not None:
            parent, grid = axes.get_figure(), place.get_gridspec()
            assert isinstance(parent, Figure | SubFigure)
            share = len(place.colspan) / grid.ncols
            text = axes.title
            text.set_text(_wrapped(text.get_text(), share * _width(parent) - _BESIDE, text))


def _parts(part: Figure | SubFigure) -> list[Figure | SubFigure]:
    """List a figure and all its parts."""
    return [part, *(inner for own in part.subfigs for inner in _parts(own))]


def _width(part: Figure | SubFigure) -> float:
    """Return the width of a figure or of a part of one, in points, less a margin."""
    root = part.get_figure(root=True)
    assert root is not None
    return float(part.bbox.width / root.dpi * _POINTS) - _SMALL


def _length(line: str, like: Text) -> float:
    """Measure a line of text in the font of ``like``, in points."""
    return float(
        text_to_path.get_text_width_height_descent(line, like.get_fontproperties(), False)[0]
    )


def _wrapped(text: str, width: float, like: Text) -> str:
    """Break the lines of a text that are wider than ``width`` points."""
    return "\n".join(_wrapped_line(line, width, like) for line in text.split("\n"))


def _wrapped_line(line: str, width: float, like: Text) -> str:
    letters = len(line)
    while True:
        parts = textwrap.wrap(line, max(letters, _NARROWEST), break_long_words=False) or [line]
        longest = max(_length(part, like) for part in parts)
        if longest <= width or letters <= _NARROWEST:
            return "\n".join(parts)
        letters = min(letters - 1, int(letters * width / longest))
