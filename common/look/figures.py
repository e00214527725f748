"""Image grids with labels, and an animation of them.

Grey values are given in [0, 1] and mapped to 0 … 255 as they are, clipped but never stretched, so that two pictures can
be compared.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from common.files import atomic_write
from common.fonts import font
from common.run import Run

ZOOM = 2  # screen pixels per image pixel
GAP = 2  # screen pixels between images
PAPER, INK = 255, 40  # grey of the margin and of its text


def save_grid(
    path: Path, images: Tensor, title: str, row_labels: Sequence[str] = (), column_labels: Sequence[str] = ()
) -> None:
    """Write images (rows, columns, 28, 28) with grey values in [0, 1] as a PNG with a title and labels."""
    rows, columns, height, width = images.shape
    grey = (images.float().clamp(0, 1) * 255).round().byte().cpu().numpy()
    step_y, step_x = height * ZOOM + GAP, width * ZOOM + GAP
    large, small = font(15, title), font(13, "".join(row_labels))
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
    with atomic_write(path) as scratch:
        page.save(scratch, format="PNG")


def draw_reals(run: Run) -> None:
    """reals.png: ten training images of every class; the first hundred where there are no classes."""
    data = run.data
    if data.classes:
        rows = [data.train_images[data.train_labels == label] for label in range(len(data.classes))]
        shown = torch.cat([tiled(row, 1, 10) for row in rows])
    else:
        shown = tiled(data.train_images, 10, 10)
    save_grid(run.folder / "reals.png", shown / 255, f"{data.title}: training images", data.classes)


def tiled(images: Tensor, rows: int, columns: int) -> Tensor:
    """The first images of (n, height, width) as (rows, columns, height, width), black where there are too few."""
    shown = images.new_zeros(rows * columns, *images.shape[1:])
    shown[: len(images)] = images[: len(shown)]
    return shown.view(rows, columns, *images.shape[1:])


def epoch_pictures(folder: Path, ending: str = "") -> list[Path]:
    """The pictures epoch_NNN and this ending of a run folder, in the order of the epochs."""
    return sorted(folder.glob(f"epoch_*{ending}.png"), key=lambda path: int(path.stem.split("_")[1]))


def save_animation(path: Path, frames: Sequence[Path]) -> None:
    """Join PNG files into an endless GIF of at most 60 frames, evenly chosen. The last one stays for two seconds."""
    chosen = sorted({round(place) for place in np.linspace(0, len(frames) - 1, min(60, len(frames)))})
    pictures = []
    for number in chosen:
        with Image.open(frames[number]) as picture:
            # Sixteen greys keep the file small; the palette is the same in every frame, so nothing flickers.
            pictures.append(picture.convert("L").point(lambda grey: round(grey / 17) * 17).convert("P"))
    durations = [max(80, 3000 // len(pictures))] * (len(pictures) - 1) + [2000]
    first, *others = pictures
    with atomic_write(path) as scratch:
        first.save(
            scratch, format="GIF", save_all=True, append_images=others, duration=durations, loop=0, optimize=True
        )
