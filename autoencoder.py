"""An autoencoder 784-100-784 that comes within 0.4 % of principal component analysis.

    python autoencoder.py      # 45 seconds on two cores, within 0.4 % of PCA on ten seeds, see docs/autoencoder.md

One hidden layer with ReLU, a linear output, squared error, weights from a Gaussian of standard deviation 0.01. No such
network can beat PCA of the same rank on its training set (Bourlard and Kamp 1988): whatever the hidden layer does, the
output is a bias plus a combination of 100 columns, and PCA finds the best such columns. So the training loss has a
known floor; the ratio to PCA, on test images, says how good the training was, which a loss alone never does.

Departures from the textbook: Adam with a learning rate that rises and then falls to 0 along a cosine, a positive
initial bias that keeps every hidden unit alive, and an output bias that starts at the mean image. `--optimizer sgd` is
the textbook's optimiser and loss only, see `reconstruction_loss`.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.data import Dataset, to_float
from common.data.inputs import image_batch, rows
from common.look import metrics
from common.look.autoencoder import COLUMNS, report, save_epoch
from common.look.figures import save_reals
from common.run.checkpoint import load_model
from common.run.cli import run_cli
from common.run.config import Settings
from common.run.run import Run
from common.train import init
from common.train.device import default_torch_modes, eval_mode
from common.train.optim import adam, optimizer_step, scale_learning_rates
from common.train.random import stream_seed

PIXELS = 28 * 28
WARM_UP = 0.04  # share of the updates in which Adam's learning rate rises [our choice]
WEIGHT_DECAY, MOMENTUM = 0.1, 0.5  # of `--optimizer sgd`, biases included [textbook]


@dataclass(frozen=True)
class Config(Settings):
    # network
    hidden: int = 100  # units of the hidden layer, the rank of the PCA it is compared with, below 784 [textbook]
    hidden_bias: float = 1.0  # initial bias of the hidden units, so that none dies [docs/autoencoder.md]
    # optimisation
    optimizer: Literal["adam", "sgd"] = "adam"  # sgd: the textbook's, momentum 0.5 and weight decay 0.1
    epochs: int = 30  # passes over the training images; more if fewer than 20,000 [our choice]
    batch_size: int = 128  # images per update [our choice]
    learning_rate: float = 3e-3  # peak, reached after 4 % of the updates; then falls to 0 [tuned: docs/notes.md]
    learning_rate_sgd: float = 1e-2  # SGD's at the start; its loss is summed over pixels [docs/autoencoder.md]
    seed: int = 0  # decides weights and order
    # machine
    precision: Literal["auto", "float32", "bfloat16"] = "float32"  # bfloat16 is slower on small layers [docs/speed.md]

    SCRIPT, NAME = "autoencoder", "Autoencoder"
    LIMITS = {"hidden": (1, PIXELS - 1), "hidden_bias": (-100, 100), "learning_rate_sgd": (0, 1)}


# Loss -------------------------------------------------------------------------------------------------------------


def reconstruction_loss(output: Tensor, x: Tensor, optimizer: str = "adam") -> Tensor:
    """Squared error of (n, 784) against (n, 784): for adam the mean over pixels and images; for sgd the sum over
    pixels, mean over images, as the textbook has it.

    The reduction changes what weight decay means. lambda/2 |w|^2 is added to the loss: beside a sum over 784 pixels
    lambda = 0.1 is a mild pull, beside their mean it is 784 times as strong, and the weights decay until the output is
    the same for every image. Adam without decay is indifferent to a factor on the loss.
    """
    squared = (output - x).square()
    return squared.mean() if optimizer == "adam" else squared.sum(dim=1).mean()


# The model: what trains, is saved, encodes and decodes ------------------------------------------------------------


class Autoencoder(nn.Module):
    """784 grey values -> hidden units with ReLU -> 784 grey values, linear."""

    def __init__(self, config: Config):
        """Gaussian weights of standard deviation 0.01, from PyTorch's global random state."""
        super().__init__()
        self.config = config
        self.encoder = nn.Linear(PIXELS, config.hidden)
        self.decoder = nn.Linear(config.hidden, PIXELS)
        init.gaussian_(self, std=0.01)
        nn.init.constant_(self.encoder.bias, config.hidden_bias)

    def hidden_values(self, x: Tensor) -> Tensor:
        """(n, 784) -> (n, hidden), not negative."""
        return F.relu(self.encoder(x)).float()

    def output(self, hidden: Tensor) -> Tensor:
        """(n, hidden) -> (n, 784), around [0, 1] but not bounded to it."""
        return self.decoder(hidden).float()

    def forward(self, x: Tensor) -> Tensor:
        """(n, 784) -> (n, 784)."""
        return self.output(self.hidden_values(x))

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Images (n, 1, 28, 28) in [0, 1] -> hidden values (n, hidden). Raises ValueError for other images."""
        return self.hidden_values(image_batch(x).to(self.encoder.weight).flatten(1))

    @torch.no_grad()
    def decode(self, hidden: Tensor) -> Tensor:
        """Hidden values (n, hidden) -> images (n, 1, 28, 28), clipped to [0, 1]. Raises ValueError for other shapes."""
        hidden = rows("hidden", hidden, self.config.hidden).to(self.encoder.weight)
        return self.output(hidden).clamp(0, 1).view(-1, 1, 28, 28)


def load(run_folder: str | Path) -> Autoencoder:
    """The model of a run folder, on the CPU. Loads weights only, never code. Raises BadInput for any other folder."""
    return load_model(run_folder, Config, Autoencoder)


# Training ---------------------------------------------------------------------------------------------------------


def make_optimizer(model: Autoencoder) -> torch.optim.Optimizer:
    """Adam, or the textbook's SGD."""
    config = model.config
    if config.optimizer == "adam":
        return adam(model, config.learning_rate)
    groups = [{"params": model.parameters(), "initial_lr": config.learning_rate_sgd}]
    return torch.optim.SGD(groups, config.learning_rate_sgd, MOMENTUM, weight_decay=WEIGHT_DECAY, fused=True)


