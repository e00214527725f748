"""An autoencoder 784-100-784 that comes as close to principal component analysis as a network can.

    python autoencoder.py      # 45 seconds on two cores, within 0.6 % of PCA on seeds 0 to 4; figures in README.md

One hidden layer with ReLU, a linear output, squared error, weights from a Gaussian of standard deviation 0.01. No such
network can beat PCA of the same rank on its training set (Baldi and Hornik 1989): whatever the hidden layer does, the
output lies in the span of 100 columns and a bias, and PCA finds the best such span. So the loss has a known floor, and
the ratio to it says how good the training was, which a loss alone never does.

Departures from the textbook: Adam with a learning rate that falls to 0 along a cosine, a positive initial bias that
keeps every hidden unit alive, and an output bias that starts at the mean image. `--optimizer sgd` is the textbook's
recipe, see `reconstruction_loss`.
"""

import csv
import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common import images, init, metrics
from common.compare import compare
from common.data import Dataset, checked, load_dataset, to_float
from common.run import (
    ROOT,
    Run,
    adam,
    captured,
    check_batch_size,
    check_fields,
    choose_device,
    choose_precision,
    evaluating,
    launch,
    mixed_precision,
    next_folder,
    read_config,
    read_tensors,
    set_learning_rate,
    whole_file,
)
from common.streams import stream_seed

PIXELS = 28 * 28


@dataclass(frozen=True)
class Config:
    # data
    dataset: str = "auto"  # mnist, fashion, kmnist, drawn, or a folder of images; auto: MNIST if it can be had
    data_dir: Path = ROOT / "data"  # where MNIST/raw is or will be, FashionMNIST/raw, KMNIST/raw
    # network
    hidden: int = 100  # units of the hidden layer, the rank of the PCA it is compared with, below 784 [textbook]
    hidden_bias: float = 1.0  # initial bias of the hidden units; with 0 some of them die [measured: see README]
    # optimisation
    optimizer: Literal["adam", "sgd"] = "adam"  # sgd: the textbook's, momentum 0.5 and weight decay 0.1
    epochs: int = 30  # passes over the training images [measured: see README]
    batch_size: int = 128  # images per update [assumption]
    learning_rate: float = 1e-3  # at the start; falls to 0 along a cosine [measured: see README]
    learning_rate_sgd: float = 5e-3  # the same for sgd, whose loss is summed over the pixels [measured: see README]
    seed: int = 0  # decides weights and order
    # machine
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"  # auto: cuda if there, then mps, else cpu
    precision: Literal["auto", "float32", "bfloat16"] = "float32"  # bfloat16 is slower on layers this small [measured]
    # output
    out: Path = ROOT / "outputs"  # parent of the run folders
    resume: Path | None = None  # run folder to go on with, or to draw again
    sweep: bool = False  # train widths 10, 32, 50, 100, 200 and 400, and draw the loss against the width
    compare: tuple[Path, ...] = ()  # run folders to show side by side, with what they differ in; trains nothing
    quiet: bool = False  # no bar and no line on the console, but for warnings and errors
    smoke: bool = False  # a complete run in seconds on a few drawn digits, to check an installation

    def __post_init__(self):
        """Raises BadInput for a field of another type or out of range."""
        check_fields(
            self, hidden=(1, PIXELS - 1), hidden_bias=(-100, 100), learning_rate=(0, 1), learning_rate_sgd=(0, 1)
        )


WEIGHT_DECAY, MOMENTUM = 0.1, 0.5  # of `--optimizer sgd` [textbook]
WIDTHS = (10, 32, 50, 100, 200, 400)  # of `--sweep`


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


# Network ----------------------------------------------------------------------------------------------------------


class Autoencoder(nn.Module):
    """784 grey values -> hidden units with ReLU -> 784 grey values, linear."""

    def __init__(self, hidden: int):
        super().__init__()
        self.encoder = nn.Linear(PIXELS, hidden)
        self.decoder = nn.Linear(hidden, PIXELS)

    def encode(self, x: Tensor) -> Tensor:
        """(n, 784) -> (n, hidden), not negative."""
        return F.relu(self.encoder(x)).float()

    def decode(self, hidden: Tensor) -> Tensor:
        """(n, hidden) -> (n, 784), around [0, 1] but not bounded to it."""
        return self.decoder(hidden).float()

    def forward(self, x: Tensor) -> Tensor:
        """(n, 784) -> (n, 784)."""
        return self.decode(self.encode(x))


