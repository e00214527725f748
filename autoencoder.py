"""An autoencoder 784-100-784 that comes within 0.4 % of principal component analysis.

    python autoencoder.py      # 45 seconds on two cores, within 0.4 % of PCA on 13 seeds, see docs/autoencoder.md

One hidden layer with ReLU, a linear output, squared error, weights from a Gaussian of standard deviation 0.01. No such
network can beat PCA of the same rank on its training set (Bourlard and Kamp 1988): whatever the hidden layer does, the
output lies in the span of 100 columns and a bias, and PCA finds the best such span. So the loss has a known floor, and
the ratio to it says how good the training was, which a loss alone never does.

Departures from the textbook: Adam with a learning rate that rises and then falls to 0 along a cosine, a positive
initial bias that keeps every hidden unit alive, and an output bias that starts at the mean image. `--optimizer sgd` is
the textbook's recipe, see `reconstruction_loss`.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common import arguments, init
from common.checkpoint import load_model
from common.cli import run_cli
from common.data import Dataset, to_float
from common.device import cuda_graphed, default_torch_modes, eval_mode
from common.look import figures, metrics, plots
from common.optim import adam, descend, scale_learning_rates
from common.run import Run
from common.settings import Settings
from common.streams import stream_seed

PIXELS = 28 * 28
# columns of metrics.csv on the console and in curves.png
SHOWN = {"ratio": "over PCA", "test_mse": "test error", "train_mse": "train error", "dead_units": "dead"}
WARM_UP = 0.04  # share of the updates in which Adam's step size rises [measured: docs]
WEIGHT_DECAY, MOMENTUM = 0.1, 0.5  # of `--optimizer sgd` [textbook]


@dataclass(frozen=True)
class Config(Settings):
    # network
    hidden: int = 100  # units of the hidden layer, the rank of the PCA it is compared with, below 784 [textbook]
    hidden_bias: float = 1.0  # initial bias of the hidden units; with 0 some die on small sets [measured: docs]
    # optimisation
    optimizer: Literal["adam", "sgd"] = "adam"  # sgd: the textbook's, momentum 0.5 and weight decay 0.1
    epochs: int = 30  # passes over the training images; the default grows below 20,000 [measured: docs]
    batch_size: int = 128  # images per update [assumption]
    learning_rate: float = 3e-3  # the highest; rises over 4 % of the updates, then falls to 0 [measured: docs]
    learning_rate_sgd: float = 1e-2  # of sgd at the start, whose loss is summed over pixels [measured: docs]
    seed: int = 0  # decides weights and order
    # machine
    precision: Literal["auto", "float32", "bfloat16"] = "float32"  # bfloat16 is slower on small layers [measured: docs]

    SCRIPT: ClassVar = "autoencoder"
    LIMITS: ClassVar = {
        **Settings.LIMITS,
        "hidden": (1, PIXELS - 1),
        "hidden_bias": (-100, 100),
        "learning_rate": (0, 1),
        "learning_rate_sgd": (0, 1),
    }


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

    @default_torch_modes()
    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Images (n, 1, 28, 28) with grey values in [0, 1] -> hidden values (n, hidden). ValueError for others."""
        return self.hidden_values(arguments.image_batch(x).flatten(1))

    @default_torch_modes()
    @torch.no_grad()
    def decode(self, hidden: Tensor) -> Tensor:
        """Hidden values (n, hidden) -> images (n, 1, 28, 28), clipped to [0, 1]. ValueError for another shape."""
        hidden = arguments.rows("hidden values", hidden, self.config.hidden)
        return self.output(hidden).clamp(0, 1).view(-1, 1, 28, 28)


def load(run_folder: str | Path) -> Autoencoder:
    """The model of a run folder, on the CPU. Reads weights only, never code. Raises BadInput for any other folder."""
    return load_model(run_folder, Config, Autoencoder)


# Training ---------------------------------------------------------------------------------------------------------


