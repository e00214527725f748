"""Every picture of the pages and the demo, made again by today's code.

    python studies/pictures.py outputs/infogan/run-001 outputs/gan_mlp/run-001 outputs/autoencoder/run-001

The pictures of a finished run are made again first, as `--resume` does; then they are copied to docs/, with some that
only the pages have. Of several runs of a script the last one counts; only the shares of the GAN's classes are shown
over all of them. A folder of `studies/widths.py` gives its plot. The explorer is shown as Chromium shows it, if there
is one.
"""

import argparse
import importlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import infogan
from common import BadInput
from common.data import DIGITS, Dataset, load_dataset, to_float
from common.look import figures, gan, plots
from common.look.metrics import SHARE
from common.run.cli import Parser, parse, run_program
from common.run.config import ROOT
from common.run.files import atomic_write, read_json, read_rows
from common.train.device import eval_mode
from common.train.guide import SCALES, ClusterNet, neighbours, random_affine
from common.train.random import stream

COPIED = {
    "infogan": {name: name for name in ("training.gif", "codes.gif", "explore.html")}
    | {f"{name}.png": f"infogan_{name}.png" for name in ("codes", "curves", "confusion")},
    "gan_mlp": {"epoch_{last:03d}.png": "gan_samples.png"}
    | {f"{name}.png": f"gan_{name}.png" for name in ("neighbours", "interpolation")},
    "autoencoder": {"epoch_{last:03d}.png": "autoencoder_epoch.png"}
    | {f"{name}.png": f"autoencoder_{name}.png" for name in ("range", "hidden_units")},
    "widths": {"widths.png": "autoencoder_sweep.png"},
}
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
SIZES = {"desktop": (1280, 900), "phone": (390, 1700)}
# The strokes of a 7 on the explorer's sheet, in shares of its size.
DRAW_SEVEN = """<script>addEventListener("load", () => setTimeout(() => {
  const paper = document.querySelector("#paper"), box = paper.getBoundingClientRect();
  const send = (kind, [x, y], buttons) => paper.dispatchEvent(new PointerEvent(kind, {clientX: box.x + x * box.width,
    clientY: box.y + y * box.height, buttons, pointerId: 1, bubbles: true}));
  paper.setPointerCapture = () => 0;
  send("pointerdown", [0.28, 0.2], 1);
  send("pointermove", [0.72, 0.2], 1);
  send("pointermove", [0.4, 0.82], 1);
  send("pointerup", [0.4, 0.82], 0);
}, 300))</script></body>"""


def script_of(folder: Path) -> str:
    """The script of a finished run; "widths" for a folder of `studies/widths.py`. Raises BadInput for any other."""
    if (folder / "widths.png").exists():
        return "widths"
    script = read_json(folder / "config.json")["script"]
    if not (folder / "report.json").exists():
        raise BadInput(f"{folder}: is not finished")
    return script


# InfoGAN's own ------------------------------------------------------------------------------------------------------


def save_progress(folder: Path, last: int, path: Path) -> None:
    """The first columns of c1's sheets: untrained, after one and two epochs and at the end; then of real images."""
    titles = {"epoch_000_c1": "untrained"}
    for row in read_rows(folder / "metrics.csv"):
        if row["epoch"] in (1, 2, last):
            right = f": {row['accuracy']:.1%}" if "accuracy" in row else ""
            titles[f"epoch_{row['epoch']:03d}_c1"] = f"epoch {row['epoch']}{right}"
    titles["reals"] = "training images"
    crops = []
    for sheet in titles:
        page = Image.open(folder / f"{sheet}.png")
        left, top = map(int, page.info["first image"].split())
        start = left if crops else 0  # with the rows' names
        crops.append(page.crop((start, top, left + 4 * figures.STEP, page.height - 8)))
    with plots.new_figure(10, 5.3) as figure:
        panels = figure.subplots(1, len(crops), width_ratios=[crop.width for crop in crops])
        for axes, crop, title in zip(panels, crops, titles.values(), strict=True):
            axes.imshow(crop, cmap="gray", vmin=0, vmax=255)
            axes.set_title(title, fontsize=12)
            axes.axis("off")
        plots.save_figure(path, figure)