# Using a trained one ----------------------------------------------------------------------------------------------


class Model:
    """A trained autoencoder, in eval mode, on the CPU."""

    def __init__(self, config: Config, network: Autoencoder):
        self.config, self.network = config, network.eval()

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Images (n, 1, 28, 28) with grey values in [0, 1] -> hidden values (n, hidden). ValueError for others."""
        return self.network.encode(checked(x).flatten(1))

    @torch.no_grad()
    def decode(self, hidden: Tensor) -> Tensor:
        """Hidden values (n, hidden) -> images (n, 1, 28, 28), clipped to [0, 1]. ValueError for another shape."""
        hidden = torch.as_tensor(hidden)
        if hidden.ndim != 2 or hidden.shape[1] != self.config.hidden or not hidden.isfinite().all():
            raise ValueError(f"hidden values must be finite of shape (n, {self.config.hidden})")
        return self.network.decode(hidden.float()).clamp(0, 1).view(-1, 1, 28, 28)


def load(run_folder: str | Path) -> Model:
    """The model of a run folder. Reads weights only, never code. Raises BadInput for a folder without such a run."""
    config = read_config(run_folder, Config)
    with torch.device("meta"):  # shapes without memory: the file must fit before anything is made from it
        network = Autoencoder(config.hidden)
    read_tensors(Path(run_folder) / "checkpoint.pt", network=network)
    return Model(config, network)


# Training ---------------------------------------------------------------------------------------------------------


def update(
    network: Autoencoder, optimizer: torch.optim.Optimizer, x: Tensor, config: Config, autocast: torch.autocast
) -> dict[str, Tensor]:
    """min over encoder and decoder of the squared error on x (n, 784). Moves both; returns scalars to log."""
    with autocast:
        output = network(x)
    loss = reconstruction_loss(output, x, config.optimizer)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return {"loss": loss}


def build(config: Config, device: torch.device, mean_image: Tensor) -> tuple[Autoencoder, torch.optim.Optimizer]:
    """The network as it starts, weights from PyTorch's global random state, and its optimiser. mean_image: (784,)."""
    network = Autoencoder(config.hidden)
    init.gaussian_(network, std=0.01)
    nn.init.constant_(network.encoder.bias, config.hidden_bias)
    with torch.no_grad():
        network.decoder.bias.copy_(mean_image)
    network.to(device)
    if config.optimizer == "adam":
        return network, adam(network, config.learning_rate)
    rate = torch.tensor(config.learning_rate_sgd, device=device)
    return network, torch.optim.SGD(
        network.parameters(), lr=rate, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY, fused=True
    )


def main(config: Config) -> dict:
    """Train, measure, draw; return what report.json holds. Raises BadInput before anything is written."""
    if config.compare:
        return compare(config.compare, Config, config.out / "autoencoder", config.quiet)
    if config.sweep:
        return sweep(config)
    device = choose_device(config.device)
    precision = choose_precision(config.precision, device)
    autocast = mixed_precision(device, precision)
    data = load_dataset(config.dataset, config.data_dir, config.smoke).to(device)
    check_batch_size(config, len(data.train_images))
    run = Run(config, "autoencoder", data, device, precision)

    torch.manual_seed(stream_seed(config.seed, "weights"))
    random = torch.Generator(device)  # the updates of an autoencoder draw nothing
    mean_image = to_float(data.train_images).flatten(1).mean(dim=0)
    network, optimizer = build(config, device, mean_image)
    rate = config.learning_rate if config.optimizer == "adam" else config.learning_rate_sgd
    run.keep(network=network, optimizer=optimizer)

    pca_test_mse = metrics.pca_mse(data.train_images, data.test_images, config.hidden)
    draw_reals(run, data)
    draw_epoch(run, data, network)

    def one_update(batch: Tensor) -> dict[str, Tensor]:
        x = to_float(data.train_images.index_select(0, batch)).flatten(1)
        return update(network, optimizer, x, config, autocast)

    step = captured(one_update, device, random)
    for _ in run.remaining_epochs():
        for batch in run.batches():
            set_learning_rate(optimizer, rate * 0.5 * (1 + math.cos(math.pi * run.progress)))
            run.add(**step(batch))
        run.means()
        run.finish_epoch(measure(network, data, pca_test_mse))
        draw_epoch(run, data, network)
    return report(run, data, network)


