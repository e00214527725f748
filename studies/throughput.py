"""How fast are the scripts? The training step of each against a textbook loop, in turn, each in its own process.

    python studies/throughput.py                 # a table in two minutes on two cores
    python studies/throughput.py --scripts autoencoder --batch-size 32 --precision float32
    python studies/throughput.py --to-accuracy 0.97 --minutes 20  # of infogan.py, from the shell to the report

The textbook side has the same networks, batch size and updates, written as tutorials have them: a DataLoader over
`torchvision.datasets.MNIST` with transforms, float32, default memory layout, plain Adam, `.item()` for the log in every
step. It has no waste put in on purpose. Both sides do the same work: each keeps a running average of G, and InfoGAN is
timed without its guide. tests/test_studies.py checks that both sides reach the same losses.

Each side is a process of its own, so that neither profits from memory the other has warmed. Absolute times drift with
the machine, the ratio within one run much less: the two sides take turns, one waits while the other runs, and medians
count.
"""

import argparse
import multiprocessing
import pstats
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import chain, repeat
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchvision import datasets, transforms

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import autoencoder
import gan_mlp
import infogan
from common import BadInput
from common.cli import Parser, run_program
from common.data import Dataset, epoch_order, load_dataset, to_float
from common.device import choose_precision, eval_mode, keep_freed_memory, mixed_precision
from common.files import read_numbers
from common.look import codes, metrics
from common.settings import ROOT, Settings, batch_ends
from common.streams import stream, stream_seed

CPU = torch.device("cpu")
SCRIPTS = {"infogan": infogan, "gan_mlp": gan_mlp, "autoencoder": autoencoder}


# The textbook side ------------------------------------------------------------------------------------------------


