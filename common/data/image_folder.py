"""A folder of the user's own images as a dataset like MNIST: 28x28, grey, bright ink on black.

Sub-folders are classes.
"""

from collections import Counter
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from common import BadInput
from common.data.dataset import Dataset
from common.train.random import stream

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm")
MIN_IMAGES = 100  # fewer leave too few test images to measure on
MIN_CONTRAST = 16  # grey levels of 255 between the darkest and the brightest pixel of the set
MIXED = 0.1  # a warning is given if a larger share of the images than this has the other polarity
TEST_EVERY = 7  # one image of seven is for testing, as in MNIST
SIZE = 28
WHITES = (1, 255, 4095, 65535)  # masks and floats, 8, 12 and 16 bits


def load_folder(folder: Path) -> Dataset:
    """The images of a folder, or of its sub-folders: one class each, in the order of their names.

    With one sub-folder or more than ten there are no labels. Every seventh file by name is a test image. Both parts are
    shuffled, always in the same way. The grey values have one scale for the whole set; if the borders of all images are
    bright on average, the set is taken for ink on paper and inverted. Raises BadInput, naming the folder or the files,
    for fewer than 100 images, for images beside sub-folders with images, for files that can't be read, and for a set
    without contrast.
    """
    folder = folder.resolve()
    files_of, passed_over = _find(folder)
    if folder in files_of and len(files_of) > 1:
        names = ", ".join(path.name for path in files_of if path != folder)
        raise BadInput(f"{folder}: holds images both beside and in its sub-folders {names}")
    files = [file for files in files_of.values() for file in files]
    if len(files) < MIN_IMAGES:
        found = f"{len(files)} images, sub-folders included{passed_over}"
        raise BadInput(f"{folder}: holds {found}; at least {MIN_IMAGES} are needed")

    images, scale = _scaled(folder, files)
    bright = _border(images).mean(axis=1) > 127
    inverted = _border(images).mean() > 127
    images = torch.from_numpy(255 - images if inverted else images)

    classes, kinds = (), "no classes"
    if 2 <= len(files_of) <= 10:
        classes = tuple(_text(path.name) for path in files_of)
        kinds = f"{len(classes)} classes"
    elif folder not in files_of:
        kinds += f" ({len(files_of)} sub-folders; 2 to 10 are told apart)"
    labels = torch.tensor([label for label, inside in enumerate(files_of.values()) for _ in inside])
    order = torch.randperm(len(files), generator=stream(0, "test images"))
    testing = order % TEST_EVERY == 0
    train, test = order[~testing], order[testing]
    return Dataset(
        _text(folder.name),
        images[train],
        labels[train] if classes else None,
        images[test],
        labels[test] if classes else None,
        classes=classes,
        folder=folder,
        note=f"loaded {len(files)} images, {kinds}, {scale}{', inverted' if inverted else ''}{passed_over}",
        warnings=_warnings(bright, images[train], images[test]),
    )


