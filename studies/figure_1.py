"""Does the category carry information? Figure 1 of the InfoGAN paper, measured here: L_I(c1) over the updates.

    python studies/figure_1.py
    python studies/figure_1.py --seeds 0 --epochs 2

Three settings on MNIST: the default, with its guide; `--paper`; and `--paper --info-weight 0`, a plain GAN that Q only
watches. A run trains as `python infogan.py` does with these flags and as many epochs.

Writes figure_1.csv and figure_1.png to studies/results/. A run that is in the csv is not run again, so
the program can be stopped, and the same command continues with the next run.
"""

import argparse
import math
import sys
import time
from itertools import product
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import infogan
from common import BadInput
from common.data import epoch_order, load_dataset, to_float
from common.run.cli import Parser, parse, run_program
from common.run.config import Settings
from common.run.run import batch_ends
from common.train.device import choose_device, choose_precision, mixed_precision
from common.train.guide import PseudoLabels
from common.train.optim import ema_decay, linear_decay, scale_learning_rates
from common.train.random import stream, stream_seed
from studies.accuracy_over_time import RESULTS, Points, read_curves, save_lines, write_curves
from studies.seeds import seeds_of

SETTINGS = {"default": [], "--paper": ["--paper"], "--paper --info-weight 0": ["--paper", "--info-weight", "0"]}
EVERY = 10  # updates from one point to the next


def train(config: infogan.Config, images: Tensor) -> Points:
    """(updates done, L_I(c1) in nats of the next batch of generated images), as infogan.py trains on `images`
    (n, 28, 28) uint8."""
    device = choose_device(config.device)
    precision, images = choose_precision(config.precision, device), images.to(device)
    torch.manual_seed(stream_seed(config.seed, "weights"))
    config = config.for_classes(10)
    model = infogan.InfoGAN(config).to(device, memory_format=torch.channels_last)
    optimizers, random = infogan.make_optimizers(model), stream(config.seed, "training", device=device)
    guide = PseudoLabels(len(images) if config.guided else 0, 0, config.categories, config.continuous, device)
    if config.guided:
        guide.fit(images, images[:0], config.seed, precision)
    orders = (epoch_order(len(images), config.seed, epoch + 1) for epoch in range(config.epochs))
    batches = [batch for order in orders for batch in order.to(device).tensor_split(batch_ends(config, len(images)))]
    autocast, points = mixed_precision(device, precision), []
    for updates, batch in enumerate(batches):
        scale_learning_rates(linear_decay(updates / len(batches), config.decay_from, 0.02), *optimizers)
        real = to_float(images.index_select(0, batch))
        decay = ema_decay(config.average, updates, len(batches))
        penalise = config.gradient_penalty > 0 and updates % infogan.PENALTY_EVERY == 0
        scalars = infogan.update(model, optimizers, real, guide.lookup(batch), random, autocast, decay, penalise)
        if updates % EVERY == 0:
            points.append((updates, math.log(config.categories) - scalars["c1_nll"].item()))
    return points


def main(arguments: list[str]) -> None:
    """Run what the csv lacks, write csv and pictures. Raises BadInput for bad flags, or rows of another --epochs."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", default="0-2", help="like 0-2 or 0,3,7 (default: 0-2)")
    parser.add_argument("--epochs", default="1", help="passes over the training images (default: 1)")
    parser.add_argument("--data-dir", type=Path, default=Settings.data_dir, help="where MNIST/raw is or will be")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the csv and the pictures")
    own = parser.parse_args(arguments)
    configs = {
        (setting, seed): parse(infogan.Config, [*SETTINGS[setting], f"--seed={seed}", f"--epochs={own.epochs}"])
        for seed, setting in product(seeds_of(own.seeds), SETTINGS)
    }
    images = load_dataset("mnist", own.data_dir).train_images
    own.out.mkdir(parents=True, exist_ok=True)
    path = own.out / "figure_1.csv"
    for (setting, seed), config in configs.items():
        rows = math.ceil(config.epochs * (len(batch_ends(config, len(images))) + 1) / EVERY)
        for (name, number), points in read_curves(path).items():
            if len(points) != rows:
                raise BadInput(f"{path}: has {len(points)} points, not {rows}, of {name}, seed {number}; move it away")
        if (setting, seed) not in read_curves(path):
            start = time.perf_counter()
            points = train(config, images)
            # Loaded again: another process may have added some.
            write_curves(path, read_curves(path) | {(setting, seed): points}, "updates", "info_c1_nats")
            took = f"{time.perf_counter() - start:.0f} s"
            print(f"{setting}, seed {seed}: {points[-1][1]:.3f} nats after {points[-1][0]} updates, {took}", flush=True)

    curves = read_curves(path)
    groups = {name: [points for (setting, _), points in curves.items() if setting == name] for name in SETTINGS}
    maximum = math.log(10)
    title = "InfoGAN on MNIST: information on the category c1 [nats]"
    level = (maximum, f"maximum: ln 10 = {maximum:.3f}")
    save_lines(own.out / "figure_1.png", groups, title, "updates", limits=(None, 2.5), level=level)


if __name__ == "__main__":
    run_program(main)
