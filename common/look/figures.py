"""Image grids with labels, and an animation of them.

Grey values in [0, 1] are mapped to 0 … 255, clipped but never stretched, so that two pictures can be compared.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from common.look.fonts import display_names, font
from common.run.console import wrapped
from common.run.files import atomic_write
from common.run.run import Run

ZOOM = 2  # screen pixels per image pixel
GAP = 2  # screen pixels between images
STEP = 28 * ZOOM + GAP  # from one image to the next
PAPER, INK = 255, 40  # grey of the background and of the text on it


def save_grid(
    path: Path,
    images: Tensor,
    title: str,
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
) -> None:
    """Save images (rows, columns, 28, 28) with grey values in [0, 1] as a PNG with a title and labels."""
    rows, columns, *_ = images.shape
    grey = (images.float().clamp(0, 1) * 255).round().byte().cpu().numpy()
    large, small = font(15, title), font(13, "".join(row_labels))
    left = max((math.ceil(small.getlength(label)) for label in row_labels), default=0) + 12
    top = 30 + 18 * title.count("\n") + (20 if column_labels else 0)
    title_width = max(math.ceil(large.getlength(line)) for line in title.splitlines())
    page = Image.new("L", (max(left + columns * STEP + 10, title_width + 24), top + rows * STEP + 8), PAPER)
    draw = ImageDraw.Draw(page)
    draw.multiline_text((12, 6), title, fill=INK, font=large)
    for row, label in enumerate(row_labels):
        draw.text((left - 6, top + row * STEP + STEP // 2), label, fill=INK, font=small, anchor="rm")
    for column, label in enumerate(column_labels):
        draw.text((left + column * STEP + STEP // 2, top - 11), label, fill=INK, font=small, anchor="mm")
    for row, column in np.ndindex(rows, columns):
        enlarged = Image.fromarray(grey[row, column]).resize((28 * ZOOM, 28 * ZOOM), Image.Resampling.NEAREST)
        page.paste(enlarged, (left + column * STEP, top + row * STEP))
    metadata = PngInfo()
    metadata.add_text("first image", f"{left} {top}")  # its corner
    with atomic_write(path) as scratch:
        page.save(scratch, format="PNG", pnginfo=metadata)


def save_reals(run: Run) -> None:
    """Save reals.png: ten training images of every class, or the first hundred of a set without classes."""
    data = run.data
    if data.classes:
        of_class = (data.train_images[data.train_labels == label] for label in range(len(data.classes)))
        shown = torch.cat([tile(images, 1, 10) for images in of_class])
    else:
        shown = tile(data.train_images, 10, 10)
    names = display_names(data.classes)
    if names == tuple(map(str, range(1, len(names) + 1))) != data.classes:
        pairs = ", ".join(map(" = ".join, zip(names, data.classes, strict=True)))
        run.say(wrapped(f"pictures can't show the names of the classes and number them: {pairs}"))
    title = f"{data.title}: training images"
    save_grid(run.folder / "reals.png", shown / 255, title, names)


def tile(images: Tensor, rows: int, columns: int) -> Tensor:
    """The first images of (n, height, width) as (rows, columns, height, width), black if there are too few."""
    shown = images.new_zeros(rows * columns, *images.shape[1:])
    shown[: len(images)] = images[: len(shown)]
    return shown.view(rows, columns, *images.shape[1:])


def save_animation(run: Run, ending: str = "") -> None:
    """Save training.gif: the pictures epoch_NNN with this ending as an endless GIF, at most 60 of them, evenly spaced.

    The last one is shown for two seconds.
    """
    frames = sorted(run.folder.glob(f"epoch_*{ending}.png"), key=lambda path: int(path.stem.split("_")[1]))
    chosen = sorted({round(place) for place in np.linspace(0, len(frames) - 1, min(60, len(frames)))})
    durations = [max(80, 3000 // len(chosen))] * (len(chosen) - 1) + [2000]
    save_gif(run.folder / "training.gif", [Image.open(frames[i]).convert("L") for i in chosen], durations)


def save_sweep(path: Path, sweeps: Mapping[str, Tensor]) -> None:
    """Save {name: images (frames, k, 28, 28) with grey values in [0, 1]} as an endless GIF, one sweep after the other.

    A frame has the k images in rows of five, of ten and smaller if there are more than ten, under the name of the
    sweep, which takes 2.4 seconds.
    """
    frames, durations = [], []
    for name, sweep in sweeps.items():
        durations += [2400 // len(sweep)] * len(sweep)
        size = 28 * (3 if sweep.shape[1] <= 10 else 2)
        columns = 5 if sweep.shape[1] <= 10 else 10
        rows = math.ceil(sweep.shape[1] / columns)
        for images in (sweep.float().clamp(0, 1) * 255).round().byte().cpu():
            sheet = tile(images, rows, columns).permute(0, 2, 1, 3).flatten(2).flatten(0, 1).numpy()
            page = Image.new("L", (columns * size, 28 + rows * size), PAPER)
            ImageDraw.Draw(page).text((6, 14), name, fill=INK, font=font(18, name), anchor="lm")
            page.paste(Image.fromarray(sheet).resize((columns * size, rows * size), Image.Resampling.BICUBIC), (0, 28))
            frames.append(page)
    save_gif(path, frames, durations)


def save_gif(path: Path, frames: Sequence[Image.Image], durations: Sequence[int]) -> None:
    """Save grey pages as an endless GIF, each shown for so many milliseconds."""
    # Sixteen greys keep the file small; the palette is the same in every frame, so nothing flickers.
    first, *others = (frame.point(lambda grey: round(grey / 17) * 17).convert("P") for frame in frames)
    with atomic_write(path) as scratch:
        first.save(
            scratch, format="GIF", save_all=True, append_images=others, duration=durations, loop=0, optimize=True
        )