class TextbookInfoGAN:
    """The networks of the paper, appendix C.1, with one optimiser for D and Q and one for G."""

    transform = transforms.ToTensor()

    def __init__(self):
        self.generator = nn.Sequential(
            nn.Linear(74, 1024, bias=False),
            nn.BatchNorm1d(1024),
            nn.ReLU(),
            nn.Linear(1024, 128 * 7 * 7, bias=False),
            nn.BatchNorm1d(128 * 7 * 7),
            nn.ReLU(),
            nn.Unflatten(1, (128, 7, 7)),
            nn.ConvTranspose2d(128, 64, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.ConvTranspose2d(64, 1, 4, stride=2, padding=1),
            nn.Sigmoid(),
        )
        self.trunk = nn.Sequential(
            nn.Conv2d(1, 64, 4, stride=2, padding=1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(64, 128, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(128),
            nn.LeakyReLU(0.1),
            nn.Flatten(),
            nn.Linear(128 * 7 * 7, 1024, bias=False),
            nn.BatchNorm1d(1024),
            nn.LeakyReLU(0.1),
        )
        self.head_d = nn.Linear(1024, 2)
        self.head_q = nn.Sequential(
            nn.Linear(1024, 128, bias=False), nn.BatchNorm1d(128), nn.LeakyReLU(0.1), nn.Linear(128, 12)
        )
        self.discriminator = nn.ModuleList((self.trunk, self.head_d, self.head_q))
        self.average = AveragedModel(self.generator, multi_avg_fn=get_ema_multi_avg_fn(0.999), use_buffers=True)
        self.optimizer_d = torch.optim.Adam(self.discriminator.parameters(), lr=2e-4, betas=(0.5, 0.999))
        self.optimizer_g = torch.optim.Adam(self.generator.parameters(), lr=1e-3, betas=(0.5, 0.999))

    def encode(self, x: Tensor) -> infogan.Codes:
        q = self.head_q(self.trunk(x))
        return infogan.Codes(q[:, :10].softmax(dim=1), q[:, 10], q[:, 11])

    def information_loss(self, features: Tensor, category: Tensor, continuous: Tensor) -> Tensor:
        q = self.head_q(features)
        return F.cross_entropy(q[:, :10], category) + 0.5 * (q[:, 10:] - continuous).square().mean(dim=0).sum()

    def update(self, x: Tensor) -> dict[str, float]:
        n = len(x)
        noise, category, continuous = torch.randn(n, 62), torch.randint(10, (n,)), torch.rand(n, 2) * 2 - 1
        fakes = self.generator(torch.cat((noise, F.one_hot(category, 10).float(), continuous), dim=1))
        real, fake = torch.ones(n, dtype=torch.long), torch.zeros(n, dtype=torch.long)

        self.optimizer_d.zero_grad()
        features = self.trunk(fakes.detach())
        game = F.cross_entropy(self.head_d(self.trunk(x)), real) + F.cross_entropy(self.head_d(features), fake)
        (game + self.information_loss(features, category, continuous)).backward()
        self.optimizer_d.step()

        self.optimizer_g.zero_grad()
        features = self.trunk(fakes)
        loss_g = F.cross_entropy(self.head_d(features), real)
        (loss_g + self.information_loss(features, category, continuous)).backward()
        self.optimizer_g.step()
        self.average.update_parameters(self.generator)
        return {"loss_d": game.item(), "loss_g": loss_g.item()}


class TextbookGAN:
    """G 100-128-256-512-784 with BatchNorm, D 784-512-256-128-1, images in [-1, 1] moved by a pixel."""

    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,), (0.5,))])

    def __init__(self, shift: int = 1):
        self.shift = shift
        layers = []
        for width_in, width in ((100, 128), (128, 256), (256, 512)):
            layers += [nn.Linear(width_in, width, bias=False), nn.BatchNorm1d(width), nn.ReLU()]
        self.generator = nn.Sequential(*layers, nn.Linear(512, 784), nn.Sigmoid())
        layers = []
        for width_in, width in ((784, 512), (512, 256), (256, 128)):
            layers += [nn.Linear(width_in, width), nn.LeakyReLU(0.2)]
        self.discriminator = nn.Sequential(*layers, nn.Linear(128, 1))
        self.average = AveragedModel(self.generator, multi_avg_fn=get_ema_multi_avg_fn(0.9998))
        self.optimizer_d = torch.optim.Adam(self.discriminator.parameters(), lr=8e-4, betas=(0.0, 0.999))
        self.optimizer_g = torch.optim.Adam(self.generator.parameters(), lr=2e-3, betas=(0.0, 0.999))

    def moved(self, x: Tensor) -> Tensor:
        if not self.shift:
            return x
        wide = F.pad(x.view(-1, 28, 28), (self.shift,) * 4, value=-1)
        rows, columns = torch.randint(2 * self.shift + 1, (2, len(x), 1)) + torch.arange(28)
        return wide[torch.arange(len(x))[:, None, None], rows[:, :, None], columns[:, None, :]].flatten(1)

    def update(self, x: Tensor) -> dict[str, float]:
        n = len(x)
        fakes = self.generator(torch.randn(n, 100)) * 2 - 1
        reals, fakes = self.moved(x.flatten(1)), self.moved(fakes)
        real, fake = torch.ones(n, 1), torch.zeros(n, 1)

        self.optimizer_d.zero_grad()
        loss_d = F.binary_cross_entropy_with_logits(self.discriminator(reals), real)
        loss_d = loss_d + F.binary_cross_entropy_with_logits(self.discriminator(fakes.detach()), fake)
        loss_d.backward()
        self.optimizer_d.step()

        self.optimizer_g.zero_grad()
        loss_g = F.binary_cross_entropy_with_logits(self.discriminator(fakes), real)
        loss_g.backward()
        self.optimizer_g.step()
        self.average.update_parameters(self.generator)
        return {"loss_d": loss_d.item(), "loss_g": loss_g.item()}