def _find(folder: Path) -> tuple[dict[Path, list[Path]], str]:
    """The images in a folder and in each of its sub-folders, without those that have none; a text on other files."""
    files_of, others = {}, Counter()
    try:
        for place in (folder, *sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")):
            for path in sorted(path for path in place.iterdir() if path.name[0] != "."):
                if path.suffix.lower() in SUFFIXES:
                    files_of.setdefault(place, []).append(path)
                elif not path.is_dir():
                    others[path.suffix.lower() or path.name] += 1
    except OSError as error:
        raise BadInput(f"{error.filename}: cannot be read: {error.strerror}") from None
    listed = ", ".join(f"{count} × {_text(suffix)}" for suffix, count in others.most_common(5))
    return files_of, f", passed over {listed}" if others else ""


def _warnings(bright: np.ndarray, train_images: torch.Tensor, test_images: torch.Tensor) -> tuple[str, ...]:
    """What makes figures on a set doubtful. `bright` (n,) bool: which images have a bright border."""
    found = []
    if min(share := bright.mean(), 1 - share) > MIXED:
        found.append(f"{share:.0%} of the images are ink on paper, the others are bright on black")
    known = {image.tobytes() for image in train_images.numpy()}
    if shared := sum(image.tobytes() in known for image in test_images.numpy()):
        found.append(f"{shared} of {len(test_images)} test images are training images as well")
    return tuple(found)


def _scaled(folder: Path, files: list[Path]) -> tuple[np.ndarray, str]:
    """The images (n, 28, 28) uint8 of files, on one scale for all 8-bit files and one for all deeper ones, and what
    that scale is."""
    images, broken = [], []
    for file in files:
        try:
            images.append(load_image(file))
        except BadInput as error:
            broken.append(str(error))
    if broken:
        more = f" (and {len(broken) - 5} more files)" if len(broken) > 5 else ""
        raise BadInput("; ".join(broken[:5]) + more)
    deep = np.array([image.dtype != np.uint8 for image in images])
    stack, ranges = np.stack([image.astype(np.float32) for image in images]), []
    for kind in (deep, ~deep):
        if kind.any():
            low, high = stack[kind].min(), stack[kind].max()
            white = next((white for white in WHITES if high <= white and low >= -white), max(high, -low))
            black = -white if low < 0 else 0
            stack[kind] = (stack[kind] - black) * (255 / (white - black))
            ranges.append(f"grey values {low:g} to {high:g} of {black:g} to {white:g}")
    if (stack == stack[0]).all():
        raise BadInput(f"{folder}: all {len(files)} images are the same")
    if np.ptp(stack) < MIN_CONTRAST:
        raise BadInput(f"{folder}: its images have no contrast: {' and '.join(ranges)}")
    return stack.round().clip(0, 255).astype(np.uint8), " and ".join(ranges)


def load_image(file: Path) -> np.ndarray:
    """One image file as (28, 28): turned as its EXIF says, made grey, padded to a square, resized.

    uint8 for a file of 8 bits, else float32 in the file's own values. The padding has the median grey of the border.
    Raises BadInput for a file that is no readable image.
    """
    try:
        with Image.open(file) as opened:
            image = _grey(ImageOps.exif_transpose(opened))
        if image.size != (SIZE, SIZE):
            side, paper = max(image.size), np.percentile(_border(np.asarray(image)), 50, method="lower").item()
            square = Image.new(image.mode, (side, side), paper)
            square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
            # Pillow's bilinear filter averages over all pixels that it merges and, unlike Lanczos, never overshoots.
            image = square.resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        pixels = np.array(image)
        if not np.isfinite(pixels).all():
            raise ValueError("holds values that are no numbers")
        return pixels
    except Exception as error:  # a decoder may raise anything for a damaged file
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        raise BadInput(f"{file}: cannot be read as an image: {reason}") from None


def _grey(image: Image.Image) -> Image.Image:
    """An image in 8-bit grey (Pillow's mode L), or in its own values (mode F) if it is deeper.

    What is transparent becomes white if the opaque pixels are dark on average, else black.
    """
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(np.array(image).astype(np.float32))
    if "A" not in image.getbands() and "transparency" not in image.info:
        return image.convert("L")
    grey, alpha = image.convert("RGBA").convert("LA").split()
    opaque = np.array(alpha, dtype=float)
    ink = (np.array(grey) * opaque).sum() / max(opaque.sum(), 1)
    return Image.composite(grey, Image.new("L", image.size, 0 if ink > 127 else 255), alpha)


def _border(images: np.ndarray) -> np.ndarray:
    """The outermost pixels of images (..., height, width) -> (..., pixels)."""
    edge = np.ones(images.shape[-2:], dtype=bool)
    edge[1:-1, 1:-1] = False
    return images[..., edge]


def _text(name: str) -> str:
    """A file's name, in which bytes that are no text become "?"."""
    return name.encode(errors="replace").decode()
