"""A folder of the user's own images as a dataset like MNIST: 28x28, grey, bright ink on black.

Sub-folders are classes, or the training and the test part.
"""

import hashlib
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from tqdm.auto import tqdm

from common import BadInput
from common.data.dataset import Dataset

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm")
TEST_NAMES = ("test", "val", "valid", "validation")  # of the test part beside a folder "train", the first there is
MIN_IMAGES = 100  # fewer leave too few test images to measure on
MIN_TEST = 10  # test images of a set that comes in two parts
MIN_CONTRAST = 16  # grey levels of 255 between the darkest and the brightest pixel of the set
MIXED = 0.1  # a warning is given if a larger share of the images than this has the other polarity
TEST_EVERY = 7  # one image of about seven is for testing, as in MNIST
SIZE = 28
WHITES = (1, 255, 1023, 4095, 16383, 65535)  # masks and floats, 8, 10, 12, 14 and 16 bits
MOST_CLASSES = 100


class Found(NamedTuple):
    """An image file, the folder of its part (None if the set comes in one), its class folder's name (None without)."""

    path: Path
    part: Path | None
    group: str | None


def load_folder(folder: Path, show: bool = False) -> Dataset:
    """The images of a folder, or of its sub-folders: one class each, in the order of their names.

    With one sub-folder or more than 100 there are no labels. `train` beside `test`, `val`, `valid` or `validation`,
    each flat or with the same class folders, are the two parts; otherwise a checksum of its name and content makes
    about one file of seven a test image, so that added files move no other. The grey values have one scale for the
    whole set; if the borders of all images are bright on average, the set is taken for ink on paper and inverted. show:
    a bar.

    Raises BadInput, naming the folder or the file, for fewer than 100 images, for images beside sub-folders with
    images, for a file that can't be loaded, and for a set without contrast.
    """
    folder = folder.resolve()
    files, passed_over = _find(folder)
    bar = tqdm(files, desc="loading images", unit="images", disable=not show)
    pixels, digests = zip(*(load_image(file.path) for file in bar), strict=True)
    images, scale = _scaled(folder, pixels)
    bright = _border(images).mean(axis=1) > 127
    inverted = _border(images).mean() > 127
    images = torch.from_numpy(255 - images if inverted else images)

    groups = sorted({file.group for file in files} - {None})
    classes, kinds = (), "no classes"
    if 2 <= len(groups) <= MOST_CLASSES:
        classes = tuple(map(_text, groups))
        kinds = f"{len(classes)} classes"
    elif groups:
        kinds += f" ({len(groups)} sub-folders; 2 to {MOST_CLASSES} are told apart)"
    labels = torch.tensor([groups.index(file.group) if classes else 0 for file in files])
    train, test = [], []
    for i in sorted(range(len(files)), key=digests.__getitem__):  # as good as shuffled
        part = files[i].part
        testing = part != files[0].part if part else int(digests[i], 16) % TEST_EVERY == 0
        (test if testing else train).append(i)
    if files[0].part:
        kinds += f", {len(train)} in {files[0].part.name} and {len(test)} in {files[-1].part.name}"
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


def _find(folder: Path) -> tuple[list[Found], str]:
    """The image files of a folder, training part first, and what was passed over."""
    others: Counter[str] = Counter()
    try:
        parts = {place.name.lower(): place for place in _folders(folder, others)}
        test = next((parts[name] for name in TEST_NAMES if name in parts), None)
        if "train" in parts and test and not _images(folder, others):
            others = Counter({f"folder {_text(place.name)}": 1 for place in {*parts.values()} - {parts["train"], test}})
            train, testing = (_inside(place, others, part=place) for place in (parts["train"], test))
            if len(testing) < MIN_TEST:
                raise BadInput(f"{test}: holds {len(testing)} images; at least {MIN_TEST} are needed")
            if differ := {file.group for file in train} ^ {file.group for file in testing}:
                names = ", ".join(sorted(str(name or "images beside them") for name in differ))
                raise BadInput(f"{folder}: train and {test.name} have other class folders: {names}")
            files = train + testing
        else:
            others.clear()
            files = _inside(folder, others)
        listed = ", ".join(f"{count} × {what}" for what, count in others.most_common(5))
        passed_over = f", passed over {listed}" if others else ""
        if len(files) < MIN_IMAGES:
            found = f"{len(files)} images, sub-folders included{passed_over}"
            raise BadInput(f"{folder}: holds {found}; at least {MIN_IMAGES} are needed")
    except OSError as error:
        raise BadInput(f"{error.filename}: cannot be read: {error.strerror}") from None
    return files, passed_over


