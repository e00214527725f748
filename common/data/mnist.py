"""MNIST, Fashion-MNIST and Kuzushiji-MNIST from their idx files, which torchvision downloads and checks."""

import contextlib
import gzip
import io
import os
import sys
import tempfile
import zlib
from http.client import HTTPException
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
import torch

from common import BadInput
from common.data.dataset import CLASSES, Dataset

TIMEOUT = 10.0  # seconds without a byte after which a download is given up


class NotAvailable(BadInput):
    """The set has no file here and can't be downloaded."""


def load_idx(name: str, data_dir: Path) -> Dataset:
    """`mnist`, `fashion` or `kmnist` on the CPU, from four files, each packed (.gz) or not.

    They lie in `data_dir/MNIST/raw` (`FashionMNIST`, `KMNIST`), or directly in `data_dir`. If neither holds any of
    them, they are downloaded into the first. Raises BadInput, naming the file or folder, for one that is missing,
    damaged or unreadable, and NotAvailable for a failed download.
    """
    from torchvision import datasets  # takes seconds

    source = {"mnist": datasets.MNIST, "fashion": datasets.FashionMNIST, "kmnist": datasets.KMNIST}[name]
    raw = data_dir / source.__name__ / "raw"
    stems = [Path(file).stem for file, _ in source.resources]  # training images, training labels, test images, …
    if not (files := _find(raw, stems) or _find(data_dir, stems)):
        _download(source, raw)
        files = _find(raw, stems)
    if missing := [stem for stem in stems if stem not in files]:
        folder = next(iter(files.values())).parent
        raise BadInput(f"{folder / missing[0]}.gz: is missing, while other files of the set are there")
    arrays = [_load_array(files[stem], (28, 28) if "images" in stem else ()) for stem in stems]
    for stem, images, labels in zip(stems[1::2], arrays[::2], arrays[1::2], strict=True):
        if not len(images) == len(labels) > 0 or labels.max() > 9:
            highest = labels.max(initial=0)
            raise BadInput(f"{files[stem]}: holds {len(labels)} labels up to {highest} for {len(images)} images")
    train_images, train_labels, test_images, test_labels = map(torch.from_numpy, arrays)
    return Dataset(name, train_images, train_labels.long(), test_images, test_labels.long(), classes=CLASSES[name])


def _find(folder: Path, stems: list[str]) -> dict[str, Path]:
    """The files of a set in a folder, by the stems of their names. Some tools unpack to `train-images.idx3-ubyte`."""
    try:
        names = sorted(os.listdir(folder))  # if a file lies there twice, the packed one counts: it has a checksum
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise BadInput(f"{folder}: cannot be read: {error.strerror}") from None
    files = {name.removesuffix(".gz").replace(".idx", "-idx"): folder / name for name in names}
    return {stem: files[stem] for stem in stems if stem in files}


def _load_array(path: Path, item: tuple[int, ...]) -> np.ndarray:
    """One idx file as a uint8 array (n, *item). Raises BadInput for a wrong checksum, header or length."""
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
        kind, *shape = np.frombuffer(content, ">u4", 2 + len(item)).tolist()
        if kind != 0x800 + len(shape) or tuple(shape[1:]) != item:  # 8 stands for unsigned bytes
            raise ValueError(f"its header is not one of {'images of 28 x 28' if item else 'labels'}")
        return np.frombuffer(content, np.uint8, offset=4 + 4 * len(shape)).reshape(shape).copy()
    except (OSError, EOFError, zlib.error, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BadInput(f"{path}: cannot be read, or is damaged: {reason}") from None


def _download(source: type, raw: Path) -> None:
    """Download the four packed files into `raw`, all of them or none. NotAvailable if that fails or nothing arrives."""
    print(f"downloading {source.__name__} …", file=sys.stderr, flush=True)
    bars = sys.stderr if sys.stderr.isatty() else io.StringIO()
    place, size = next(folder for folder in raw.parents if folder.exists()), None
    try:
        # In a thread, because neither a name look-up nor a host with many addresses keeps to a socket's time-out.
        with tempfile.TemporaryDirectory(dir=place) as scratch, ThreadPool(1) as pool, contextlib.redirect_stderr(bars):
            task = pool.apply_async(source, (scratch,), {"download": True})
            while not task.ready():
                before, size = size, sum(file.stat().st_size for file in Path(scratch).rglob("*-ubyte*"))
                if size == before:
                    raise TimeoutError(f"nothing arrived for {TIMEOUT:.0f} s")
                task.wait(TIMEOUT)
            task.get()
            raw.mkdir(parents=True, exist_ok=True)
            for file, _ in source.resources:
                os.replace(Path(scratch, source.__name__, "raw", file), raw / file)
    except (OSError, RuntimeError, HTTPException) as error:
        raise NotAvailable(f"no file in {raw}, and the download failed: {' '.join(str(error).split())}") from None
