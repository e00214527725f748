"""How fast are the scripts? The training step of each against a textbook loop, in turn, each in its own process.

    python studies/throughput.py                 # a table in two minutes on two cores
    python studies/throughput.py --scripts autoencoder --batch-size 32 --precision float32
    python studies/throughput.py --to-accuracy 0.97 --minutes 20  # of infogan.py, from the shell to the report

The textbook side trains the same networks with the same updates, written as tutorials have them: a DataLoader over
`torchvision.datasets.MNIST`, float32, default memory format, plain Adam, `.item()` for the log in every step. It is not
slowed down on purpose; each side keeps a moving average of G, and InfoGAN is timed without guide and penalty. Absolute
times drift with the machine, the ratio within one run much less: the two sides take turns, one waits while the other
runs, and medians count.
"""

import argparse
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import chain, count, repeat
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
from common.data import epoch_order, load_dataset, to_float
from common.look import metrics, scorer
from common.run.cli import Parser, parse, run_program
from common.run.config import Settings
from common.run.files import read_rows
from common.train.device import choose_precision, keep_freed_memory, mixed_precision
from common.train.guide import fit_pseudo_labels
from common.train.random import stream

CPU = torch.device("cpu")
DECAY = 0.999  # of the moving averages; it costs the same whatever it is
SCRIPTS = {"infogan": infogan, "gan_mlp": gan_mlp, "autoencoder": autoencoder}
Update = Callable[[Tensor], dict[str, Any]]  # takes images (n, 1, 28, 28) in [0, 1], returns losses


# The textbook side ------------------------------------------------------------------------------------------------


def step(optimizer: torch.optim.Optimizer, loss: Tensor) -> float:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def make_parts(model: nn.Module) -> tuple[Any, ...]:
    """G, D, plain Adam for each, and a moving average of G."""
    g, d, config = model.generator, model.discriminator, model.config
    optimizer_d = torch.optim.Adam(d.parameters(), config.learning_rate_d, betas=(config.beta1, 0.999))
    optimizer_g = torch.optim.Adam(g.parameters(), config.learning_rate_g, betas=(config.beta1, 0.999))
    average = AveragedModel(g, multi_avg_fn=get_ema_multi_avg_fn(DECAY), use_buffers=True)
    return g, d, optimizer_d, optimizer_g, average


def textbook_infogan(config: infogan.Config) -> tuple[nn.Module, Update]:
    """The paper's objective, with one optimiser for D and Q and one for G."""
    model = infogan.InfoGAN(config)
    g, d, optimizer_d, optimizer_g, average = make_parts(model)

    def information_loss(features: Tensor, category: Tensor, continuous: Tensor) -> Tensor:
        q = d.posterior(features)
        return F.cross_entropy(q.logits, category) + 0.5 * (q.mean - continuous).square().mean(dim=0).sum()

    def update(x: Tensor) -> dict[str, float]:
        n = len(x)
        noise, category, continuous = torch.randn(n, 62), torch.randint(10, (n,)), torch.rand(n, 2) * 2 - 1
        fakes = g(torch.cat((noise, F.one_hot(category, 10).float(), continuous), dim=1))
        real, fake = torch.ones(n, dtype=torch.long), torch.zeros(n, dtype=torch.long)
        real_features, features = d.features(x), d.features(fakes.detach())
        loss_d = F.cross_entropy(d.head_d(real_features), real) + F.cross_entropy(d.head_d(features), fake)
        step(optimizer_d, loss_d + information_loss(features, category, continuous))
        features = d.features(fakes)
        loss_g = F.cross_entropy(d.head_d(features), real)
        step(optimizer_g, loss_g + information_loss(features, category, continuous))
        average.update_parameters(g)
        return {"loss_d": loss_d.item(), "loss_g": loss_g.item()}

    return model, update


def textbook_gan(config: gan_mlp.Config) -> tuple[nn.Module, Update]:
    """D sees every image shifted by up to a pixel."""
    model = gan_mlp.GAN(config)
    g, d, optimizer_d, optimizer_g, average = make_parts(model)

    def shifted(x: Tensor) -> Tensor:
        padded, image = F.pad(x[:, 0], (1, 1, 1, 1)), torch.arange(len(x))
        rows, columns = torch.randint(3, (2, len(x), 1)) + torch.arange(28)
        return padded[image[:, None, None], rows[:, :, None], columns[:, None, :]][:, None]

    def update(x: Tensor) -> dict[str, float]:
        real, fake, loss = torch.ones(len(x), 1), torch.zeros(len(x), 1), F.binary_cross_entropy_with_logits
        fakes = g(torch.randn(len(x), 100))
        reals, fakes = shifted(x), shifted(fakes)
        loss_d = step(optimizer_d, loss(d(reals), real) + loss(d(fakes.detach()), fake))
        loss_g = step(optimizer_g, loss(d(fakes), real))
        average.update_parameters(g)
        return {"loss_d": loss_d, "loss_g": loss_g}

    return model, update