class TextbookAutoencoder:
    """784-100-784, ReLU, mean squared error."""

    transform = transforms.ToTensor()

    def __init__(self):
        self.network = nn.Sequential(nn.Linear(784, 100), nn.ReLU(), nn.Linear(100, 784))
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=1e-3)

    def update(self, x: Tensor) -> dict[str, float]:
        x = x.flatten(1)
        self.optimizer.zero_grad()
        loss = F.mse_loss(self.network(x), x)
        loss.backward()
        self.optimizer.step()
        return {"loss": loss.item()}


TEXTBOOKS = {"infogan": TextbookInfoGAN, "gan_mlp": TextbookGAN, "autoencoder": TextbookAutoencoder}


def textbook_loader(side: Any, batch_size: int, data_dir: Path) -> torch.utils.data.DataLoader:
    """MNIST in shuffled batches, as that side wants its images."""
    # `download` only unpacks here: `main` has made sure that the files are there.
    mnist = datasets.MNIST(str(data_dir), transform=side.transform, download=True)
    return torch.utils.data.DataLoader(mnist, batch_size, shuffle=True, drop_last=True)


def textbook_loop(script: str, batch_size: int, data_dir: Path) -> Iterator[dict[str, float]]:
    """The textbook training of a script, endlessly: every `next` is one update."""
    side = TEXTBOOKS[script]()
    for x, _ in chain.from_iterable(repeat(textbook_loader(side, batch_size, data_dir))):
        yield side.update(x)


# The scripts' side ------------------------------------------------------------------------------------------------


def script_side(
    script: str, seed: int, precision: str, **fields: float
) -> tuple[nn.Module, Callable[[Tensor], dict[str, Tensor]]]:
    """A script's model and its own update as a function of reals (n, 1, 28, 28) in [0, 1].

    With the script's default fields but for `fields`.
    """
    torch.manual_seed(stream_seed(seed, "weights"))
    random, autocast = stream(seed, "training"), mixed_precision(CPU, precision)
    if script == "autoencoder":
        model = autoencoder.Autoencoder(autoencoder.Config(**fields))
        optimizer = autoencoder.make_optimizer(model)
        return model, lambda reals: autoencoder.update(model, optimizer, reals.flatten(1), autocast)
    if script == "gan_mlp":
        model = gan_mlp.GAN(gan_mlp.Config(**fields))
        optimizers = gan_mlp.make_optimizers(model)
        return model, lambda reals: gan_mlp.update(model, optimizers, reals, random, autocast)
    model = infogan.InfoGAN(infogan.Config(**fields)).to(memory_format=torch.channels_last)
    optimizers = infogan.make_optimizers(model)
    return model, lambda reals: infogan.update(model, optimizers, infogan.Coded(reals), random, autocast)


def script_loop(script: str, batch_size: int, data_dir: Path, precision: str) -> Iterator[dict[str, Tensor]]:
    """The script's training, endlessly: every `next` is one update."""
    keep_freed_memory()
    images = load_dataset("mnist", data_dir).train_images
    _, update = script_side(script, 0, precision)
    for epoch in range(1_000_000):
        for batch in epoch_order(len(images), 0, epoch).split(batch_size):
            if len(batch) == batch_size:
                yield update(to_float(images.index_select(0, batch)))


# Measuring --------------------------------------------------------------------------------------------------------


class Side:
    """One side's loop in a process of its own, which runs only while it is asked to."""

    def __init__(self, make: Callable[..., Iterator], *arguments: object):
        context = multiprocessing.get_context("spawn")
        self._process = ProcessPoolExecutor(1, context, initializer=_begin, initargs=(make, *arguments))

    def turn(self, seconds: float) -> float:
        """Seconds per update over one turn."""
        return self._process.submit(_turn, seconds).result()

    def close(self) -> float:
        """End the process. Returns its peak resident memory in GB."""
        with self._process:
            return self._process.submit(_peak_memory).result()


def _begin(make: Callable[..., Iterator], *arguments: object) -> None:
    global _loop
    _loop = make(*arguments)
    _turn(1.0)  # what is only made once