def make_optimizer(model: Autoencoder) -> torch.optim.Optimizer:
    """Adam, or the textbook's SGD."""
    config = model.config
    if config.optimizer == "adam":
        return adam(model, config.learning_rate)
    weights = [{"params": model.parameters(), "initial_lr": config.learning_rate_sgd}]
    rate = torch.tensor(config.learning_rate_sgd, device=model.decoder.bias.device)
    return torch.optim.SGD(weights, lr=rate, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY, fused=True)


def schedule(optimizer: torch.optim.Optimizer, config: Config, progress: float) -> None:
    """Set the step size for the next update, after this share of all updates: it falls to 0 along a cosine. Adam's
    rises first: its first steps all go one way, and full ones would kill hidden units for good."""
    rise = min(1, progress / WARM_UP + 0.01) if config.optimizer == "adam" else 1
    scale_learning_rates(rise * 0.5 * (1 + math.cos(math.pi * progress)), optimizer)


def update(
    model: Autoencoder, optimizer: torch.optim.Optimizer, x: Tensor, autocast: torch.autocast
) -> dict[str, Tensor]:
    """One step of the optimiser on the squared error of x (n, 784). Returns scalars to log."""
    with autocast:
        output = model(x)
    loss = reconstruction_loss(output, x, model.config.optimizer)
    descend(optimizer, loss)
    return {"loss": loss}


@default_torch_modes()
def main(config: Config) -> dict:
    """Train, measure, draw; return what report.json holds. Raises BadInput before anything is written."""
    with Run(config) as run:
        torch.manual_seed(stream_seed(config.seed, "weights"))
        model = Autoencoder(config).to(run.device)
        with torch.no_grad():  # the output starts near the mean image
            model.decoder.bias.copy_(to_float(run.data.train_images).flatten(1).mean(dim=0))
        optimizer = make_optimizer(model)
        run.restore(model=model, optimizer=optimizer)

        pca_test_mse = metrics.pca_mse(run.data.train_images, run.data.test_images, config.hidden)
        figures.draw_reals(run)
        if run.step == 0:
            draw_epoch(run, model)

        def one_update(batch: Tensor) -> dict[str, Tensor]:
            x = to_float(run.data.train_images.index_select(0, batch)).flatten(1)
            return update(model, optimizer, x, run.autocast)

        step = cuda_graphed(one_update, run.device, run.stream("training"))  # nothing is drawn from it
        for _ in run.remaining_epochs():
            for batch in run.batches():
                schedule(optimizer, config, run.progress)
                run.add(step(batch))
            row = run.means() | measure(model, run.data, pca_test_mse)
            run.end_epoch(row, SHOWN, warnings=doubts(row, config))
            draw_epoch(run, model)
        return report(run, model)


# Measuring and drawing --------------------------------------------------------------------------------------------


