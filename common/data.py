"""MNIST-shaped datasets, held whole as uint8 tensors on the training device.

All of MNIST is 47 MB: indexing one tensor is far faster than decoding images in worker processes, and it
works the same on a laptop and on a graphics card. `drawn` is the set that needs no file and no network.
"""

import contextlib
import dataclasses
import difflib
import gzip
import hashlib
import io
import os
import socket
import sys
import tempfile
import threading
import urllib.request
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from common import BadInput
from common.streams import stream

DATASETS = ("auto", "mnist", "fashion", "kmnist", "drawn")
DOWNLOAD_PATIENCE = 7.0  # seconds without an answer, to the first question and then to the download

DIGITS = tuple("0123456789")
CLASSES = {
    "mnist": DIGITS,
    "fashion": ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot"),
    "kmnist": ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
}
TITLES = {"mnist": "MNIST", "fashion": "Fashion-MNIST", "kmnist": "Kuzushiji-MNIST", "drawn": "drawn digits, not MNIST"}


@dataclass(frozen=True)
class Dataset:
    """Images (n, 28, 28) uint8 with 0 = background, labels (n,) int64 in 0 … 9, for training and for testing.

    `classes` names the labels, two to ten of them; where it is empty, labels are None. `folder` is where the user's
    own images come from. `factors` is None but for `drawn`: there it holds the true slant (shear, positive leans
    right) and thickness (pixels) of every image, training images first, each (n_train + n_test,) float32.
    """

    name: str
    train_images: Tensor
    train_labels: Tensor | None
    test_images: Tensor
    test_labels: Tensor | None
    factors: dict[str, Tensor] | None = None
    classes: tuple[str, ...] = DIGITS
    folder: Path | None = None

    @property
    def title(self) -> str:
        """The name for picture titles, such as "MNIST" or "drawn digits, not MNIST"."""
        return f"folder {self.name}" if self.folder else TITLES[self.name]

    @property
    def source(self) -> str:
        """What `--dataset` has to be for this set."""
        return str(self.folder or self.name)

    def to(self, device: torch.device) -> "Dataset":
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        return dataclasses.replace(self, **{name: tensor.to(device) for name, tensor in tensors.items()})


def check_dataset(name: str) -> None:
    """Raise BadInput for what is neither a dataset's name nor a folder, with the nearest name."""
    if name in DATASETS or (name and Path(os.path.expanduser(name)).is_dir()):
        return
    near = difflib.get_close_matches(name, DATASETS, n=1)
    hint = f"; perhaps you meant {near[0]}" if near else ""
    raise BadInput(f"--dataset must be one of {', '.join(DATASETS)} or a folder of images, not {name}{hint}")


def load_dataset(name: str, data_dir: Path, smoke: bool = False) -> Dataset:
    """Load a named set or a folder of images to the CPU; `auto` is MNIST where it can be had, else `drawn`.

    Files are looked for in `data_dir/MNIST/raw` (`FashionMNIST`, `KMNIST`), as torchvision lays them out, packed
    (.gz) or unpacked, and downloaded by torchvision if none is there. `smoke` draws a few hundred digits instead.
    Raises BadInput, naming the file, for one that is damaged, truncated or unreadable, and for a named set that
    is neither there nor to be had from its servers.
    """
    check_dataset(name)
    if smoke:
        return drawn(train=512, test=256)
    if name == "drawn":
        return drawn()
    if name not in DATASETS:
        from common.folder import load_folder

        return load_folder(Path(os.path.expanduser(name)))
    try:
        return _load_files("mnist" if name == "auto" else name, data_dir)
    except NotAvailable as missing:
        if name != "auto":
            raise
        bar = "!" * 78
        print(
            f"{bar}\n!! MNIST is not here: {missing}\n"
            "!! Training on DRAWN digits instead. Nothing below is a result on MNIST.\n"
            f"!! To train on MNIST, put its four .gz files into {data_dir / 'MNIST' / 'raw'}\n{bar}",
            file=sys.stderr,
            flush=True,
        )
        return drawn()


def to_float(images: Tensor) -> Tensor:
    """(n, 28, 28) uint8 -> (n, 1, 28, 28) float32 in [0, 1]."""
    return images.unsqueeze(1).float().div_(255)


def checked(x: Tensor) -> Tensor:
    """Images from outside as float32. Raises ValueError unless they are (n, 1, 28, 28) floats in [0, 1]."""
    x = torch.as_tensor(x)
    if x.ndim != 4 or x.shape[1:] != (1, 28, 28) or not x.is_floating_point():
        raise ValueError(f"images must be float of shape (n, 1, 28, 28), not {x.dtype} of {tuple(x.shape)}")
    if len(x) and not (x.min() >= 0 and x.max() <= 1):
        raise ValueError("grey values must lie in [0, 1]")
    return x.float()


