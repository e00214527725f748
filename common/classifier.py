"""A small digit classifier: the eye that judges samples when nobody looks at the pictures.

It is trained once per dataset on labelled images, kept under the data folder, and used for reporting only: no
generative model is ever trained through it. Its last hidden layer gives the features of the Fréchet distance.
"""

import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common import metrics
from common.data import Dataset, epoch_order, to_float
from common.run import choose_precision, mixed_precision, read_tensors, write_tensors
from common.streams import stream, stream_seed

FEATURES = 128
EPOCHS = 6  # 99.5 % on MNIST after about a minute on two cores
BATCH_SIZE = 250  # at most: a small set has 32 batches to an epoch, for it would be over after a few updates
PEAK_LEARNING_RATE = 4e-3


class DigitClassifier(nn.Module):
    """Three convolutions and two linear layers."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 24, kernel_size=5, stride=2, padding=2, bias=False),
            nn.BatchNorm2d(24),
            nn.ReLU(),
            nn.Conv2d(24, 48, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(48),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(48, 96, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(96),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(96 * 3 * 3, FEATURES),
            nn.ReLU(),
        )
        self.head = nn.Linear(FEATURES, 10)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images (n, 1, 28, 28) in [0, 1] -> logits (n, 10) and features (n, 128)."""
        features = self.body(x)
        return self.head(features), features


class Seen(NamedTuple):
    """What the classifier sees in n images: logits (n, 10), features (n, 128), both float32 on the CPU."""

    logits: Tensor
    features: Tensor

    def shares(self) -> Tensor:
        """The share (10,) of each class, by the most likely one; they add up to 1."""
        return torch.bincount(self.logits.argmax(dim=1), minlength=10) / len(self.logits)


@torch.no_grad()
def look(classifier: DigitClassifier, images: Tensor) -> Seen:
    """Classify images (n, 28, 28) uint8 or (n, 1, 28, 28) float in [0, 1], in float32.

    In pieces of 250, whose hidden layers stay in a CPU's cache: twice as fast as a thousand at a time.
    """
    parts = [classifier(chunk if chunk.is_floating_point() else to_float(chunk)) for chunk in images.split(250)]
    return Seen(*(torch.cat(column).cpu() for column in zip(*parts, strict=True)))


SHARES = tuple(f"digit_{label}" for label in range(10))  # columns of metrics.csv, one per class


class Judge:
    """A dataset's classifier and what it sees in real images; called with drawn images, it judges them.

    `floor`: Fréchet distance of training from test images, the best that samples can hope for; `accuracy`: of the
    classifier on the test images; `train_shares` (10,): how often each class stands in the training set.
    """

    def __init__(self, data: Dataset, data_dir: Path, say: Callable[[str], None] = print):
        self.classifier = digit_classifier(data, data_dir, say)
        self.test = look(self.classifier, data.test_images)
        # As many training images as test images, for the distance of two finite sets depends on their sizes.
        train = look(self.classifier, data.train_images[: len(data.test_images)])
        self.floor = metrics.frechet_distance(train.features, self.test.features)
        self.accuracy = float((self.test.logits.argmax(dim=1) == data.test_labels.cpu()).float().mean())
        self.train_shares = torch.bincount(data.train_labels.cpu(), minlength=10) / len(data.train_labels)
        self.columns = SHARES[: len(data.classes)]

    def __call__(self, images: Tensor, meant: Tensor | None = None) -> dict[str, float | None]:
        """Judge images (n, 1, 28, 28) in [0, 1]: digit_0 … digit_9 (the shares of as many classes as there are),
        share_distance (total variation from the training set's shares), frechet (distance from the test images in the
        classifier's features); where the classes (n,) that were meant are given, as_meant, the share of images that
        are of them, or None where no class of the dataset was meant."""
        seen = look(self.classifier, images)
        shares = seen.shares()
        found = {}
        if meant is not None:
            named = meant < len(self.columns)  # with fewer than ten classes, a category may stand for none
            right = (seen.logits.argmax(dim=1) == meant)[named]
            found["as_meant"] = float(right.float().mean()) if len(right) else None
        return {
            **found,
            **dict(zip(self.columns, shares.tolist(), strict=False)),
            "share_distance": metrics.share_distance(shares, self.train_shares),
            "frechet": metrics.frechet_distance(seen.features, self.test.features),
        }


COLLAPSED_FOR = 3  # epochs in a row that a GAN must look collapsed before it is called so


def collapse(rows: list[dict[str, float]]) -> str | None:
    """What shows, in the last three rows of metrics.csv, that a GAN has collapsed; None where nothing does.

    Either D's mean probabilities for real and drawn images are both at their stops, within 0.01 of 0 or 1: then D
    teaches G nothing. Or more than half of the samples are of one class; rows without shares say nothing of that.
    """
    last = rows[-COLLAPSED_FOR:]
    if len(last) < COLLAPSED_FOR:
        return None
    if all(min(row[name], 1 - row[name]) < 0.01 for row in last for name in ("d_real", "d_fake")):
        return f"collapsed: D(x) and D(G(z)) at their stops for {COLLAPSED_FOR} epochs"
    if all(max(row.get(name, 0) for name in SHARES) > 0.5 for row in last):
        return f"collapsed: more than half of the samples are of one class for {COLLAPSED_FOR} epochs"
    return None


def digit_classifier(data: Dataset, data_dir: Path, say: Callable[[str], None] = print) -> DigitClassifier:
    """The classifier of a dataset on its device, in eval mode: read from `data_dir/classifiers`, or trained and kept
    there, which `say` is told. The file's name holds a checksum of the training set, so that a changed set gets a
    classifier of its own.
    """
    device = data.train_images.device
    checksum = hashlib.sha256(data.train_images.cpu().numpy()).hexdigest()[:8]
    path = Path(data_dir) / "classifiers" / f"{data.name}-{checksum}.pt"
    with torch.random.fork_rng(devices=[]):  # the caller's random state stays as it is
        torch.manual_seed(stream_seed(0, "classifier weights"))
        classifier = DigitClassifier().to(device, memory_format=torch.channels_last)
    if path.exists():
        read_tensors(path, classifier=classifier)
    else:
        say(f"training a classifier of {data.title} for the report, once (about a minute on two cores) …")
        _train(classifier, data)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_tensors(path, {"classifier": classifier.state_dict()})
        except OSError as error:
            say(f"the classifier can't be kept in {path}: {error.strerror}; trained again next time")
    return classifier.eval().requires_grad_(False)


def _train(classifier: DigitClassifier, data: Dataset) -> None:
    """Fit it with Adam, one learning-rate cycle, each batch shifted by up to two pixels. Same data, same weights."""
    n, device = len(data.train_images), data.train_images.device
    autocast = mixed_precision(device, choose_precision("auto", device))
    random = stream(0, "classifier shifts")
    optimizer = torch.optim.Adam(classifier.parameters(), fused=True)
    batch_size = min(BATCH_SIZE, max(n // 32, 16))
    steps = EPOCHS * math.ceil(n / batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LEARNING_RATE, total_steps=steps)
    for epoch in range(EPOCHS):
        for batch in epoch_order(n, 0, epoch).to(device).split(batch_size):
            shift = torch.randint(-2, 3, (2,), generator=random).tolist()
            x = to_float(data.train_images[batch]).roll(shift, dims=(2, 3))
            with autocast:
                loss = F.cross_entropy(classifier(x)[0], data.train_labels[batch])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