def _inside(folder: Path, others: Counter[str], part: Path | None = None) -> list[Found]:
    """The images of a folder, or of its sub-folders. Raises BadInput if both have some."""
    files = [Found(path, part, None) for path in _images(folder, others)]
    groups = [Found(path, part, place.name) for place in _folders(folder, others) for path in _images(place, others)]
    if files and groups:
        names = ", ".join(dict.fromkeys(file.group for file in groups))
        raise BadInput(f"{folder}: holds images both beside and in its sub-folders {names}")
    return files or groups


def _folders(folder: Path, others: Counter[str]) -> list[Path]:
    """The sub-folders, without those of systems and tools, such as .git, @eaDir and __MACOSX."""
    folders = sorted(path for path in folder.iterdir() if path.is_dir())
    passed_over = [path for path in folders if path.name.startswith((".", "@", "__"))]
    others.update(f"folder {_text(path.name)}" for path in passed_over)
    return [path for path in folders if path not in passed_over]


def _images(folder: Path, others: Counter[str]) -> list[Path]:
    """The image files directly in a folder; other visible files are counted in `others`."""
    files = sorted(path for path in folder.iterdir() if path.name[0] != "." and not path.is_dir())
    others.update(_text(path.suffix.lower() or path.name) for path in files if path.suffix.lower() not in SUFFIXES)
    return [path for path in files if path.suffix.lower() in SUFFIXES]


def _warnings(bright: np.ndarray, train_images: torch.Tensor, test_images: torch.Tensor) -> tuple[str, ...]:
    """What makes figures on a set doubtful. `bright` (n,) bool: which images have a bright border."""
    found = []
    if min(share := bright.mean(), 1 - share) > MIXED:
        found.append(f"{share:.0%} of the images are ink on paper, the others are bright on black")
    known = {image.tobytes() for image in train_images.numpy()}
    if shared := sum(image.tobytes() in known for image in test_images.numpy()):
        found.append(f"{shared} of {len(test_images)} test images are training images as well")
    return tuple(found)


def _scaled(folder: Path, images: Sequence[np.ndarray]) -> tuple[np.ndarray, str]:
    """Images (n, 28, 28) uint8, on one scale for all 8-bit files and one for all deeper ones, and what that scale is:
    from 0 to the smallest of WHITES that holds all values."""
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
        raise BadInput(f"{folder}: all {len(images)} images are the same")
    if np.ptp(stack) < MIN_CONTRAST:
        raise BadInput(f"{folder}: its images have no contrast: {' and '.join(ranges)}")
    return stack.round().clip(0, 255).astype(np.uint8), " and ".join(ranges)


def load_image(file: Path) -> tuple[np.ndarray, str]:
    """One image file (28, 28), turned as its EXIF orientation says, made grey, padded to a square, resized; and the
    checksum of its name and content.

    uint8 for a file of 8 bits, else float32 in the file's own values. The padding has the median grey of the border.
    Raises BadInput for a file that is no readable image.
    """
    try:
        content = file.read_bytes()
        digest = hashlib.sha256(file.name.encode(errors="replace") + b"\0" + content).hexdigest()
        with Image.open(io.BytesIO(content)) as opened:
            opened.draft(None, (4 * SIZE, 4 * SIZE))  # a large JPEG is decoded at about the size that is needed
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
        return pixels, digest
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