def epoch_order(n: int, seed: int, epoch: int) -> Tensor:
    """The order (n,) int64 in which epoch number `epoch` visits n images: each once, from seed and epoch alone."""
    return torch.randperm(n, generator=stream(seed, "order", epoch))


# MNIST and its relatives, from files ---------------------------------------------------------------------------


class NotAvailable(BadInput):
    """No file of the set is there and no server answers."""


def _load_files(name: str, data_dir: Path) -> Dataset:
    # torchvision takes seconds to import, so only a run that reads files pays for it.
    from torchvision import datasets

    source = {"mnist": datasets.MNIST, "fashion": datasets.FashionMNIST, "kmnist": datasets.KMNIST}[name]
    raw = data_dir / source.__name__ / "raw"
    packed = {Path(url).name: checksum for url, checksum in source.resources}
    try:
        missing = [file for file in packed if not _present(raw, file)]
    except OSError as error:
        raise BadInput(f"{error.filename}: cannot be read: {error.strerror}") from None
    if missing and len(missing) < len(packed):
        raise BadInput(f"{raw / missing[0]}: is missing, while other files of the set are there")
    if missing:
        _download(source, raw)
    tensors = {}
    for file, checksum in packed.items():
        dimensions = 3 if "images" in file else 1
        tensors[file.split("-")[0], dimensions] = _read_idx(raw, file, checksum, dimensions)
    train_images, train_labels = tensors["train", 3], tensors["train", 1].long()
    test_images, test_labels = tensors["t10k", 3], tensors["t10k", 1].long()
    for part, images, labels in (("train", train_images, train_labels), ("t10k", test_images, test_labels)):
        if images.shape[1:] != (28, 28) or len(images) != len(labels) or len(images) == 0:
            raise BadInput(f"{raw}: the {part} files hold {tuple(images.shape)} images for {len(labels)} labels")
        if labels.max() > 9:
            raise BadInput(f"{raw}: the {part} labels go up to {labels.max()}, but there are ten classes")
    return Dataset(name, train_images, train_labels, test_images, test_labels, classes=CLASSES[name])


def _present(raw: Path, packed: str) -> bool:
    # stat, unlike Path.exists, tells a folder without rights from a file that is not there.
    for path in (raw / packed, raw / packed.removesuffix(".gz")):
        with contextlib.suppress(FileNotFoundError):
            path.stat()
            return True
    return False


def _read_idx(raw: Path, packed: str, checksum: str, dimensions: int) -> Tensor:
    """Read one idx file: a packed one against torchvision's md5, an unpacked one (no known sum) by its header."""
    path = raw / packed
    if not path.exists():
        path = raw / packed.removesuffix(".gz")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}") from None
    if path.suffix == ".gz":
        if hashlib.md5(content, usedforsecurity=False).hexdigest() != checksum:
            raise BadInput(f"{path}: is damaged or truncated (checksum differs); delete it or put the original there")
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise BadInput(f"{path}: cannot be unpacked: {error}") from None
    header = 4 + 4 * dimensions
    # The magic number: two zero bytes, 8 for unsigned bytes, the number of dimensions.
    if len(content) < header or content[:4] != bytes((0, 0, 8, dimensions)):
        raise BadInput(f"{path}: is not an idx file of {'images' if dimensions == 3 else 'labels'}")
    shape = tuple(int.from_bytes(content[i : i + 4], "big") for i in range(4, header, 4))
    size = 1
    for length in shape:
        size *= length
    if len(content) - header != size:
        raise BadInput(f"{path}: is truncated or altered: {len(content) - header} bytes of data, {size} announced")
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=header).reshape(shape).copy())


def _download(source: type, raw: Path) -> None:
    """Fetch the four files with torchvision, checked by its sums, into `raw`: all of them or none."""
    if not _any_answer(source.mirrors):
        raise NotAvailable(f"no file in {raw}, and no server answered within {DOWNLOAD_PATIENCE:.0f} s")
    try:
        raw.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=raw) as scratch:
            print(f"downloading {source.__name__} …", file=sys.stderr, flush=True)
            patience = socket.getdefaulttimeout()
            socket.setdefaulttimeout(DOWNLOAD_PATIENCE)
            try:
                with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                    source(scratch, download=True)
            finally:
                socket.setdefaulttimeout(patience)
            for url, _ in source.resources:
                fetched = Path(scratch) / source.__name__ / "raw" / Path(url).name
                os.replace(fetched, raw / fetched.name)
    except (OSError, RuntimeError) as error:
        raise NotAvailable(f"no file in {raw}, and the download failed: {error}") from None


