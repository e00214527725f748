"""Pictures that explain themselves: image grids with labels, curves, a confusion table, an animation.

Grey values are given in [0, 1] and mapped to 0 … 255 as they are, clipped but never stretched, so that two pictures can
be compared. Every file appears complete or not at all. matplotlib is imported only by what plots: it takes a second.
"""

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from common.run import TIME_COLUMNS, whole_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ZOOM = 2  # screen pixels per image pixel
GAP = 2  # screen pixels between images
PAPER, INK = 255, 40  # grey of the margin and of its text
DPI = 120  # of plots
ANIMATION = 5_000_000  # bytes at most, so that it can be sent and put on a page


def save_grid(
    path: Path, images: Tensor, title: str, row_labels: Sequence[str] = (), column_labels: Sequence[str] = ()
) -> None:
    """Write images (rows, columns, 28, 28) with grey values in [0, 1] as a PNG with a title and labels."""
    rows, columns, height, width = images.shape
    grey = (images.float().clamp(0, 1) * 255).round().byte().cpu().numpy()
    step_y, step_x = height * ZOOM + GAP, width * ZOOM + GAP
    large, small = font(15), font(13)
    left = max((math.ceil(small.getlength(label)) for label in row_labels), default=0) + 12
    title_height = 12 + 18 * (title.count("\n") + 1)
    top = title_height + (20 if column_labels else 0)
    title_width = max(math.ceil(large.getlength(line)) for line in title.splitlines())
    wide = max(left + columns * step_x + 10, 24 + title_width)
    page = Image.new("L", (wide, top + rows * step_y + 8), PAPER)
    draw = ImageDraw.Draw(page)
    draw.multiline_text((12, 6), title, fill=INK, font=large)
    for row in range(rows):
        y = top + row * step_y
        if row_labels:
            draw.text((left - 6, y + step_y // 2), row_labels[row], fill=INK, font=small, anchor="rm")
        for column in range(columns):
            tile = Image.fromarray(grey[row, column]).resize((width * ZOOM, height * ZOOM), Image.Resampling.NEAREST)
            page.paste(tile, (left + column * step_x, y))
    for column, label in enumerate(column_labels):
        draw.text((left + column * step_x + step_x // 2, top - 11), label, fill=INK, font=small, anchor="mm")
    with whole_file(path) as scratch:
        page.save(scratch, format="PNG")


def tiled(images: Tensor, rows: int, columns: int) -> Tensor:
    """The first images of (n, height, width) as (rows, columns, height, width), black where there are too few."""
    shown = images.new_zeros(rows * columns, *images.shape[1:])
    shown[: len(images)] = images[: len(shown)]
    return shown.view(rows, columns, *images.shape[1:])


def save_curves(
    path: Path,
    rows: Sequence[Mapping[str, float]],
    title: str,
    panels: Mapping[str, Sequence[str]],
    limits: Mapping[str, tuple[float, str]] | None = None,
    logarithmic: Sequence[str] = (),
    names: Mapping[str, str] | None = None,
) -> None:
    """Plot metrics.csv against the epoch: a panel per entry of `panels` (its title, then the columns drawn in it).

    A panel whose columns were not measured is left out. Columns that no panel names get one of their own, but for the
    time columns: pictures of equal runs are equal.
    `limits` adds a labelled horizontal line to a panel: {panel: (height, label)}; `logarithmic` names panels that have
    a logarithmic axis once their values span a factor of ten; `names` are columns that are called otherwise.
    """
    if not rows:
        return
    named = {column for columns in panels.values() for column in columns} | {"epoch", *TIME_COLUMNS}
    panels = {**panels, **{column: [column] for column in rows[0] if column not in named}}
    panels = {name: there for name, columns in panels.items() if (there := [c for c in columns if c in rows[0]])}
    across = min(3, len(panels))
    down = math.ceil(len(panels) / across)
    figure = new_figure(4.2 * across, 2.9 * down + 0.4)
    epochs = [row["epoch"] for row in rows]
    for i, (name, columns) in enumerate(panels.items()):
        axes = epoch_axes(figure, (down, across, i + 1), name)
        for column in columns:
            label = (names or {}).get(column, column)
            axes.plot(epochs, [row[column] for row in rows], label=label, marker="o", markersize=2.5, linewidth=1.4)
        if limits and name in limits:
            height, label = limits[name]
            axes.axhline(height, color="0.35", linestyle="--", linewidth=1, label=label)
        if name in logarithmic and wide_range((row[column] for row in rows for column in columns), 10):
            axes.set_yscale("log")
        elif not any(row[column] for row in rows for column in columns):
            axes.set_ylim(-0.1, 1)  # all zeros: matplotlib would zoom in on nothing
        axes.legend(fontsize=7, frameon=False)
    figure.suptitle(title, fontsize=11)
    save_figure(path, figure)


def wide_range(values: Iterable[float], factor: float) -> bool:
    """Whether numbers are positive and span more than this factor, so that a logarithmic axis shows more."""
    values = list(values)
    return bool(values) and 0 < factor * min(values) < max(values)


def epoch_axes(figure: "Figure", place: tuple[int, int, int], title: str) -> "Axes":
    """Axes for something over the epochs, at `place` (rows, columns, number) of a figure."""
    axes = figure.add_subplot(*place)
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("epoch", fontsize=8)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.tick_params(which="both", labelsize=8)
    axes.grid(alpha=0.25)
    return axes


def save_confusion(
    path: Path, table: np.ndarray, title: str, row_labels: Sequence[str], column_labels: Sequence[str]
) -> None:
    """Draw a contingency table (rows, columns) of counts, shaded by the share of each row."""
    figure = new_figure(6.4, 6.0)
    axes = figure.add_subplot()
    axes.imshow(table / np.maximum(table.sum(axis=1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1)
    for (i, j), count in np.ndenumerate(table):
        dark = count > 0.5 * table[i].sum()
        if count:
            axes.text(j, i, str(count), ha="center", va="center", fontsize=8, color="white" if dark else "0.25")
    axes.set_xticks(range(len(column_labels)), column_labels, fontsize=9)
    slant_long(axes)
    axes.set_yticks(range(len(row_labels)), row_labels, fontsize=9)
    axes.tick_params(length=0)
    axes.set_xlabel("class of the image")
    axes.set_ylabel("category that Q gives it, and the class it matches")
    axes.set_title(title, fontsize=10)
    save_figure(path, figure)


def slant_long(axes: "Axes") -> None:
    """Turn the labels of the x axis where names of classes would run into each other."""
    labels = axes.get_xticklabels()
    if max(len(label.get_text()) for label in labels) > 6:
        for label in labels:
            label.set(rotation=35, ha="right", rotation_mode="anchor")


def save_animation(path: Path, frames: Sequence[Path], most: int = 60) -> None:
    """Join PNG files into an endless GIF of at most `most` frames, evenly chosen and fewer if it would be larger than
    ANIMATION bytes; the first and the last are always among them, and the last stays for two seconds."""
    content = _animation(frames, most)
    while len(content) > ANIMATION and most > 2:
        most = max(2, most * 3 // 4)
        content = _animation(frames, most)
    with whole_file(path) as scratch:
        scratch.write_bytes(content)


def _animation(frames: Sequence[Path], most: int) -> bytes:
    chosen = [frames[i] for i in sorted({round(k) for k in np.linspace(0, len(frames) - 1, min(most, len(frames)))})]
    pictures = []
    for frame in chosen:
        with Image.open(frame) as picture:
            # Sixteen greys keep the file small; the palette is the same in every frame, so nothing flickers.
            pictures.append(picture.convert("L").point(lambda grey: round(grey / 17) * 17).convert("P"))
    durations = [max(80, 3000 // len(pictures))] * (len(pictures) - 1) + [2000]
    content = io.BytesIO()
    pictures[0].save(
        content, format="GIF", save_all=True, append_images=pictures[1:], duration=durations, loop=0, optimize=True
    )
    return content.getvalue()


def new_figure(width: float, height: float) -> "Figure":
    """An empty matplotlib figure of this many inches that touches no global state and needs no screen."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def rendered(figure: "Figure") -> Image.Image:
    """A figure as a picture to be pasted into another."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=DPI)
    return Image.open(content).convert("RGB")


def save_figure(path: Path, figure: "Figure") -> None:
    """Write a figure as PNG and, for papers, as PDF beside it. No date or version goes into the files: equal figures
    are equal bytes."""
    with whole_file(path) as scratch:
        figure.savefig(scratch, format="png", dpi=DPI, metadata={"Software": None})
    figure.set_layout_engine("none")  # everything has found its place, which takes as long as drawing it
    with whole_file(path.with_suffix(".pdf")) as scratch:
        figure.savefig(scratch, format="pdf", metadata=dict.fromkeys(("Creator", "Producer", "CreationDate")))


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """The font of all pictures, this many screen pixels high."""
    from matplotlib import get_data_path

    return ImageFont.truetype(str(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)