# Measuring and drawing --------------------------------------------------------------------------------------------


def measure(network: Autoencoder, data: Dataset, pca_test_mse: float, part: int | None = 10_000) -> dict[str, float]:
    """Columns of metrics.csv, measured in float32 on the test images and on the first `part` training images.

    train_mse, test_mse, pca_test_mse: mean squared error per pixel; ratio: the second over the third, 1 at the optimum;
    dead_units: hidden units that are 0 for every one of these images.
    """
    mse, active = {}, torch.zeros(network.encoder.out_features, dtype=torch.bool, device=data.train_images.device)
    with evaluating(network):
        for name, x in (("train_mse", data.train_images[:part]), ("test_mse", data.test_images)):
            errors = []
            for chunk in x.split(5_000):
                flat = to_float(chunk).flatten(1)
                hidden = network.encode(flat)
                active |= (hidden > 0).any(dim=0)
                errors.append((network.decode(hidden) - flat).square().mean(dim=1))
            mse[name] = float(torch.cat(errors).double().mean())
    ratio = mse["test_mse"] / pca_test_mse
    return {**mse, "pca_test_mse": pca_test_mse, "ratio": ratio, "dead_units": int((~active).sum())}


def reconstruct(network: Autoencoder, x: Tensor) -> Tensor:
    """Images (n, 28, 28) uint8 -> their reconstructions (n, 28, 28) float32, not clipped."""
    with evaluating(network):
        return network(to_float(x).flatten(1)).view(-1, 28, 28)


def draw_reals(run: Run, data: Dataset) -> None:
    """reals.png: the first hundred test images, which the reconstructions are of."""
    shown = images.tiled(data.test_images, 10, 10) / 255
    images.save_grid(run.folder / "reals.png", shown, f"{data.title}: test images")


def draw_epoch(run: Run, data: Dataset, network: Autoencoder) -> None:
    """epoch_NNN.png, test images above their reconstructions, and curves.png as of the epochs that are complete."""
    if run.step:
        return  # stopped within an epoch: the network is no longer that of the last complete one
    x = data.test_images[:30]
    pairs = torch.stack((images.tiled(x / 255, 3, 10), images.tiled(reconstruct(network, x), 3, 10)), dim=1)
    title = f"{run.title}, epoch {run.epoch}\ntest images above their reconstructions"
    labels = ("original", "output") * 3
    images.save_grid(run.folder / f"epoch_{run.epoch:03d}.png", pairs.flatten(0, 1), title, labels)
    run.sparingly(
        lambda: images.save_curves(
            run.folder / "curves.png",
            run.rows,
            run.title,
            panels={
                "mean squared error per pixel": ["train_mse", "test_mse", "pca_test_mse"],
                "test error over that of PCA": ["ratio"],
                "hidden units that are always 0": ["dead_units"],
            },
            limits={"test error over that of PCA": (1.0, "optimum")},
            logarithmic=("mean squared error per pixel",),
        )
    )