def _any_answer(mirrors: list[str]) -> bool:
    """Whether one of the servers answers in time. Threads, because a name look-up knows no time-out of its own."""
    answered = threading.Event()
    open_questions = [threading.Event() for _ in mirrors]

    def ask(mirror: str, done: threading.Event) -> None:
        try:
            request = urllib.request.Request(mirror, method="HEAD")
            with contextlib.suppress(urllib.error.HTTPError):  # an error page is an answer, too
                urllib.request.urlopen(request, timeout=DOWNLOAD_PATIENCE).close()
            answered.set()
        except (OSError, ValueError):
            pass  # no answer: the event stays unset, which is the result
        done.set()

    for mirror, done in zip(mirrors, open_questions, strict=True):
        threading.Thread(target=ask, args=(mirror, done), daemon=True).start()
    for _ in range(int(DOWNLOAD_PATIENCE / 0.1)):
        if answered.wait(0.1):
            return True
        if all(done.is_set() for done in open_questions):
            break
    return answered.is_set()


# The drawn stand-in --------------------------------------------------------------------------------------------

FONTS = ("DejaVuSans", "DejaVuSansMono", "DejaVuSerif", "STIXGeneral", "cmr10", "cmss10", "cmtt10")
FINE = 4  # glyphs are measured at four times the resolution of an image
ATLAS = 56  # pixels of a glyph's distance field, two per image pixel


def drawn(train: int = 60_000, test: int = 10_000, seed: int = 0) -> Dataset:
    """Digits rendered from the fonts that matplotlib ships, each sheared, thickened, scaled and shifted at random.

    Like MNIST they are 20 pixels high in 28 x 28 and centred by their mass. The same seed gives the same set.
    The true factors stand in `Dataset.factors`: slant uniform in [-0.3, 0.3], thickness uniform in [2.2, 4.5] pixels.
    """
    fields, widths = _glyphs()
    n = train + test
    random = stream(seed, "drawn digits")

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(n, generator=random) * (high - low) + low

    digit = torch.randint(10, (n,), generator=random)
    font = torch.randint(len(FONTS), (n,), generator=random)
    slant, thickness, scale = uniform(-0.3, 0.3), uniform(2.2, 4.5), uniform(0.85, 1.1)
    shift_x, shift_y = uniform(-1, 1), uniform(-1, 1)
    glyph = font * 10 + digit

    # Image pixel (x, y), measured from the centre, shows the glyph at (x + slant y, y) / scale.
    axis = torch.arange(28) - 13.5
    images = torch.empty(n, 28, 28, dtype=torch.uint8)
    for part in torch.arange(n).split(2_000):
        y = (axis[None, :, None] - shift_y[part, None, None]).expand(-1, 28, 28)
        x = axis[None, None, :] - shift_x[part, None, None] + slant[part, None, None] * y
        where = torch.stack((x, y), dim=-1) / (14 * scale[part, None, None, None])  # (part, 28, 28, 2) in [-1, 1]
        inside = F.grid_sample(fields[glyph[part]], where, padding_mode="border", align_corners=False).squeeze(1)
        # `inside` is the distance to the outline. Moving the outline by half the missing width sets the thickness,
        # and the ramp of one pixel around it is the smooth edge.
        wider = (thickness[part] - widths[glyph[part]] * scale[part]) / 2
        ink = (inside * scale[part, None, None] + wider[:, None, None] + 0.5).clamp_(0, 1)
        images[part] = (ink * 255).round_().to(torch.uint8)
    factors = {"slant": slant, "thickness": thickness}
    return Dataset("drawn", images[:train], digit[:train], images[train:], digit[train:], factors)


def _glyphs() -> tuple[Tensor, Tensor]:
    """Signed distance fields (fonts * 10, 1, ATLAS, ATLAS) in image pixels, positive inside, and stroke widths."""
    import matplotlib
    from PIL import Image, ImageDraw, ImageFont
    from scipy import ndimage

    fields, widths = [], []
    for font in FONTS:
        file = str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{font}.ttf")
        large = ImageFont.truetype(file, 100).getbbox("0")
        sized = ImageFont.truetype(file, round(100 * 20 * FINE / (large[3] - large[1])))
        for digit in DIGITS:
            picture = Image.new("L", (28 * FINE, 28 * FINE))
            left, top, right, bottom = sized.getbbox(digit)
            at = (14 * FINE - (left + right) / 2, 14 * FINE - (top + bottom) / 2)
            ImageDraw.Draw(picture).text(at, digit, fill=255, font=sized)
            ink = np.asarray(picture) > 127
            row, column = ndimage.center_of_mass(ink)
            centre = (28 * FINE - 1) / 2
            ink = ndimage.shift(ink, (round(centre - row), round(centre - column)), order=0)
            field = (ndimage.distance_transform_edt(ink) - ndimage.distance_transform_edt(~ink)) / FINE
            # Half a pixel to either side of the outline lies an area equal to its length: width = 2 area / length.
            widths.append(2 * ink.sum() / (np.abs(field) < 0.5).sum())
            fields.append(torch.from_numpy(field).float())
    atlas = F.interpolate(torch.stack(fields).unsqueeze(1), size=(ATLAS, ATLAS), mode="area")
    return atlas, torch.tensor(widths, dtype=torch.float32)
