"""MNIST, Fashion-MNIST and Kuzushiji-MNIST from idx files, which torchvision downloads."""

import contextlib
import gzip
import io
import math
import os
import queue
import socket
import sys
import tempfile
import threading
import time
import urllib.request
import zlib
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from common import BadInput
from common.data.dataset import CLASSES, Dataset

DOWNLOAD_PATIENCE = 7.0  # seconds of silence after which a server is given up, before and during the download


class NotAvailable(BadInput):
    """The set has no file here and can't be downloaded."""


def load_idx(name: str, data_dir: Path) -> Dataset:
    """`mnist`, `fashion` or `kmnist` from `data_dir/MNIST/raw` (`FashionMNIST`, `KMNIST`), packed (.gz) or not.

    Without any file there, all four are downloaded. Raises BadInput, naming the file, for one that is missing, damaged
    or unreadable, and NotAvailable for a failed download.
    """
    from torchvision import datasets  # takes seconds

    source = {"mnist": datasets.MNIST, "fashion": datasets.FashionMNIST, "kmnist": datasets.KMNIST}[name]
    raw = data_dir / source.__name__ / "raw"
    stems = [Path(url).stem for url, _ in source.resources]
    try:
        found = {stem: _find((raw, data_dir), stem) for stem in stems}
    except OSError as error:
        raise BadInput(f"{error.filename}: cannot be read: {error.strerror}") from None
    missing = [stem for stem, path in found.items() if path is None]
    if len(missing) == len(found):
        _download(source, raw)
        found = {stem: raw / f"{stem}.gz" for stem in stems}
    elif missing:
        raise BadInput(f"{raw / missing[0]}.gz: is missing, while other files of the set are there")
    tensors = []
    for part in ("train", "t10k"):
        images = _read_idx(found[f"{part}-images-idx3-ubyte"], dimensions=3)
        labels = _read_idx(found[f"{part}-labels-idx1-ubyte"], dimensions=1).long()
        if images.shape[1:] != (28, 28) or len(images) != len(labels) or len(images) == 0:
            raise BadInput(f"{raw}: the {part} files hold {tuple(images.shape)} images for {len(labels)} labels")
        if labels.max() > 9:
            raise BadInput(f"{raw}: the {part} labels go up to {labels.max()}, but there are ten classes")
        tensors += [images, labels]
    return Dataset(name, *tensors, classes=CLASSES[name])


def _find(folders: Sequence[Path], stem: str) -> Path | None:
    """The file of this name, packed or not, in the first folder that has it; None where none has.

    Raises OSError for a folder without rights.
    """
    # The servers' name, and the one that some archives unpack to.
    names = [f"{name}{suffix}" for name in (stem, stem.replace("-idx", ".idx")) for suffix in (".gz", "")]
    for path in (folder / name for folder in folders for name in names):
        with contextlib.suppress(FileNotFoundError):
            path.stat()  # Path.exists hides missing rights
            return path
    return None


def _read_idx(path: Path, dimensions: int) -> Tensor:
    """One idx file as a uint8 tensor. What is packed is checked by gzip's own checksum, and all by the header."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}") from None
    if path.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise BadInput(f"{path}: is damaged or truncated: {error}; delete it or put the original there") from None
    header = 4 + 4 * dimensions
    # The magic number: two zero bytes, 8 for unsigned bytes, the number of dimensions.
    if len(content) < header or content[:4] != bytes((0, 0, 8, dimensions)):
        raise BadInput(f"{path}: is not an idx file of {'images' if dimensions == 3 else 'labels'}")
    shape = [int.from_bytes(content[i : i + 4], "big") for i in range(4, header, 4)]
    if (size := len(content) - header) != math.prod(shape):
        raise BadInput(f"{path}: is truncated or altered: {size} bytes of data, {math.prod(shape)} announced")
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=header).reshape(shape).copy())


def _download(source: type, raw: Path) -> None:
    """Download the four files, checked by torchvision's checksums, into `raw`: all of them or none."""
    if not _any_answer(source.mirrors):
        raise NotAvailable(f"no file in {raw}, and no server answered within {DOWNLOAD_PATIENCE:.0f} s")
    patience = socket.getdefaulttimeout()
    try:
        raw.mkdir(parents=True, exist_ok=True)
        print(f"downloading {source.__name__} …", file=sys.stderr, flush=True)
        socket.setdefaulttimeout(DOWNLOAD_PATIENCE)  # torchvision sets no time-out
        with tempfile.TemporaryDirectory(dir=raw) as scratch:
            # torchvision's bars are for who looks at them.
            log = sys.stderr if sys.stderr.isatty() else io.StringIO()
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(log):
                source(scratch, download=True)
            for packed, _ in source.resources:
                os.replace(Path(scratch) / source.__name__ / "raw" / packed, raw / packed)
    except (OSError, RuntimeError, HTTPException) as error:
        raise NotAvailable(f"no file in {raw}, and the download failed: {error}") from None
    finally:
        socket.setdefaulttimeout(patience)


def _any_answer(mirrors: list[str]) -> bool:
    """Whether a server answers within DOWNLOAD_PATIENCE. All are asked at once, in threads: a name look-up has no
    time-out of its own."""
    answers = queue.Queue()

    def ask(mirror: str) -> None:
        try:
            request = urllib.request.Request(mirror, method="HEAD")
            urllib.request.urlopen(request, timeout=DOWNLOAD_PATIENCE).close()
            answers.put(True)
        except urllib.error.HTTPError:  # an error page is an answer, too
            answers.put(True)
        except (OSError, ValueError, HTTPException):
            answers.put(False)

    for mirror in mirrors:
        threading.Thread(target=ask, args=(mirror,), daemon=True).start()
    deadline = time.monotonic() + DOWNLOAD_PATIENCE
    with contextlib.suppress(queue.Empty):
        return any(answers.get(timeout=max(0, deadline - time.monotonic())) for _ in mirrors)
    return False
