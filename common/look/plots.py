"""Plots of numbers: curves and tables, drawn by matplotlib with the project's own settings."""

import contextlib
import io
import math
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from common.look.fonts import families, load_matplotlib
from common.run.files import atomic_write
from common.run.run import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 120
MOST_LABELS = 14  # that fit beside axes


@contextlib.contextmanager
def new_figure(width: float, height: float, text: str = "") -> Iterator["Figure"]:
    """An empty figure, in inches, with a font for this text; to be drawn and saved within the context.

    Within it matplotlib has its defaults instead of the user's settings, and text is never parsed: a class may be
    called a$_$.
    """
    matplotlib = load_matplotlib()
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({"text.parse_math": False, "font.family": families(text)})
        yield Figure(figsize=(width, height), layout="constrained")


def save_figure(path: Path, figure: "Figure") -> None:
    """Save a figure as PNG, without dates or versions: equal figures are equal bytes."""
    with atomic_write(path) as scratch:
        figure.savefig(scratch, format="png", dpi=DPI, metadata={"Software": None})


def rendered(figure: "Figure") -> Image.Image:
    """A figure as an image that can be pasted into another."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=DPI)
    return Image.open(content).convert("RGB")


def save_curves(
    run: Run,
    panels: Mapping[str, Sequence[str]],
    reference: Mapping[str, tuple[float, str]] | None = None,
    logarithmic: Sequence[str] = (),
    percent: Sequence[str] = (),
    limits: Mapping[str, tuple[float, float]] | None = None,
    names: Mapping[str, str] | None = None,
    dashed: Container[str] = (),
) -> None:
    """Save curves.png, the columns of metrics.csv over the epochs, if `run.plot_due`.

    panels: {title: columns}; a column that was not measured has no line, a panel without a line or with zeros alone is
    left out. reference: {panel: (height, label)}, a horizontal line if it lies within the limits. logarithmic: panels
    whose axis is logarithmic if their values span a factor of ten. percent: panels whose values are shares, shown in
    percent. limits: {panel: (lowest, highest)}, of the y axis. names: {column: label}, for other labels than the
    column's name. dashed: columns with a dashed line, of the colour of the line before.
    """
    if not run.plot_due():
        return
    reference, limits, names = reference or {}, limits or {}, names or {}
    known = {name for row in run.rows for name, value in row.items() if value}
    panels = {title: [name for name in columns if name in known] for title, columns in panels.items()}
    panels = {title: columns for title, columns in panels.items() if columns}
    if not panels:
        return
    across = min(3, len(panels))
    down = math.ceil(len(panels) / across)
    with new_figure(4.6 * across, 2.9 * down + 0.4, run.title + "".join(names.values())) as figure:
        grid = figure.add_gridspec(down, 6)
        for i, (title, columns) in enumerate(panels.items()):
            row, place = divmod(i, across)
            width = 6 // min(across, len(panels) - across * row)  # the panels of the last row fill it
            axes = epoch_axes(figure, (grid[row, place * width : (place + 1) * width],), title)
            scale, ends = 100 if title in percent else 1, []
            low, high = (scale * limit for limit in limits.get(title, (-math.inf, math.inf)))
            for name in columns:
                points = ((row["epoch"], scale * row[name]) for row in run.rows if name in row)
                epochs, curve = zip(*points, strict=True)
                style = {"linestyle": "--", "color": axes.lines[-1].get_color()} if name in dashed else {}
                [line] = axes.plot(epochs, curve, marker="o", markersize=2.5, linewidth=1.4, **style)
                ends.append((curve[-1], names.get(name, name), line.get_color()))
            values = [value for line in axes.lines for value in line.get_ydata()]
            height, label = reference.get(title, (math.inf, ""))
            if label and low <= scale * height <= high:
                axes.axhline(scale * height, color="0.35", linestyle="--", linewidth=1)
                ends.append((scale * height, label, "0.35"))
            if title in limits:
                axes.set_ylim(low, high)
            elif title in logarithmic and 0 < 10 * min(values) < max(values):
                logarithmic_axis(axes)
            axes.set_xlim(left=0)
            label_ends(axes, ends)
        figure.suptitle(run.title, fontsize=11)
        save_figure(run.folder / "curves.png", figure)


def label_ends(axes: "Axes", ends: Sequence[tuple[float, str, str]]) -> None:
    """Write (height, label, colour) of lines to the right of the axes, without overlap. The limits of y are fixed.

    Of more than MOST_LABELS lines only the highest and the lowest have a label.
    """
    axes.set_ylim(axes.get_ylim())
    ends = sorted(ends, reverse=True)
    if len(ends) > MOST_LABELS:
        ends = [*ends[: MOST_LABELS // 2], *ends[-MOST_LABELS // 2 :]]
    heights = axes.transData.transform([(0, height) for height, _, _ in ends])
    places = axes.transAxes.inverted().transform(heights)[:, 1].tolist()
    for i in range(1, len(places)):
        places[i] = min(places[i], places[i - 1] - 0.065)
    up = max(0.0, -places[-1])  # no label below the axes
    for place, (_, label, colour) in zip(places, ends, strict=True):
        style = {"color": colour, "va": "center", "fontsize": 8, "annotation_clip": False}
        axes.annotate(label, (1, place + up), (5, 0), xycoords="axes fraction", textcoords="offset points", **style)


def logarithmic_axis(axes: "Axes") -> None:
    """Make the y axis logarithmic, with labels in plain text."""
    from matplotlib.ticker import LogFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(LogFormatter())
    axes.yaxis.set_minor_formatter(LogFormatter())


def epoch_axes(figure: "Figure", place: tuple, title: str) -> "Axes":
    """Axes whose x is the epoch. place: arguments of `add_subplot`."""
    axes = figure.add_subplot(*place)
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("epoch", fontsize=8)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.tick_params(which="both", labelsize=8)
    axes.grid(alpha=0.25)
    return axes


def save_confusion(
    path: Path,
    table: np.ndarray,
    title: str,
    row_labels: Sequence[str],
    column_labels: Sequence[str],
    axis_labels: tuple[str, str],
) -> None:
    """Save a contingency table (rows, columns) of counts as percentages of each row. axis_labels: (y, x)."""
    width, height = max(8.0, 3 + 0.35 * len(column_labels)), max(6.0, 1.2 + 0.3 * len(row_labels))
    with new_figure(width, height, "".join((title, *row_labels, *column_labels))) as figure:
        axes = figure.add_subplot()
        shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
        axes.imshow(shares**0.4, cmap="Blues", vmin=0, vmax=1)  # so that one in a hundred can be seen
        for (i, j), share in np.ndenumerate(shares):
            if share >= 0.0005:
                colour = "white" if share > 0.25 else "0.25"
                axes.text(j, i, f"{100 * share:.1f}", ha="center", va="center", fontsize=8, color=colour)
        axes.set_xticks(range(len(column_labels)), column_labels, fontsize=9)
        axes.set_yticks(range(len(row_labels)), row_labels, fontsize=9)
        axes.set(ylabel=axis_labels[0], xlabel=axis_labels[1])
        axes.set_title(title, fontsize=10)
        axes.tick_params(length=0)
        rotate_long_labels(axes)
        save_figure(path, figure)


def rotate_long_labels(axes: "Axes") -> None:
    """Rotate the labels of the x axis if they are so long that they would overlap."""
    labels = axes.get_xticklabels()
    if max(len(label.get_text()) for label in labels) > 6:
        for label in labels:
            label.set(rotation=35, ha="right", rotation_mode="anchor")