def measure(model: Autoencoder, data: Dataset, pca_test_mse: float, part: int | None = 10_000) -> dict[str, float]:
    """Columns of metrics.csv, measured in float32 on the test images and on the first `part` training images.

    train_mse, test_mse, pca_test_mse: mean squared error per pixel; ratio: test_mse / pca_test_mse, left out where PCA
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
            mse[name] = float(torch.cat(errors).double().mean())
    ratio = metrics.quotient(mse["test_mse"], pca_test_mse)
    found = {**mse, "pca_test_mse": pca_test_mse} | ({} if ratio is None else {"ratio": ratio})
    return {**found, "dead_units": int((~active).sum())}


def doubts(row: dict[str, float], config: Config) -> tuple[str | None, ...]:
    """What a person would object to: a tenth of the hidden units or more are dead, or there is no ratio."""
    dead = f"{row['dead_units']} of {config.hidden} hidden units are dead"
    exact = f"PCA of rank {config.hidden} leaves no error on these images, so there is no ratio to it"
    return dead if row["dead_units"] >= config.hidden / 10 else None, None if "ratio" in row else exact


def reconstruct(model: Autoencoder, x: Tensor) -> Tensor:
    """Images (n, 28, 28) uint8 -> their reconstructions (n, 28, 28) float32, not clipped."""
    with eval_mode(model):
        return model(to_float(x).flatten(1)).view(-1, 28, 28)


def draw_epoch(run: Run, model: Autoencoder) -> None:
    """epoch_NNN.png, test images above their reconstructions, and curves.png as of the epochs that are complete."""
    x = run.data.test_images[:30]
    pairs = torch.stack((figures.tiled(x / 255, 3, 10), figures.tiled(reconstruct(model, x), 3, 10)), dim=1)
    title = f"{run.title}, {run.when}\ntest images above their reconstructions"
    labels = ("original", "output") * 3
    figures.save_grid(run.folder / f"epoch_{run.epoch:03d}.png", pairs.flatten(0, 1), title, labels)
    panels = {
        "mean squared error per pixel": ["train_mse", "test_mse", "pca_test_mse"],
        "training loss": ["loss"],
        "test error over that of PCA": ["ratio"],
        "hidden units that are always 0": ["dead_units"],
    }
    reference = {"test error over that of PCA": (1.0, "PCA")}
    plots.draw_curves(run, panels, reference=reference, logarithmic=("mean squared error per pixel",), names=SHOWN)


def draw_hidden_units(run: Run, model: Autoencoder) -> None:
    """hidden_units.png: what each of the first fifty units reads (encoder), beside what it writes (decoder).

    Weights have a sign: grey is 0, white and black are plus and minus the largest weight of either layer.
    """
    both = model.encoder.weight[:50].detach(), model.decoder.weight.T[:50].detach()
    pairs = torch.stack([weight / weight.abs().max() / 2 + 0.5 for weight in both], dim=1).view(-1, 28, 28)
    shown, labels = figures.tiled(pairs, math.ceil(len(pairs) / 10), 10), ("reads", "writes") * 5
    title = f"{run.title}, {run.when}\nweights of {len(both[0])} hidden units; grey is 0"
    figures.save_grid(run.folder / "hidden_units.png", shown, title, column_labels=labels)


def draw_extremes(run: Run, model: Autoencoder) -> None:
    """extremes.png: the ten test images that are reconstructed best and worst."""
    output = reconstruct(model, run.data.test_images)
    order = (output - run.data.test_images / 255).square().mean(dim=(1, 2)).argsort()
    rows = []
    for chosen in (order[:10], order[-10:]):
        rows += [run.data.test_images[chosen] / 255, output[chosen]]
    title = f"{run.title}, {run.when}\nthe test images reconstructed best and worst"
    figures.save_grid(run.folder / "extremes.png", torch.stack(rows), title, ("best", "output", "worst", "output"))


def draw_range(run: Run, model: Autoencoder) -> None:
    """range.png: the same outputs clipped to [0, 1], and stretched from their minimum to their maximum."""
    output = reconstruct(model, run.data.test_images[:10])
    stretched = (output - output.min()) / (output.max() - output.min())
    rows = torch.stack((run.data.test_images[:10] / 255, output, stretched))
    title = f"{run.title}, {run.when}\none network, two ways to show its output"
    figures.save_grid(run.folder / "range.png", rows, title, ("original", "clipped to [0, 1]", "stretched"))


def report(run: Run, model: Autoencoder) -> dict:
    """The figures and report.json of a finished run."""
    draw_hidden_units(run, model)
    draw_extremes(run, model)
    draw_range(run, model)
    figures.save_animation(run.folder / "training.gif", figures.epoch_pictures(run.folder))
    final = measure(model, run.data, run.rows[-1]["pca_test_mse"], part=None)
    errors = f"{final['test_mse']:.6f} per pixel, {final['pca_test_mse']:.6f} of PCA with as many units"
    ratio = f"{final['ratio']:.4f}" if "ratio" in final else "none"
    told = {"test error": errors, "ratio": ratio, "dead units": str(final["dead_units"])}
    return run.finish({"ratio": None, **final}, told, f"epoch_{run.epoch:03d}.png", warnings=doubts(final, run.config))


if __name__ == "__main__":
    run_cli(main, Config)
