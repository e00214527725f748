"""Plots of numbers: curves and tables, drawn by matplotlib with the project's own settings."""

import contextlib
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from common.files import atomic_write
from common.fonts import families, load_matplotlib
from common.run import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 120


@contextlib.contextmanager
def new_figure(width: float, height: float, text: str = "") -> Iterator["Figure"]:
    """An empty figure of this many inches that can show this text, to be drawn and saved within the context.

    There matplotlib has its defaults, and text appears as it is: a class may be called a$_$. The user's settings are
    back afterwards.
    """
    matplotlib = load_matplotlib()
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({"text.parse_math": False, "font.family": families(text)})
        yield Figure(figsize=(width, height), layout="constrained")


def save_figure(path: Path, figure: "Figure", pdf: bool = True) -> None:
    """Write a figure as PNG and, for papers, as PDF beside it. No date or version goes into the files: equal figures
    are equal bytes."""
    with atomic_write(path) as scratch:
        figure.savefig(scratch, format="png", dpi=DPI, metadata={"Software": None})
    if pdf:
        figure.set_layout_engine("none")  # everything has found its place, which takes as long as drawing it
        with atomic_write(path.with_suffix(".pdf")) as scratch:
            figure.savefig(scratch, format="pdf", metadata=dict.fromkeys(("Creator", "Producer", "CreationDate")))


def rendered(figure: "Figure") -> Image.Image:
    """A figure as a picture to be pasted into another."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=DPI)
    return Image.open(content).convert("RGB")


def save_curves(
    path: Path,
    rows: Sequence[Mapping[str, float]],
    title: str,
    panels: Mapping[str, Sequence[str]],
    reference: Mapping[str, tuple[float, str]] | None = None,
    logarithmic: Sequence[str] = (),
    percent: Sequence[str] = (),
    names: Mapping[str, str] | None = None,
    pdf: bool = True,
) -> None:
    """Plot rows of metrics.csv against the epoch: a panel per entry of `panels` (its title, then its columns). What was
    not measured is left out.

    `reference` adds a labelled horizontal line to a panel: {panel: (height, label)}; `logarithmic` names panels whose
    axis is logarithmic once their values span a factor of ten, `percent` those whose axis goes from 0 to 100 %; `names`
    are columns that are called otherwise.
    """
    if not rows:
        return
    panels = {name: there for name, columns in panels.items() if (there := [c for c in columns if c in rows[0]])}
    across = min(3, len(panels))
    down = math.ceil(len(panels) / across)
    epochs = [row["epoch"] for row in rows]
    text = title + "".join((names or {}).values())
    with new_figure(4.6 * across, 2.9 * down + 0.4, text) as figure:
        grid = figure.add_gridspec(down, 6)
        for i, (panel, columns) in enumerate(panels.items()):
            row, place = divmod(i, across)
            width = 6 // min(across, len(panels) - across * row)  # the last row is filled, too
            axes = epoch_axes(figure, (grid[row, place * width : (place + 1) * width],), panel)
            ends = []
            for column in columns:
                values = [row[column] for row in rows]
                [line] = axes.plot(epochs, values, marker="o", markersize=2.5, linewidth=1.4)
                ends.append((values[-1], (names or {}).get(column, column), line.get_color()))
            if reference and panel in reference:
                height, label = reference[panel]
                axes.axhline(height, color="0.35", linestyle="--", linewidth=1)
                ends.append((height, label, "0.35"))
            if panel in percent:
                axes.set_ylim(0, 1)
                axes.yaxis.set_major_formatter("{x:.0%}")
            elif panel in logarithmic and wide_range((row[column] for row in rows for column in columns), 10):
                logarithmic_axis(axes)
            elif not any(row[column] for row in rows for column in columns):
                axes.set_ylim(-0.1, 1)  # all zeros: matplotlib would zoom in on nothing
            name_ends(axes, ends)
        figure.suptitle(title, fontsize=11)
        save_figure(path, figure, pdf)


def name_ends(axes: "Axes", ends: Sequence[tuple[float, str, str]]) -> None:
    """Write (height, name, colour) of lines right of the axes, apart where they would touch. The limits stay."""
    axes.set_ylim(axes.get_ylim())
    heights = axes.transData.transform([(0, height) for height, _, _ in ends])
    places = axes.transAxes.inverted().transform(heights)[:, 1]
    free = math.inf  # below the last name
    for place, (_, name, colour) in sorted(zip(places, ends, strict=True), reverse=True):
        free = min(place, free - 0.065)
        style = {"color": colour, "va": "center", "fontsize": 8, "annotation_clip": False}
        axes.annotate(name, (1, free), (5, 0), xycoords="axes fraction", textcoords="offset points", **style)


def draw_curves(run: Run, panels: Mapping[str, Sequence[str]], **how: Any) -> None:
    """curves.png of the epochs that are complete, unless it was drawn a moment ago. how: as of `save_curves`."""
    if run.plot_due():
        save_curves(run.folder / "curves.png", run.rows, run.title, panels, pdf=run.epoch == run.epochs, **how)


def logarithmic_axis(axes: "Axes") -> None:
    """Make the y axis logarithmic, with labels in plain text."""
    from matplotlib.ticker import LogFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(LogFormatter())
    axes.yaxis.set_minor_formatter(LogFormatter())


def wide_range(values: Iterable[float], factor: float) -> bool:
    """Whether numbers are positive and span more than this factor, so that a logarithmic axis shows more."""
    values = list(values)
    return bool(values) and 0 < factor * min(values) < max(values)


def epoch_axes(figure: "Figure", place: tuple, title: str) -> "Axes":
    """Axes for something over the epochs, at the `place` of a figure that `add_subplot` takes."""
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
    """Draw a contingency table (rows, columns) of counts as percentages of the rows. axis_labels: of y and x."""
    with new_figure(8.0, 6.0, "".join((title, *row_labels, *column_labels))) as figure:
        axes = figure.add_subplot()
        shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for (i, j), share in np.ndenumerate(shares):
            if share >= 0.0005:
                colour = "white" if share > 0.5 else "0.25"
                axes.text(j, i, f"{100 * share:.1f}", ha="center", va="center", fontsize=8, color=colour)
        axes.set_xticks(range(len(column_labels)), column_labels, fontsize=9)
        slant_long(axes)
        axes.set_yticks(range(len(row_labels)), row_labels, fontsize=9)
        axes.tick_params(length=0)
        axes.set_ylabel(axis_labels[0])
        axes.set_xlabel(axis_labels[1])
        axes.set_title(title, fontsize=10)
        save_figure(path, figure)


def slant_long(axes: "Axes") -> None:
    """Turn the labels of the x axis where names of classes would run into each other."""
    labels = axes.get_xticklabels()
    if max(len(label.get_text()) for label in labels) > 6:
        for label in labels:
            label.set(rotation=35, ha="right", rotation_mode="anchor")