def save_mistakes(model: infogan.InfoGAN, data: Dataset, path: Path) -> None:
    """Sixty training images of 1s that c1 takes for 2s and of 9s that it takes for 3s, each beside ordinary ones."""
    with plots.new_figure(11, 2.2) as figure:
        panels = iter(figure.subplots(1, 4))
        for digit, taken_for in ((1, 2), (9, 3)):
            x = data.train_images[data.train_labels == digit]
            c1 = torch.cat([model.encode(to_float(part)).c1.argmax(dim=1) for part in x.split(1000)])
            found = model.digit_of_category[c1]
            for which, title in ((taken_for, f"{digit}s that c1 takes for {taken_for}s"), (digit, f"other {digit}s")):
                sheet = figures.tile(x[found == which], 6, 10).permute(0, 2, 1, 3).flatten(2).flatten(0, 1).numpy()
                axes = next(panels)
                axes.imshow(sheet, cmap="gray", vmin=0, vmax=255)
                axes.set_title(title, fontsize=11)
                axes.axis("off")
        plots.save_figure(path, figure)


def save_neighbours(data: Dataset, seed: int, path: Path) -> None:
    """The first training image of each class, the neighbours that this seed's guide pairs it with, and two of these as
    the guide sees them."""
    random = stream(seed, "guide")
    pairs = neighbours(data.train_images, random)
    first = torch.stack([(data.train_labels == label).nonzero()[0, 0] for label in range(len(data.classes))])
    images = to_float(data.train_images[torch.cat((first[:, None], pairs[first]), dim=1).T.flatten()])
    rows = images.view(1 + len(SCALES), len(first), 28, 28)
    seen = [random_affine(row[:, None], random)[0].squeeze(1) for row in (rows[1], rows[-1])]
    parts = [f"nearest in 1/{scale} of the images" for scale in SCALES]
    names = ["image", *parts, "the second row, transformed", "the far ones, transformed"]
    figures.save_grid(path, torch.cat((rows, torch.stack(seen))), "Images and their neighbours, near to far", names)


