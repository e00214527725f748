"""Datasets by name: MNIST and its relatives, rendered digits, or a folder of images."""

import os
import sys
from pathlib import Path

from common import BadInput
from common.data.dataset import DIGITS, Dataset, epoch_order, to_float
from common.data.image_folder import load_folder
from common.data.mnist import NotAvailable, load_idx
from common.data.synthetic import render_digits

NAMED_SETS = 60_000  # training images of each of them
DATASETS = ("auto", "mnist", "fashion", "kmnist", "drawn")


def check_dataset(name: str) -> None:
    """Raise BadInput unless `name` is one of DATASETS or an existing folder."""
    if name not in DATASETS and not (name and os.path.isdir(os.path.expanduser(name))):
        raise BadInput(f"--dataset must be one of {', '.join(DATASETS)} or a folder of images, not {name}")


def load_dataset(name: str, data_dir: Path, smoke: bool = False, show: bool = False) -> Dataset:
    """A set on the CPU: one of DATASETS, or a folder of images.

    `mnist`, `fashion` and `kmnist` are loaded from `data_dir`, or downloaded to it. `auto` is MNIST, or `drawn` with a
    warning if MNIST is neither there nor can be downloaded. `smoke` gives a few hundred rendered digits for any name.
    show: a bar while a folder is loaded.
    Raises BadInput for an unknown name, for a set that can't be had, and, naming the file, for a damaged one.
    """
    check_dataset(name)
    if smoke:
        return render_digits(train=512, test=256)
    if name == "drawn":
        return render_digits()
    if name not in DATASETS:
        return load_folder(Path(os.path.expanduser(name)), show)  # Path.expanduser raises for an unknown user
    try:
        return load_idx("mnist" if name == "auto" else name, data_dir)
    except NotAvailable as missing:
        if name != "auto":
            raise
        rule = "!" * 78
        print(
            f"{rule}\n!! MNIST is not here: {missing}\n"
            "!! Training on digits RENDERED from fonts instead.\n!! Nothing below is a result on MNIST.\n"
            f"!! To train on MNIST, put its four .gz files into {data_dir / 'MNIST' / 'raw'}\n{rule}",
            file=sys.stderr,
            flush=True,
        )
        return render_digits()