def schedule(optimizer: torch.optim.Optimizer, config: Config, progress: float) -> None:
    """Set the learning rate at this progress (share of the updates done): it falls to 0 along a cosine. Adam's
    rises first: its first steps all go one way, and full ones would kill hidden units for good."""
    rise = min(1, progress / WARM_UP + 0.01) if config.optimizer == "adam" else 1
    scale_learning_rates(rise * 0.5 * (1 + math.cos(math.pi * progress)), optimizer)


def update(
    model: Autoencoder, optimizer: torch.optim.Optimizer, x: Tensor, autocast: torch.autocast
) -> dict[str, Tensor]:
    """One step of the optimiser on the squared error of x (n, 784). Returns the scalars to log."""
    with autocast:
        output = model(x)
    loss = reconstruction_loss(output, x, model.config.optimizer)
    optimizer_step(optimizer, loss)
    return {"loss": loss}


@default_torch_modes()
def main(config: Config) -> dict:
    """Train, measure, save pictures; return what report.json holds. Raises BadInput before anything is written."""
    with Run(config) as run:
        torch.manual_seed(stream_seed(config.seed, "weights"))
        model = Autoencoder(config).to(run.device)
        with torch.no_grad():  # the output starts near the mean image
            model.decoder.bias.copy_(to_float(run.data.train_images).flatten(1).mean(dim=0))
        optimizer = make_optimizer(model)
        run.restore(model=model, optimizer=optimizer)

        run.attempt(save_reals)
        if run.step == 0:
            run.attempt(save_epoch, model)
        pca_test_mse = metrics.pca_mse(run.data.train_images, run.data.test_images, config.hidden)
        for _ in run.remaining_epochs():
            for batch in run.batches():
                schedule(optimizer, config, run.progress)
                x = to_float(run.data.train_images.index_select(0, batch)).flatten(1)
                run.log(update(model, optimizer, x, run.autocast))
            row = run.means() | measure(model, run.data, pca_test_mse)
            run.end_epoch(row, COLUMNS, warnings=doubts(row, config))
            run.attempt(save_epoch, model)
        final = measure(model, run.data, pca_test_mse, part=None)
        return report(run, model, final, doubts(final, config))


def measure(model: Autoencoder, data: Dataset, pca_test_mse: float, part: int | None = 10_000) -> dict[str, float]:
    """Columns of metrics.csv, measured in float32 on the test images and on the first `part` training images.

    train_mse, test_mse, pca_test_mse: mean squared error per pixel; ratio: test_mse / pca_test_mse, left out if PCA
    leaves no error; dead_units: hidden units that are 0 for every one of these images. part None: all of them.
    """
    mse, active = {}, torch.zeros(model.encoder.out_features, dtype=torch.bool, device=data.train_images.device)
    with eval_mode(model):
        for name, x in (("train_mse", data.train_images[:part]), ("test_mse", data.test_images)):
            errors = []
            for chunk in x.split(5_000):
                flat = to_float(chunk).flatten(1)
                hidden = model.hidden_values(flat)
                active |= (hidden > 0).any(dim=0)
                errors.append((model.output(hidden) - flat).square().mean(dim=1))
            mse[name] = float(torch.cat(errors).cpu().double().mean())
    ratio = metrics.quotient(mse["test_mse"], pca_test_mse)
    found = {**mse, "pca_test_mse": pca_test_mse} | ({} if ratio is None else {"ratio": ratio})
    return {**found, "dead_units": int((~active).sum())}


def doubts(row: dict[str, float], config: Config) -> tuple[str | None, ...]:
    """Warnings: a tenth of the hidden units or more are dead, or there is no ratio."""
    dead = f"{row['dead_units']} of {config.hidden} hidden units are dead"
    exact = f"PCA of rank {config.hidden} leaves no error on these images, so there is no ratio to it"
    return dead if row["dead_units"] >= config.hidden / 10 else None, None if "ratio" in row else exact


if __name__ == "__main__":
    run_cli(main, Config)
