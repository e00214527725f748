"""Image grids with labels, and an animation of them.

Grey values are given in [0, 1] and mapped to 0 … 255 as they are, clipped but never stretched, so that two pictures can
be compared.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from common.files import atomic_write
from common.fonts import font
from common.run import Run

ZOOM = 2  # screen pixels per image pixel
GAP = 2  # screen pixels between images
STEP = 28 * ZOOM + GAP  # from one image to the next
PAPER, INK = 255, 40  # grey of the margin and of its text


def save_grid(
    path: Path,
    images: Tensor,
    title: str,
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
    keys: Sequence[int] = (),
) -> None:
    """Write images (rows, columns, 28, 28) with grey values in [0, 1] as a PNG with a title and labels. keys: what the
    rows are, for `read_grid`."""
    rows, columns, *_ = images.shape
    grey = (images.float().clamp(0, 1) * 255).round().byte().cpu().numpy()
    large, small = font(15, title), font(13, "".join(row_labels))
    left = max((math.ceil(small.getlength(label)) for label in row_labels), default=0) + 12
    title_height = 12 + 18 * (title.count("\n") + 1)
    top = title_height + (20 if column_labels else 0)
    title_width = max(math.ceil(large.getlength(line)) for line in title.splitlines())
    wide = max(left + columns * STEP + 10, 24 + title_width)
    page = Image.new("L", (wide, top + rows * STEP + 8), PAPER)
    draw = ImageDraw.Draw(page)
    draw.multiline_text((12, 6), title, fill=INK, font=large)
    for row in range(rows):
        y = top + row * STEP
        if row_labels:
            draw.text((left - 6, y + STEP // 2), row_labels[row], fill=INK, font=small, anchor="rm")
        for column in range(columns):
            tile = Image.fromarray(grey[row, column]).resize((28 * ZOOM, 28 * ZOOM), Image.Resampling.NEAREST)
            page.paste(tile, (left + column * STEP, y))
    for column, label in enumerate(column_labels):
        draw.text((left + column * STEP + STEP // 2, top - 11), label, fill=INK, font=small, anchor="mm")
    note = PngInfo()
    note.add_text("rows", json.dumps([left, top, *keys]))
    with atomic_write(path) as scratch:
        page.save(scratch, format="PNG", pnginfo=note)


def read_grid(path: Path, like: Path) -> tuple[Image.Image, int, int]:
    """The page that `save_grid` wrote, its rows of images in the order of those of `like`, and where they begin: left,
    top. Labels stay. What another program has written over the file comes as it is."""
    page, left, top, rows = _noted(path)
    wanted = _noted(like)[-1]
    if sorted(rows) == sorted(wanted):
        strips = [page.crop((left, top + STEP * row, page.width, top + STEP * (row + 1))) for row in range(len(rows))]
        for row, key in enumerate(wanted):
            page.paste(strips[rows.index(key)], (left, top + STEP * row))
    return page, left, top


def _noted(path: Path) -> tuple[Image.Image, int, int, list[int]]:
    """A page with what `save_grid` noted in it: left, top, keys."""
    with Image.open(path) as picture:
        left, top, *keys = json.loads(picture.info.get("rows", "[0, 0]"))
        return picture.convert("L"), left, top, keys


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
    """Join PNG files of `save_grid` into an endless GIF of at most 60 frames, evenly chosen, the rows of each in the
    order of the last one's, which stays for two seconds."""
    chosen = sorted({round(place) for place in np.linspace(0, len(frames) - 1, min(60, len(frames)))})
    pictures = []
    for number in chosen:
        page, *_ = read_grid(frames[number], frames[-1])
        # Sixteen greys keep the file small; the palette is the same in every frame, so nothing flickers.
        pictures.append(page.point(lambda grey: round(grey / 17) * 17).convert("P"))
    durations = [max(80, 3000 // len(pictures))] * (len(pictures) - 1) + [2000]
    first, *others = pictures
    with atomic_write(path) as scratch:
        first.save(
            scratch, format="GIF", save_all=True, append_images=others, duration=durations, loop=0, optimize=True
        )