def textbook_autoencoder(config: autoencoder.Config) -> tuple[nn.Module, Update]:
    model = autoencoder.Autoencoder(config)
    optimizer = torch.optim.Adam(model.parameters(), config.learning_rate)
    return model, lambda x: {"loss": step(optimizer, F.mse_loss(model(x.flatten(1)), x.flatten(1)))}


TEXTBOOKS = {"infogan": textbook_infogan, "gan_mlp": textbook_gan, "autoencoder": textbook_autoencoder}


def textbook_loader(batch_size: int, data_dir: Path) -> torch.utils.data.DataLoader:
    """MNIST in shuffled batches."""
    # `download` only unpacks here: `main` has made sure that the files are there.
    mnist = datasets.MNIST(str(data_dir), transform=transforms.ToTensor(), download=True)
    return torch.utils.data.DataLoader(mnist, batch_size, shuffle=True, drop_last=True)


def textbook_loop(script: str, batch_size: int, data_dir: Path) -> Iterator[dict[str, float]]:
    """The textbook training of a script, endlessly: every `next` is one update."""
    _, update = TEXTBOOKS[script](SCRIPTS[script].Config())
    for x, _ in chain.from_iterable(repeat(textbook_loader(batch_size, data_dir))):
        yield update(x)


# The scripts' side ------------------------------------------------------------------------------------------------


def script_side(config: Settings, precision: str) -> tuple[nn.Module, Update]:
    """The model of a script's Config, and its own update."""
    random, autocast = stream(0, "training"), mixed_precision(CPU, precision)
    if config.SCRIPT == "autoencoder":
        model = autoencoder.Autoencoder(config)
        optimizer = autoencoder.make_optimizer(model)
        return model, lambda x: autoencoder.update(model, optimizer, x.flatten(1), autocast)
    if config.SCRIPT == "gan_mlp":
        model = gan_mlp.GAN(config)
        optimizers = gan_mlp.make_optimizers(model)
        return model, lambda x: gan_mlp.update(model, optimizers, x, random, autocast, DECAY)
    model = infogan.InfoGAN(config).to(memory_format=torch.channels_last)
    optimizers = infogan.make_optimizers(model)
    return model, lambda x: infogan.update(model, optimizers, x, None, random, autocast, DECAY)


def script_loop(script: str, batch_size: int, data_dir: Path, precision: str) -> Iterator[dict[str, Tensor]]:
    """The script's training, endlessly: every `next` is one update."""
    keep_freed_memory()
    images = load_dataset("mnist", data_dir).train_images
    _, update = script_side(SCRIPTS[script].Config(), precision)
    for epoch in count():
        for batch in epoch_order(len(images), 0, epoch).split(batch_size):
            if len(batch) == batch_size:
                yield update(to_float(images.index_select(0, batch)))


# Measuring --------------------------------------------------------------------------------------------------------

SPAWN = multiprocessing.get_context("spawn")  # a process that has warmed nothing
_loops: list[Iterator] = []  # the one that this process runs


def run_turn(seconds: float, make: Callable[..., Iterator], *arguments: object) -> tuple[float, float]:
    """Milliseconds per update over one turn of a side, in a process of its own, and its peak memory in GB so far."""
    if not _loops:
        _loops.append(make(*arguments))
        run_turn(1.0, make)  # what is made only once
    start, updates = time.perf_counter(), 0
    while updates < 3 or time.perf_counter() - start < seconds:
        next(_loops[0])
        updates += 1
    took, unit = time.perf_counter() - start, 1 if sys.platform == "darwin" else 1024
    return 1e3 * took / updates, unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9


# What `infogan.main` calls, by stage; the classifier is part of the report, and counted apart from it.
STAGES: dict[Callable, str] = {infogan.Run: "data", fit_pseudo_labels: "guide", infogan.update: "updates"}
STAGES |= dict.fromkeys((infogan.contingency_tables, infogan.measure), "evaluation")
STAGES |= dict.fromkeys((infogan.save_reals, infogan.save_epoch), "pictures")
STAGES |= {scorer.load_classifier: "classifier", infogan.report: "report"}


def run_infogan(flags: list[str]) -> tuple[float, dict[str, float]]:
    """When the imports were done, and the seconds of each stage of a run."""
    begun, seconds = time.time(), dict.fromkeys(STAGES.values(), 0.0)

    def timed(function: Callable, *arguments: Any) -> Any:
        start = time.perf_counter()
        result = function(*arguments)
        seconds[STAGES[function]] += time.perf_counter() - start
        return result

    for function in STAGES:
        module = infogan if hasattr(infogan, function.__name__) else sys.modules[function.__module__]
        setattr(module, function.__name__, partial(timed, function))
    keep_freed_memory()
    infogan.main(parse(infogan.Config, flags))
    return begun, seconds | {"report": seconds["report"] - seconds["classifier"]}


