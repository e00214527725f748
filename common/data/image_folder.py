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
from common.fonts import covering
from common.streams import stream

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm")
MIN_IMAGES = 100  # fewer leave too few test images to measure on
MIN_CONTRAST = 16  # grey levels of 255 between the darkest and the brightest pixel of the set
MIXED = 0.1  # share of images with the other polarity from which on they are warned of
TEST_EVERY = 7  # one image of seven is for testing, as in MNIST
SIZE = 28
NAME_LENGTH = 12  # characters of a class's name that fit beside a row of images
WHITES = (1, 255, 4095, 65535)  # masks and floats, 8, 12 and 16 bits


def load_folder(folder: Path) -> Dataset:
    """The images of a folder, or of its sub-folders: one class each, in the order of their names.

    With one sub-folder or more than ten there are no labels. Every seventh file by name is a test image. Both parts are
    shuffled, always in the same way. The grey values have one scale for the set; if the borders of all images are
    bright on average, the set is taken for ink on paper and inverted. Raises BadInput, naming the folder or the files,
    for fewer than 100 images, for images beside sub-folders with images, for files that can't be read, and for a set
    without contrast.
    """
    folder = folder.resolve()
    try:
        inside = [folder, *sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")]
        files_of = {path: files for path in inside if (files := _images_in(path))}
        others = Counter(path.suffix.lower() or path.name for place in inside for path in _others_in(place))
    except OSError as error:
        raise BadInput(f"{error.filename}: cannot be read: {error.strerror}") from None
    passed_over = ", ".join(f"{count} × {suffix}" for suffix, count in others.most_common(5))
    passed_over = f", passed over {passed_over}" if others else ""
    if folder in files_of and len(files_of) > 1:
        names = ", ".join(path.name for path in files_of if path != folder)
        raise BadInput(f"{folder}: holds images both beside and in its sub-folders {names}")
    files = [file for files in files_of.values() for file in files]
    if len(files) < MIN_IMAGES:
        raise BadInput(
            f"{folder}: holds {len(files)} images, sub-folders included{passed_over}; at least {MIN_IMAGES} are needed"
        )
    labelled = 2 <= len(files_of) <= 10

    images, greys = _scaled(folder, files)
    bright = _border(images).mean(axis=1) > 127
    inverted = _border(images).mean() > 127
    if inverted:
        images = 255 - images
    order = torch.randperm(len(files), generator=stream(0, "test images"))
    testing = order % TEST_EVERY == 0
    labels = torch.tensor([label for label, files in enumerate(files_of.values()) for _ in files])
    parts, pictures = [], torch.from_numpy(images)
    for part in (order[~testing], order[testing]):
        parts += [pictures[part], labels[part] if labelled else None]
    classes = tuple(_printable(path.name) for path in files_of) if labelled else ()
    names = dict(enumerate(classes, 1))
    if unshown := covering("".join(classes)) is None:
        classes = tuple(map(str, names))
    kinds = f"{len(classes)} classes" if labelled else "no classes"
    if len(files_of) > 10 or (len(files_of) == 1 and folder not in files_of):
        kinds += f" ({len(files_of)} sub-folders; 2 to 10 are told apart)"
    note = f"read {len(files)} images, {kinds}, {greys}{', inverted' if inverted else ''}{passed_over}"
    if unshown:
        note += "; no installed font has the letters of their names, so they are shown as " + ", ".join(
            f"{number} = {name}" for number, name in names.items()
        )
    return Dataset(
        folder.name.encode(errors="replace").decode(),
        *parts,
        classes=classes,
        folder=folder,
        note=note,
        warnings=_warnings(parts, bright),
    )


def _warnings(parts: list, bright: np.ndarray) -> tuple[str, ...]:
    """What makes figures on a set doubtful."""
    found = []
    if min(share := bright.mean(), 1 - share) > MIXED:
        found.append(f"{share:.0%} of the images are ink on paper, the others are bright on black")
    known = {image.numpy().tobytes() for image in parts[0]}
    if shared := sum(image.numpy().tobytes() in known for image in parts[2]):
        found.append(f"{shared} of {len(parts[2])} test images are training images as well")
    return tuple(found)


def _scaled(folder: Path, files: list[Path]) -> tuple[np.ndarray, str]:
    """The images (n, 28, 28) uint8 of files, on one scale for all 8-bit files and one for all deeper ones, and what
    that scale is."""
    images, broken = [], []
    for file in files:
        try:
            images.append(read_image(file))
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


def read_image(file: Path) -> np.ndarray:
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
    """An image in 8-bit grey (Pillow's mode L); in its own values (mode F) where it is deeper."""
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(np.array(image).astype(np.float32))
    if "A" in image.getbands() or "transparency" in image.info:
        return _on_paper(image)
    return image.convert("L")


def _on_paper(image: Image.Image) -> Image.Image:
    """A transparent image in grey, over white if what is opaque is dark on average, else over black."""
    grey, alpha = image.convert("RGBA").convert("LA").split()
    opaque = np.array(alpha, dtype=float)
    ink = (np.array(grey) * opaque).sum() / max(opaque.sum(), 1)
    return Image.composite(grey, Image.new("L", image.size, 0 if ink > 127 else 255), alpha)


def _border(images: np.ndarray) -> np.ndarray:
    """The outermost pixels of images (..., height, width) -> (..., pixels)."""
    edge = np.ones(images.shape[-2:], dtype=bool)
    edge[1:-1, 1:-1] = False
    return images[..., edge]


def _images_in(folder: Path) -> list[Path]:
    visible = (path for path in folder.iterdir() if path.name[0] != ".")
    return sorted(path for path in visible if path.suffix.lower() in SUFFIXES)


def _others_in(folder: Path) -> list[Path]:
    return [
        path
        for path in folder.iterdir()
        if path.name[0] != "." and path.suffix.lower() not in SUFFIXES and not path.is_dir()
    ]


def _printable(name: str) -> str:
    """A file's name as it fits beside a row of images; bytes that are no text become "?"."""
    name = name.encode(errors="replace").decode()
    return name if len(name) <= NAME_LENGTH else name[: NAME_LENGTH - 1] + "…"
