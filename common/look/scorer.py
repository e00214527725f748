"""A small classifier of a dataset's classes, which scores generated images.

It is trained once per dataset on labelled images, kept in the data folder, and used for reporting only: no generative
model is ever trained through it. Its last hidden layer gives the features of the Fréchet distance.
"""

import hashlib
import math
from collections.abc import Mapping
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common import BadInput
from common.data import Dataset, epoch_order, to_float
from common.look import metrics
from common.run.checkpoint import FORMAT, flatten_state, load_state, read_checkpoint, write_checkpoint
from common.run.console import Console
from common.train.device import choose_precision, mixed_precision
from common.train.optim import optimizer_step
from common.train.random import stream, stream_seed

RECIPE = 5  # one more whenever the network or its training changes
FEATURES = 128
EPOCHS = 4  # 99.4 % on MNIST, as with 6
BATCH_SIZE = 250  # at most: a small set has 32 batches per epoch, since a few updates would not be enough
PEAK_LEARNING_RATE = 4e-3


class DigitClassifier(nn.Module):
    """Three convolutions and two linear layers."""

    def __init__(self, classes: int):
        super().__init__()

        def block(width_in: int, width: int, kernel_size: int, **how: int) -> tuple[nn.Module, ...]:
            conv = nn.Conv2d(width_in, width, kernel_size, padding=kernel_size // 2, bias=False, **how)
            return conv, nn.BatchNorm2d(width), nn.ReLU()

        convolutions = (
            *block(1, 24, 5, stride=2),
            *block(24, 48, 3),
            nn.MaxPool2d(2),
            *block(48, 96, 3),
            nn.MaxPool2d(2),
        )
        self.body = nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(96 * 3 * 3, FEATURES), nn.ReLU())
        self.head = nn.Linear(FEATURES, classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images (n, 1, 28, 28) in [0, 1] -> logits (n, classes) and features (n, 128)."""
        features = self.body(x)
        return self.head(features), features


@torch.no_grad()
def classify(classifier: DigitClassifier, images: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (n, classes), features (n, 128), float32 on the CPU, of images (n, 28, 28) uint8 or (n, 1, 28, 28) float.

    In batches of 250, whose hidden layers fit into a CPU's cache: twice as fast as a thousand at a time.
    """
    batches = (batch if batch.is_floating_point() else to_float(batch) for batch in images.split(250))
    logits, features = zip(*map(classifier, batches), strict=True)
    return torch.cat(logits).cpu(), torch.cat(features).cpu()


class SampleScorer:
    """Scores generated images by a classifier of a dataset of k classes.

    `floor` is the Fréchet distance between training and test images, the best that samples can reach; `accuracy` that
    of the classifier on the test images; `train_shares` (k,) the share of each class in the training set; `columns`
    names the shares.
    """

    def __init__(self, data: Dataset, data_dir: Path, console: Console):
        self.classifier = load_classifier(data, data_dir, console)
        self.columns = [metrics.SHARE + name for name in data.classes]
        self.train_shares, labels = data.shares, data.test_labels.cpu()
        predicted, self.test_features = self.predict(data.test_images)
        self.test_spread = metrics.spread_within_classes(self.test_features, labels)
        # As many training images as test images: the distance of two finite sets depends on their sizes.
        _, train_features = self.predict(data.train_images[: len(data.test_images)])
        self.floor = metrics.frechet_distance(train_features, self.test_features)
        self.accuracy = float((predicted == labels).float().mean())

    def predict(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The most likely of the k classes (n,), and the features (n, 128), of images as `classify` takes them."""
        logits, features = classify(self.classifier, images)
        return logits.argmax(dim=1), features

    def __call__(self, images: Tensor, meant: Tensor | None = None) -> dict[str, float | None]:
        """The scores of images (n, 1, 28, 28) in [0, 1], best as many as there are test images.

        share_NAME is the share of each class, class_total_variation is their distance from the shares of the training
        set, frechet the distance from the test images, frechet_over_floor its ratio to the floor, if that is not 0.
        With the classes (n,) that were meant also drawn_as_meant, the share of images that show them, and
        spread_over_test, the spread of the features within a class over that of the test images (below 1: some forms
        are missing).
        """
        predicted, features = self.predict(images)
        shares = torch.bincount(predicted, minlength=len(self.columns)) / len(predicted)
        scores: dict[str, float | None] = {}
        if meant is not None:
            scores["drawn_as_meant"] = float((predicted == meant).float().mean())
            spread = metrics.spread_within_classes(features, meant)
            scores["spread_over_test"] = metrics.quotient(spread, self.test_spread)
        scores |= zip(self.columns, shares.tolist(), strict=True)
        scores["class_total_variation"] = metrics.class_total_variation(shares, self.train_shares)
        scores["frechet"] = metrics.frechet_distance(features, self.test_features)
        over_floor = metrics.quotient(scores["frechet"], self.floor)
        return scores if over_floor is None else {**scores, "frechet_over_floor": over_floor}

    def summary(self, scores: Mapping[str, float | None]) -> dict[str, float | None]:
        """The entries of report.json for scores as `__call__` returns them."""
        kept = ("drawn_as_meant", "spread_over_test", "frechet", "frechet_over_floor", "class_total_variation")
        shares = [scores[name] for name in self.columns]
        spread = {"share_smallest": min(shares), "share_largest": max(shares)}
        judge = {"frechet_floor": self.floor, "classifier_accuracy": self.accuracy}
        found = {name: scores[name] for name in kept if name in scores}
        return {"frechet_over_floor": None, **found, **spread, **judge}

    @staticmethod
    def scorecard(report: Mapping[str, float | None]) -> dict[str, str]:
        """The lines of the scorecard, {name: text}, for the entries of report.json."""
        ratio = report["frechet_over_floor"]
        return {
            "Fréchet ×": f"{'none' if ratio is None else f'{ratio:.1f}'} (the distance over that of real images)",
            "classes": f"{report['share_smallest']:.1%} to {report['share_largest']:.1%} of the samples each, "
            f"{report['class_total_variation']:.1%} off the training set",
        }


def load_classifier(data: Dataset, data_dir: Path, console: Console) -> DigitClassifier:
    """The classifier of a dataset on its device, in eval mode: loaded from `data_dir/classifiers`, or trained and saved
    there. Raises BadInput, naming the file, for a damaged one.

    The file's name holds a checksum of the training images and labels, the recipe and the format: when one of them
    changes, a new classifier is trained.
    """
    device = data.train_images.device
    checksum = hashlib.sha256(data.train_images.cpu().numpy())
    checksum.update(data.train_labels.cpu().numpy())
    path = Path(data_dir) / "classifiers" / f"{data.name}-{checksum.hexdigest()[:8]}-{RECIPE}-{FORMAT}.pt"
    with torch.random.fork_rng(devices=[]):  # the caller's random state stays as it is
        torch.manual_seed(stream_seed(0, "classifier weights"))
        classifier = DigitClassifier(len(data.classes)).to(device, memory_format=torch.channels_last)
    if path.exists():
        content = read_checkpoint(path)
        try:
            load_state(content, {"classifier": classifier})
        except RuntimeError:
            raise BadInput(f"{path}: does not hold this classifier; delete it, and it is trained again") from None
    else:
        console.say("training the classifier that judges samples, once per data set")
        _train(classifier, data, console)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_checkpoint(path, flatten_state({"classifier": classifier}))
        except OSError as error:
            console.say(f"the classifier cannot be saved in {path}: {error.strerror}; it is trained again next time")
    return classifier.eval().requires_grad_(False)


def _train(classifier: DigitClassifier, data: Dataset, console: Console) -> None:
    """Fit it with Adam and a one-cycle learning rate, each batch shifted by up to two pixels. Same data, same
    weights."""
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
            optimizer_step(optimizer, loss)
            schedule.step()
            bar.update()