def layers(network: nn.Module, forward: Callable[[Tensor], object], x: Tensor) -> list[str]:
    """The layers with weights that x goes through, each as "conv 4 × 4" above the shape that it returns."""
    kinds, found = {nn.Linear: "linear", nn.Conv2d: "conv", nn.ConvTranspose2d: "transposed\nconv"}, []

    def note(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        kernel = " {} × {}".format(*layer.kernel_size) if hasattr(layer, "kernel_size") else ""
        found.append(f"{kinds[type(layer)]}{kernel}\n{' × '.join(map(str, output.shape[1:]))}")

    hooks = [layer.register_forward_hook(note) for layer in network.modules() if type(layer) in kinds]
    with eval_mode(network):
        forward(x)
    for hook in hooks:
        hook.remove()
    return found


def save_networks(model: infogan.InfoGAN, path: Path) -> None:
    """G, D with Q, and the guide's network, layer by layer as the code has them."""
    image, d, cluster_net = torch.zeros(1, 1, 28, 28), model.discriminator, ClusterNet(model.config.categories)
    latent, features = torch.zeros(1, model.generator.dense[0].in_features), torch.zeros(1, d.head_d.in_features)
    g_layers, trunk = layers(model.generator, model.generator, latent), layers(d, d.features, image)
    *body, c1, factors = layers(cluster_net, cluster_net, image)
    heads = f"{c1}\n{factors}".replace("linear\n", "linear ")
    z = f"z: {model.config.noise_size} × {model.config.noise}"
    codes = f"{z}\nc1: one of {model.config.categories}\nc2, c3: −1 to 1"
    d_layers, q_layers = trunk + layers(d, d.real_or_fake, features), layers(d, d.posterior, features)
    rows = {  # y and first x; what goes in, the layers, their colour, what comes out
        "G": (3, 0, [codes], g_layers, "#cfe2f3", "generated\nimage"),
        "D": (2, 0, ["real or gene-\nrated image"], d_layers, "#fce0c4", "real or\nfake?"),
        "Q": (1, 1 + len(trunk), [], q_layers, "#fce0c4", "Q(c | image):\nc1, c2, c3"),
        "guide": (0, 0, ["real image"], [*body, heads], "#d5ebd0", "c1: category\nc2: slant\nc3: thickness"),
    }
    with plots.new_figure(11, 4.6) as figure:
        axes, boxes = figure.add_subplot(xlim=(-1, 7), ylim=(-0.5, 3.5)), {}
        axes.axis("off")

        def arrow(start: tuple, end: tuple, **style: str) -> None:
            ends = {"patchA": boxes[start].get_bbox_patch(), "patchB": boxes[end].get_bbox_patch()}
            style = {"arrowstyle": "->", "color": "0.3", "shrinkA": 0, "shrinkB": 0} | ends | style
            axes.annotate("", end[::-1], start[::-1], arrowprops=style)

        for name, (y, first, before, inner, colour, after) in rows.items():
            axes.text(first - 0.9, y, name, ha="left", va="center", fontsize=13, fontweight="bold")
            for x, text in enumerate((*before, *inner, after), start=first):
                style = {"boxstyle": "round,pad=0.45", "facecolor": colour if text in inner else "white"}
                box = style | {"edgecolor": "0.5"}
                boxes[y, x] = axes.text(x, y, text, ha="center", va="center", fontsize=9, bbox=box)
                if x > first:
                    arrow((y, x - 1), (y, x))
        trunk_end, image, answer = (2, len(trunk)), (3, len(g_layers) + 1), (1, 3 + len(trunk))
        arrow(trunk_end, (1, 1 + len(trunk)), connectionstyle="arc3,rad=0.2")
        arrow(image, (2, 0), connectionstyle="arc,angleA=-90,angleB=90,armA=36,armB=36,rad=8")
        arrow((0, 2 + len(body)), answer, connectionstyle="arc3,rad=0.2", linestyle="--")
        axes.text(6, 0.2, "what Q must predict\nfor real images", ha="left", va="center", fontsize=9, color="0.3")
        plots.save_figure(path, figure)


def find_chromium() -> str | None:
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def photograph(page: Path, browser: str, size: tuple[int, int], path: Path) -> None:
    """The explorer in a window of this many pixels, a digit drawn on its sheet."""
    with tempfile.TemporaryDirectory() as scratch:
        html = page.read_bytes().replace("</body>".encode("utf-16-le"), DRAW_SEVEN.encode("utf-16-le"))
        (Path(scratch) / "page.html").write_bytes(html)
        # Windows have a least width, frames have none.
        frame = f'<body style="margin:0"><iframe src="page.html" width={size[0]} height={size[1]} style="border:0">'
        (Path(scratch) / "frame.html").write_text(frame)
        shot = Path(scratch) / "shot.png"
        switches = (f"--screenshot={shot}", "--window-size=1400,1800", "--virtual-time-budget=20000")
        switches += ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={scratch}/p")
        command = [browser, *switches, (Path(scratch) / "frame.html").as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=300)
        with Image.open(shot) as picture, atomic_write(path) as target:
            picture.convert("RGB").crop((0, 0, *size)).quantize(64).save(target, format="PNG", optimize=True)


def main(arguments: list[str]) -> None:
    """Save what the folders give. Raises BadInput for a folder that is no finished run."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="run folders")
    parser.add_argument("--out", type=Path, default=ROOT / "docs", help="folder of the pictures (default: docs)")
    own = parser.parse_args(arguments)
    scripts, shares, last, browser = {run: script_of(run) for run in own.runs}, [], 0, find_chromium()
    own.out.mkdir(parents=True, exist_ok=True)
    for run, script in scripts.items():
        if script != "widths":
            module = importlib.import_module(script)
            config = parse(module.Config, ["--resume", str(run), "--quiet"])
            last = module.main(config)["epochs"]
        for name, copy in COPIED[script].items():
            shutil.copyfile(run / name.format(last=last), own.out / copy)
        if script == "gan_mlp":
            final = read_rows(run / "metrics.csv")[-1]
            shares.append([share for name, share in final.items() if name.startswith(SHARE)])
            data = load_dataset(config.dataset, config.data_dir, config.smoke)
            headline = f"{config.NAME} on {data.title} after {last} epochs"
            gan.save_shares(own.out / "gan_digits.png", data, headline, shares)
        if script == "infogan":
            save_progress(run, last, own.out / "infogan_progress.png")
            model, data = infogan.load(run), load_dataset(config.dataset, config.data_dir, config.smoke)
            save_networks(model, own.out / "infogan_networks.png")
            if data.classes:
                save_neighbours(data, config.seed, own.out / "infogan_neighbours.png")
            if data.classes == DIGITS:
                save_mistakes(model, data, own.out / "infogan_mistakes.png")
            for name, size in SIZES.items() if browser else ():
                photograph(run / "explore.html", browser, size, own.out / f"explorer_{name}.png")
            if not browser:
                print("no Chromium here: the pictures of the explorer stay as they are", file=sys.stderr)
        print(f"{run}: pictures made again")


if __name__ == "__main__":
    run_program(main)
