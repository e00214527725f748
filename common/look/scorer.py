"""A small classifier of a dataset's classes, which scores generated images.

It is trained once per dataset on labelled images, kept under the data folder, and used for reporting only: no
generative model is ever trained through it. Its last hidden layer gives the features of the Fréchet distance.
"""

import hashlib
import math
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.checkpoint import flat, read_module, write_tensors
from common.console import Console
from common.data import Dataset, epoch_order, to_float
from common.device import choose_precision, mixed_precision
from common.look import metrics
from common.optim import descend
from common.streams import stream, stream_seed

RECIPE = 3  # one more whenever the network, its training or the file's format changes
FEATURES = 128
EPOCHS = 6  # 99.5 % on MNIST
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


class Features(NamedTuple):
    """What the classifier makes of n images: logits (n, 10), features (n, 128), both float32 on the CPU."""

    logits: Tensor
    features: Tensor

    def shares(self) -> Tensor:
        """The share (10,) of each class, by the most likely one; they add up to 1."""
        return torch.bincount(self.logits.argmax(dim=1), minlength=10) / len(self.logits)


@torch.no_grad()
def classify(classifier: DigitClassifier, images: Tensor) -> Features:
    """Classify images (n, 28, 28) uint8 or (n, 1, 28, 28) float in [0, 1], in float32.

    In pieces of 250, whose hidden layers stay in a CPU's cache: twice as fast as a thousand at a time.
    """
    parts = [classifier(chunk if chunk.is_floating_point() else to_float(chunk)) for chunk in images.split(250)]
    return Features(*(torch.cat(column).cpu() for column in zip(*parts, strict=True)))


class SampleScorer:
    """Scores generated images by a classifier of the dataset.

    `floor` is the Fréchet distance between training and test images, the best that samples can reach; `accuracy` that
    of the classifier on the test images; `train_shares` (10,) the share of each class in the training set; `columns`
    names the shares.
    """

    def __init__(self, data: Dataset, data_dir: Path, console: Console):
        self.classifier = digit_classifier(data, data_dir, console)
        self.test = classify(self.classifier, data.test_images)
        # As many training images as test images: the distance of two finite sets depends on their sizes.
        train = classify(self.classifier, data.train_images[: len(data.test_images)])
        self.floor = metrics.frechet_distance(train.features, self.test.features)
        self.accuracy = float((self.test.logits.argmax(dim=1) == data.test_labels.cpu()).float().mean())
        self.train_shares = data.shares
        self.classes = data.classes
        self.columns = metrics.SHARES[: len(data.classes)]

    def __call__(self, images: Tensor, meant: Tensor | None = None) -> dict[str, float | None]:
        """Score images (n, 1, 28, 28) in [0, 1], best as many as there are test images.

        Returns digit_0 … digit_9 (the share of each class), class_total_variation (from the shares of the training
        set), frechet (distance from the test images) and frechet_over_floor, where the floor is not 0. With the classes
        (n,) that were meant also drawn_as_meant, the share of images that are of them; None where no class of the
        dataset was meant.
        """
        found = classify(self.classifier, images)
        shares = found.shares()
        frechet = metrics.frechet_distance(found.features, self.test.features)
        over_floor = metrics.quotient(frechet, self.floor)
        scores = {}
        if meant is not None:
            named = meant < len(self.columns)  # with fewer than ten classes, a category may stand for none
            right = (found.logits.argmax(dim=1) == meant)[named]
            scores["drawn_as_meant"] = float(right.float().mean()) if len(right) else None
        return {
            **scores,
            **dict(zip(self.columns, shares.tolist(), strict=False)),
            "class_total_variation": metrics.class_total_variation(shares, self.train_shares),
            "frechet": frechet,
            **({} if over_floor is None else {"frechet_over_floor": over_floor}),
        }

    def summary(self, scores: Mapping[str, float | None]) -> dict[str, float | None]:
        """The entries of report.json for scores as `__call__` returns them."""
        meant = {name: scores[name] for name in ("drawn_as_meant",) if name in scores}
        shares = [scores[name] for name in self.columns]
        return {
            **meant,
            "frechet": scores["frechet"],
            "frechet_floor": self.floor,
            "frechet_over_floor": scores.get("frechet_over_floor"),
            "class_total_variation": scores["class_total_variation"],
            "share_smallest": min(shares),
            "share_largest": max(shares),
            "classifier_accuracy": self.accuracy,
        }

    @staticmethod
    def told(report: Mapping[str, float | None]) -> dict[str, str]:
        """The lines of the scorecard for the entries of report.json."""
        ratio = report["frechet_over_floor"]
        return {
            "Fréchet ×": f"{'none' if ratio is None else f'{ratio:.1f}'} (the distance over that of real images)",
            "classes": f"{report['share_smallest']:.1%} to {report['share_largest']:.1%} of the samples each, "
            f"{report['class_total_variation']:.1%} off the training images",
        }


def digit_classifier(data: Dataset, data_dir: Path, console: Console) -> DigitClassifier:
    """The classifier of a dataset on its device, in eval mode: read from `data_dir/classifiers`, or trained and kept
    there. The file's name holds a checksum of the training set and the recipe's number, so that a changed set or
    recipe gets a classifier of its own.
    """
    device = data.train_images.device
    checksum = hashlib.sha256(data.train_images.cpu().numpy()).hexdigest()[:8]
    path = Path(data_dir) / "classifiers" / f"{data.name}-{checksum}-{RECIPE}.pt"
    with torch.random.fork_rng(devices=[]):  # the caller's random state stays as it is
        torch.manual_seed(stream_seed(0, "classifier weights"))
        classifier = DigitClassifier().to(device, memory_format=torch.channels_last)
    if path.exists():
        read_module(path, "classifier", classifier)
    else:
        console.say(f"training a classifier of {data.title} for the report, once (one to a few minutes) …")
        _train(classifier, data, console)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_tensors(path, flat({"classifier": classifier}))
        except OSError as error:
            console.say(f"the classifier can't be kept in {path}: {error.strerror}; trained again next time")
    return classifier.eval().requires_grad_(False)


def _train(classifier: DigitClassifier, data: Dataset, console: Console) -> None:
    """Fit it with Adam, one learning-rate cycle, each batch shifted by up to two pixels. Same data, same weights."""
    n, device = len(data.train_images), data.train_images.device
    autocast = mixed_precision(device, choose_precision("auto", device))
    random = stream(0, "classifier shifts")
    optimizer = torch.optim.Adam(classifier.parameters(), fused=True)
    batch_size = min(BATCH_SIZE, max(n // 32, 16))
    steps = EPOCHS * math.ceil(n / batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LEARNING_RATE, total_steps=steps)
    orders = (epoch_order(n, 0, epoch).to(device) for epoch in range(EPOCHS))
    with console.bar(steps, "classifier") as bar:
        for batch in chain.from_iterable(order.split(batch_size) for order in orders):
            shift = torch.randint(-2, 3, (2,), generator=random).tolist()
            x = to_float(data.train_images[batch]).roll(shift, dims=(2, 3))
            with autocast:
                loss = F.cross_entropy(classifier(x)[0], data.train_labels[batch])
            descend(optimizer, loss)
            schedule.step()
            bar.update()