def draw_hidden_units(run: Run, network: Autoencoder) -> None:
    """hidden_units.png: what each unit reads (encoder) and writes (decoder), the first fifty units.

    Weights have a sign: grey is 0, white and black are plus and minus the largest weight of the panel.
    """
    count = min(50, network.encoder.out_features // 10 * 10 or network.encoder.out_features)
    panels = []
    for weight in (network.encoder.weight[:count], network.decoder.weight.T[:count]):
        panels.append((weight / weight.abs().max() / 2 + 0.5).detach().view(-1, min(10, count), 28, 28))
    labels = ["reads"] * len(panels[0]) + ["writes"] * len(panels[1])
    title = f"{run.title}, epoch {run.epoch}\nweights of {count} hidden units; grey is 0"
    images.save_grid(run.folder / "hidden_units.png", torch.cat(panels), title, labels)


def draw_extremes(run: Run, data: Dataset, network: Autoencoder) -> None:
    """extremes.png: the ten test images that are reconstructed best and worst."""
    output = reconstruct(network, data.test_images)
    order = (output - data.test_images / 255).square().mean(dim=(1, 2)).argsort()
    rows = []
    for chosen in (order[:10], order[-10:]):
        rows += [data.test_images[chosen] / 255, output[chosen]]
    title = f"{run.title}, epoch {run.epoch}\nthe test images reconstructed best and worst"
    images.save_grid(run.folder / "extremes.png", torch.stack(rows), title, ("best", "output", "worst", "output"))


def draw_range(run: Run, data: Dataset, network: Autoencoder) -> None:
    """range.png: the same outputs clipped to [0, 1], and stretched from their minimum to their maximum."""
    output = reconstruct(network, data.test_images[:10])
    stretched = (output - output.min()) / (output.max() - output.min())
    rows = torch.stack((data.test_images[:10] / 255, output, stretched))
    title = f"{run.title}, epoch {run.epoch}\none network, two ways to show its output"
    images.save_grid(run.folder / "range.png", rows, title, ("original", "clipped to [0, 1]", "stretched"))


def report(run: Run, data: Dataset, network: Autoencoder) -> dict:
    """The figures and report.json of a finished run."""
    draw_hidden_units(run, network)
    draw_extremes(run, data, network)
    draw_range(run, data, network)
    images.save_animation(run.folder / "training.gif", sorted(run.folder.glob("epoch_*.png")))
    final = measure(network, data, run.rows[-1]["pca_test_mse"], part=None)
    seconds = sum(row["seconds"] for row in run.rows)
    return run.report({"dataset": data.name, "epochs": run.epoch, **final, "seconds": seconds})


def sweep(config: Config) -> dict:
    """Train one run per width, each in its own folder, and draw test error and one reconstruction against the width.

    Writes sweep.csv and sweep.png to `out/autoencoder/sweep-NNN`; returns {"test_mse_10": …, "test_mse_32": …, …}.
    """
    folder = next_folder(config.out / "autoencoder", "sweep")
    rows, outputs = [], []
    for width in WIDTHS:
        one = dataclasses.replace(config, hidden=width, sweep=False, out=folder)
        rows.append({"hidden": width, **main(one)})
        digit = load_dataset(one.dataset, one.data_dir, one.smoke).test_images[:1] / 255
        model = load(sorted((folder / "autoencoder").iterdir())[-1])
        outputs.append(model.decode(model.encode(digit[:, None]))[0, 0])
    with whole_file(folder / "sweep.csv") as scratch, scratch.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    draw_sweep(folder / "sweep.png", rows, digit[0].cpu(), outputs)
    if not config.quiet:
        print(f"\nsweep: {folder / 'sweep.png'}")
    return {f"test_mse_{row['hidden']}": row["test_mse"] for row in rows}


def draw_sweep(path: Path, rows: list[dict], original: Tensor, outputs: list[Tensor]) -> None:
    """Test error against width with PCA's, above one test image and its reconstruction at every width."""
    figure = images.new_figure(8, 5.6)
    grid = figure.add_gridspec(2, len(rows) + 1, height_ratios=(3, 1))
    axes = figure.add_subplot(grid[0, :])
    widths = [row["hidden"] for row in rows]
    axes.plot(widths, [row["pca_test_mse"] for row in rows], "--", color="0.35", label="PCA of the same rank")
    axes.plot(widths, [row["test_mse"] for row in rows], "o-", label="autoencoder")
    axes.set(xscale="log", yscale="log", xlabel="hidden units", ylabel="test error (mean squared, per pixel)")
    axes.set_xticks(widths, widths)
    axes.minorticks_off()
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    axes.set_title(f"autoencoder on {rows[0]['dataset']}: more hidden units, lower loss, sharper picture", fontsize=11)
    for column, (picture, title) in enumerate(zip([original, *outputs], ["original", *widths], strict=True)):
        panel = figure.add_subplot(grid[1, column])
        panel.imshow(picture.numpy(), cmap="gray", vmin=0, vmax=1)
        panel.set_title(title, fontsize=9)
        panel.axis("off")
    images.save_figure(path, figure)


if __name__ == "__main__":
    launch(main, Config)
