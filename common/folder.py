"""A folder of the user's own images as a dataset like MNIST: 28×28, grey, ink white on black.

Sub-folders are classes. What an image looks like is never guessed from its name, only from its pixels.
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from common import BadInput
from common.data import Dataset
from common.streams import stream

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm")
LEAST = 100  # images; fewer leave nothing to measure on
TEST_EVERY = 7  # as in MNIST, one image of seven is for testing
SIZE = 28
LONGEST = 12  # characters of a class's name that are shown


def load_folder(folder: Path) -> Dataset:
    """The images of a folder, or of its sub-folders, which then are the classes in the order of their names.

    Every seventh file by name is a test image; both parts are shuffled, the same way every time. A set whose borders
    are bright on the whole is taken for ink on paper and inverted. Without sub-folders there are no labels.
    Raises BadInput, naming the folder or the file, for fewer than 100 images, for one class or more than ten, for
    images beside classes, and for a file that can't be read.
    """
    folder = folder.resolve()
    try:
        inside = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
        files_of = {path.name: files for path in inside if (files := _images_in(path))}
        loose = _images_in(folder)
    except OSError as error:
        raise BadInput(f"{error.filename}: cannot be read: {error.strerror}") from None
    if loose and files_of:
        raise BadInput(f"{folder}: holds images both beside and in its sub-folders {', '.join(files_of)}")
    if files_of and not 2 <= len(files_of) <= 10:
        raise BadInput(f"{folder}: has {len(files_of)} sub-folders with images; 2 to 10 classes can be told apart")
    files = loose or [file for files in files_of.values() for file in files]
    if len(files) < LEAST:
        raise BadInput(f"{folder}: holds {len(files)} images, itself or in sub-folders; {LEAST} are needed at least")

    images = torch.from_numpy(np.stack([read_image(file) for file in files]))
    if (images == images[0]).all():
        raise BadInput(f"{folder}: all {len(files)} images are the same")
    if _border(images).float().mean() > 127:
        images = 255 - images
    labels = torch.tensor([label for label, files in enumerate(files_of.values()) for _ in files])
    order = torch.randperm(len(files), generator=stream(0, "test images"))
    testing = order % TEST_EVERY == 0
    parts = []
    for part in (order[~testing], order[testing]):
        parts += [images[part], labels[part] if files_of else None]
    return Dataset(folder.name, *parts, classes=tuple(map(_short, files_of)), folder=folder)


def _short(name: str) -> str:
    """A class's name as it fits beside a row of images."""
    return name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"


def _images_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS and not path.name.startswith("."))


def read_image(file: Path) -> np.ndarray:
    """One image file as (28, 28) uint8: turned as its camera says, made grey, centred on a square of its border's grey,
    resized. What is transparent becomes paper: black under bright ink, white under dark. Raises BadInput."""
    try:
        with Image.open(file) as opened:
            image = _grey(ImageOps.exif_transpose(opened))
        if image.size != (SIZE, SIZE):
            side, paper = max(image.size), int(_border(torch.from_numpy(np.array(image))[None]).median())
            square = Image.new("L", (side, side), paper)
            square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
            # Bilinear in Pillow averages over all pixels that it merges and, unlike Lanczos, never overshoots.
            image = square.resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        return np.array(image)
    except Exception as error:  # a damaged image can fail in any way, and all of them mean the same
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        raise BadInput(f"{file}: cannot be read as an image: {reason}") from None


def _grey(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # sixteen bits
        return Image.fromarray((np.array(image) / 257).round().clip(0, 255).astype(np.uint8))
    if "A" not in image.getbands() and "transparency" not in image.info:
        return image.convert("L")
    grey, alpha = image.convert("RGBA").convert("LA").split()
    opaque = np.array(alpha, dtype=float)
    ink = (np.array(grey) * opaque).sum() / max(opaque.sum(), 1)
    return Image.composite(grey, Image.new("L", image.size, 0 if ink > 127 else 255), alpha)


def _border(images: Tensor) -> Tensor:
    """The outermost pixels of images (n, height, width) -> (n, pixels)."""
    inner = images[:, 1:-1]
    return torch.cat((images[:, 0], images[:, -1], inner[:, :, 0], inner[:, :, -1]), dim=1)