def _turn(seconds: float) -> float:
    start, updates = time.perf_counter(), 0
    while updates < 3 or time.perf_counter() - start < seconds:
        next(_loop)
        updates += 1
    return (time.perf_counter() - start) / updates


def _peak_memory() -> float:
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9


# From the shell to the report --------------------------------------------------------------------------------------

# What a run of infogan.py spends its time on: files and functions of its own, whose calls do not contain each other.
STAGES = {
    "data": ("__init__.py:load_dataset",),
    "neighbours": ("augment.py:neighbours",),
    "reader": ("guide.py:train_step", "guide.py:said"),
    "steps": ("infogan.py:one_update",),
    "evaluation": ("infogan.py:measure", "codes.py:measure", "scorer.py:classify", "metrics.py:frechet_distance"),
    "pictures": ("figures.py:draw_reals", "infogan.py:draw_epoch", "codes.py:draw_codes", "plots.py:save_confusion"),
    "animation": ("figures.py:save_animation",),
    "classifier": ("scorer.py:_train",),
    "explorer": ("explorer.py:save_page",),
}


def seconds_by_stage(profile: Path) -> dict[str, float]:
    """The seconds of each of STAGES in what `python -m cProfile infogan.py` has written, the imports first."""
    stats = pstats.Stats(str(profile)).stats
    seconds = {f"{Path(file).name}:{name}": timing[3] for (file, _, name), timing in stats.items()}
    imports = {"imports": seconds["infogan.py:<module>"] - seconds["cli.py:run_cli"]}
    return imports | {stage: sum(seconds.get(name, 0.0) for name in names) for stage, names in STAGES.items()}


def from_the_shell(accuracy: float, data_dir: Path, flags: Sequence[str] = ()) -> dict[str, float | None]:
    """Seconds of `python infogan.py` to this accuracy of c1, to its end, and by stage, without a classifier that an
    earlier run has kept. None for an accuracy that it did not reach."""
    with tempfile.TemporaryDirectory() as scratch:
        profile, data = Path(scratch) / "profile", Path(scratch) / "data"
        data.mkdir()
        for kept in set(data_dir.resolve().iterdir()) - {data_dir.resolve() / "classifiers"}:
            (data / kept.name).symlink_to(kept)
        command = [sys.executable, "-m", "cProfile", "-o", str(profile), "infogan.py", "--quiet", "--out", scratch]
        start = time.time()
        subprocess.run([*command, "--data-dir", str(data), *flags], cwd=ROOT, check=True)
        whole = time.time() - start
        run = Path(scratch) / "infogan" / "run-001"
        reached = [row["epoch"] for row in read_numbers(run / "metrics.csv") if row["accuracy"] >= accuracy]
        drawn = (run / f"epoch_{epoch:03d}_c1.png" for epoch in reached)
        found = seconds_by_stage(profile)
        found["rest"] = whole - sum(found.values())
        return {"to the accuracy": next((path.stat().st_mtime - start for path in drawn), None), "whole": whole} | found


def textbook_accuracy(side: TextbookInfoGAN, data: Dataset) -> float:
    """Accuracy of c1 on the test images, measured as infogan.py measures it."""
    with eval_mode(side.discriminator):
        tables = codes.contingencies(side, data)
    return metrics.accuracy(tables.test, metrics.one_to_one(tables.train))


def textbook_to_accuracy(accuracy: float, data_dir: Path, minutes: float) -> dict[str, float]:
    """Epochs and seconds of the textbook loop until c1 is this accurate, or this long, and what it reached."""
    start, data = time.time(), load_dataset("mnist", data_dir)
    torch.manual_seed(0)
    side, epochs, reached = TextbookInfoGAN(), 0, 0.0
    loader = textbook_loader(side, 128, data_dir)
    while reached < accuracy and time.time() - start < 60 * minutes:
        for x, _ in loader:
            side.update(x)
        epochs, reached = epochs + 1, textbook_accuracy(side, data)
    return {"epochs": epochs, "seconds": time.time() - start, "accuracy": reached}


