"""What a dataset is: all its images as one uint8 tensor on the training device.

MNIST is 47 MB. Indexing one tensor is far faster than decoding images in worker processes.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from common.train.random import stream

DIGITS = tuple("0123456789")
CLASSES = {
    "mnist": DIGITS,
    "fashion": ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot"),
    "kmnist": ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
}
TITLES = {
    "mnist": "MNIST",
    "fashion": "Fashion-MNIST",
    "kmnist": "Kuzushiji-MNIST",
    "drawn": "rendered digits (not MNIST)",
}


@dataclass(frozen=True)
class Dataset:
    """Training and test images (n, 28, 28) uint8, 0 = background, and their labels (n,) int64, an index into `classes`.

    `classes` holds two to ten names. It is empty for a set without labels; both label fields are then None.
    `folder` is the source of the user's own images; `note` says what was loaded, `warnings` what is doubtful about it.
    `factors` exists for rendered digits only: the true slant (shear, positive leans right) and thickness (pixels) of
    each image, (n_train + n_test,) float32, training images first.
    """

    name: str
    train_images: Tensor
    train_labels: Tensor | None
    test_images: Tensor
    test_labels: Tensor | None
    factors: dict[str, Tensor] | None = None
    classes: tuple[str, ...] = DIGITS
    folder: Path | None = None
    note: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The set's name in picture titles, such as "MNIST" or "rendered digits (not MNIST)"."""
        return f"the folder {self.name}" if self.folder else TITLES[self.name]

    @property
    def shares(self) -> Tensor:
        """The share of each class in the training set, (len(classes),) on the CPU. Needs labels."""
        return torch.bincount(self.train_labels.cpu(), minlength=len(self.classes)) / len(self.train_labels)

    @property
    def source(self) -> str:
        """The value of `--dataset` that loads this set."""
        return str(self.folder or self.name)

    def to(self, device: torch.device) -> "Dataset":
        """A copy with images and labels on `device`; the factors stay where they are."""
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        return dataclasses.replace(self, **{name: tensor.to(device) for name, tensor in tensors.items()})


def to_float(images: Tensor) -> Tensor:
    """(n, 28, 28) uint8 -> (n, 1, 28, 28) float32 in [0, 1]."""
    return images.unsqueeze(1).float().div_(255)


def epoch_order(n: int, seed: int, epoch: int) -> Tensor:
    """The shuffled indices (n,) int64 of epoch number `epoch`. They depend on the arguments alone."""
    return torch.randperm(n, generator=stream(seed, "order", epoch))