def time_infogan(accuracy: float, data_dir: Path, flags: Sequence[str] = ()) -> dict[str, float | None]:
    """Seconds of `python infogan.py` to this accuracy of c1 (None if never), to its end, and by stage. No classifier of
    an earlier run is used."""
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "data"
        data.mkdir()
        (data / "MNIST").symlink_to(data_dir.resolve() / "MNIST")
        flags = ["--quiet", "--out", scratch, "--data-dir", str(data), *flags]
        start = time.time()
        with ProcessPoolExecutor(1, SPAWN) as process:
            begun, stages = process.submit(run_infogan, flags).result()
        whole, run = time.time() - start, Path(scratch) / "infogan" / "run-001"
        reached = [row["epoch"] for row in read_rows(run / "metrics.csv") if row.get("accuracy", 0) >= accuracy]
        saved = (run / f"epoch_{epoch:03d}_c1.png" for epoch in reached)
        to_accuracy = next((path.stat().st_mtime - start for path in saved), None)
    stages = {"imports": begun - start, **stages}
    return {"to the accuracy": to_accuracy, "whole": whole, **stages, "rest": whole - sum(stages.values())}


def time_textbook(accuracy: float, data_dir: Path, minutes: float) -> dict[str, float]:
    """Epochs and seconds of the textbook loop until c1 is this accurate, or this long, and what it reached."""
    start, data = time.time(), load_dataset("mnist", data_dir)
    torch.manual_seed(0)
    model, update = textbook_infogan(infogan.Config.make(paper=True))
    loader, epochs, reached = textbook_loader(model.config.batch_size, data_dir), 0, 0.0
    while reached < accuracy and time.time() - start < 60 * minutes:
        for x, _ in loader:
            update(x)
        tables, epochs = infogan.contingency_tables(model, data), epochs + 1
        reached = metrics.accuracy(tables.test, metrics.match(tables.train))
    return {"epochs": epochs, "seconds": time.time() - start, "accuracy": reached}


def print_times(accuracy: float, ours: dict[str, float | None], theirs: dict[str, float]) -> None:
    """Print what both sides took."""
    print(f"{'python infogan.py':24}{'seconds':>8}{'share':>8}")
    for name, seconds in ours.items():
        cells = f"{'never':>8}" if seconds is None else f"{seconds:8.1f}{seconds / ours['whole']:>8.0%}"
        print(f"{name:24}{cells}")
    verb = "reached" if theirs["accuracy"] >= accuracy else "stopped"
    what = f"{verb} after {theirs['epochs']} epochs, {theirs['seconds']:.0f} s, with {theirs['accuracy']:.1%}"
    print(f"the textbook loop of the paper's objective: {what}")


WIDTHS = {"": 12, "precision": 10, "textbook": 11, "script": 11, "ratio": 7, "images/s": 10}
WIDTHS |= {"memory textbook": 17, "memory script": 15}


def print_line(cells: Iterable[str]) -> None:
    print("".join(f"{cell:>{width}}" for cell, width in zip(cells, WIDTHS.values(), strict=True)), flush=True)


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
    if own.rounds < 1:
        raise BadInput("--rounds must be at least 1")
    images = len(load_dataset("mnist", own.data_dir).train_images)
    if not 2 <= own.batch_size <= images:
        raise BadInput(f"--batch-size must be at least 2 and at most {images}")
    if own.to_accuracy is not None:
        ours = time_infogan(own.to_accuracy, own.data_dir)
        print_times(own.to_accuracy, ours, time_textbook(own.to_accuracy, own.data_dir, own.minutes))
        return {"infogan": ours}
    print(f"{torch.get_num_threads()} threads, batch {own.batch_size}, torch {torch.__version__}")
    print_line(WIDTHS)
    table = {}
    for script in own.scripts:
        # The precision that the script itself would take.
        chosen = SCRIPTS[script].Config.precision if own.precision == "auto" else own.precision
        precision, side = choose_precision(chosen, CPU), (script, own.batch_size, own.data_dir)
        with ProcessPoolExecutor(1, SPAWN) as one, ProcessPoolExecutor(1, SPAWN) as other:
            theirs = partial(one.submit, run_turn, own.seconds, textbook_loop, *side)
            ours = partial(other.submit, run_turn, own.seconds, script_loop, *side, precision)
            turns = [theirs().result() + ours().result() for _ in range(own.rounds)]
        slow, _, fast, _ = map(median, zip(*turns, strict=True))
        _, slow_gb, _, fast_gb = turns[-1]
        table[script] = {"textbook_ms": slow, "script_ms": fast, "ratio": slow / fast}
        table[script] |= {"textbook_gb": slow_gb, "script_gb": fast_gb}
        cells = f"{slow:.1f} ms", f"{fast:.2f} ms", f"{slow / fast:.2f}", f"{1e3 * own.batch_size / fast:.0f}"
        print_line((script, precision, *cells, f"{slow_gb:.2f} GB", f"{fast_gb:.2f} GB"))
    return table


if __name__ == "__main__":
    run_program(main)