def tell_times(accuracy: float, ours: dict[str, float | None], theirs: dict[str, float]) -> None:
    """Print what both sides took."""
    print(f"{'python infogan.py':24}{'seconds':>8}{'share':>8}")
    for name, seconds in ours.items():
        cells = f"{'never':>8}" if seconds is None else f"{seconds:8.1f}{seconds / ours['whole']:>8.0%}"
        print(f"{name:24}{cells}")
    verb = "reached" if theirs["accuracy"] >= accuracy else "stopped"
    print(
        f"the textbook loop of the paper's objective: {verb} after {theirs['epochs']} epochs, "
        f"{theirs['seconds']:.0f} s, with {theirs['accuracy']:.1%}"
    )


COLUMNS = {"": 12, "precision": 10, "textbook": 11, "script": 11, "ratio": 7, "images/s": 10}
COLUMNS |= {"memory textbook": 17, "memory script": 15}


def main(arguments: list[str]) -> dict[str, dict[str, float]]:
    """Measure and print; return the table. Raises BadInput without MNIST, or for a batch larger than it."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--scripts", nargs="+", choices=SCRIPTS, default=list(SCRIPTS), help="default: all")
    parser.add_argument("--batch-size", type=int, default=128, help="images per update, on both sides (default: 128)")
    parser.add_argument("--precision", choices=("auto", "float32", "bfloat16"), default="auto", help="of the scripts")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each side (default: 7)")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a turn (default: 2)")
    parser.add_argument("--data-dir", type=Path, default=Settings.data_dir, help="where MNIST/raw is or will be")
    parser.add_argument("--to-accuracy", type=float, help="time infogan.py, whole, and the textbook up to this of c1")
    parser.add_argument("--minutes", type=float, default=15, help="after which that textbook loop stops (default: 15)")
    own = parser.parse_args(arguments)
    if own.to_accuracy is not None:
        load_dataset("mnist", own.data_dir)  # raises without it
        ours = from_the_shell(own.to_accuracy, own.data_dir)
        tell_times(own.to_accuracy, ours, textbook_to_accuracy(own.to_accuracy, own.data_dir, own.minutes))
        return {"infogan": ours}
    if own.batch_size < 2 or own.rounds < 1:
        raise BadInput("--batch-size must be at least 2, and --rounds at least 1")
    batch_ends(own, len(load_dataset("mnist", own.data_dir).train_images))
    print(f"{torch.get_num_threads()} threads, batch {own.batch_size}, torch {torch.__version__}")
    print("".join(f"{name:>{width}}" for name, width in COLUMNS.items()))
    table = {}
    for script in own.scripts:
        # The precision that the script itself would take.
        default = SCRIPTS[script].Config().precision
        precision = choose_precision(default if own.precision == "auto" else own.precision, CPU)
        both = script, own.batch_size, own.data_dir
        theirs, ours = Side(textbook_loop, *both), Side(script_loop, *both, precision)
        turns = [(theirs.turn(own.seconds), ours.turn(own.seconds)) for _ in range(own.rounds)]
        slow, fast = (median(column) for column in zip(*turns, strict=True))
        memory, our_memory = theirs.close(), ours.close()
        table[script] = {"textbook_ms": 1e3 * slow, "script_ms": 1e3 * fast, "ratio": slow / fast}
        table[script] |= {"textbook_gb": memory, "script_gb": our_memory}
        cells = (script, precision, f"{1e3 * slow:.1f} ms", f"{1e3 * fast:.2f} ms", f"{slow / fast:.2f}")
        cells += (f"{own.batch_size / fast:.0f}", f"{memory:.2f} GB", f"{our_memory:.2f} GB")
        print("".join(f"{cell:>{width}}" for cell, width in zip(cells, COLUMNS.values(), strict=True)), flush=True)
    return table


if __name__ == "__main__":
    run_program(main)
