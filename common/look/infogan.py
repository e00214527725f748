"""InfoGAN's pictures, measurements and report: c1 against the labels, c2 and c3 against slant and stroke thickness."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.data import DIGITS, Dataset, to_float
from common.data.inputs import sampling_generator
from common.explorer.pack import save_page
from common.look import figures, metrics, plots
from common.look.fonts import display_names
from common.look.scorer import SampleScorer
from common.run.run import Run
from common.train.guide import PseudoLabels

CATEGORIES = 10
# columns of metrics.csv on the console, and the names of those of real images in curves.png
COLUMNS = {"accuracy": "c1 right %", "info_c1_nats": "I(c1)", "info_c2_nats": "I(c2)", "info_c3_nats": "I(c3)"}
COLUMNS |= {"loss_d": "loss D", "loss_g": "loss G", "d_real": "D(x)", "d_fake": "D(G(z))"}
ON_REAL_IMAGES = {f"guide_{code}_nats": f"I({code}), real" for code in ("c1", "c2", "c3")}
FACTORS = {"slant": ("leans left", "leans right"), "thickness": ("thin", "thick")}  # labels for low and high values
CLEAR = 0.3  # rank correlation from which on a code is said to do something
LABELLED = 10_000  # training images whose labels fit the map from categories to classes
PER_CATEGORY = 200  # generated images that show what a code does
SEEDS = 50  # of the explorer: its noise vectors are those of generate(seed=0) to generate(seed=49)
SWEEP = [-2 + 0.5 * step for step in range(9)]  # twice the trained range, as in the paper's Fig. 2
SHEETS = {
    "c1": "each row is one category of c1, named by the class it matches; columns share one noise vector",
    "c2": "each row is one category of c1; c2 goes from -2 to 2 (trained on -1 to 1)",
    "c3": "each row is one category of c1; c3 goes from -2 to 2 (trained on -1 to 1)",
}


class Tables(NamedTuple):
    """How often Q's most likely category (rows) meets each label (columns), (10, 10) each."""

    train: np.ndarray
    test: np.ndarray


def contingency_tables(model: nn.Module, data: Dataset) -> Tables | None:
    """The tables of the first 10,000 training images and of the test images; None for a set without labels."""
    if not data.classes:
        return None
    tables = []
    for x, labels in ((data.train_images, data.train_labels), (data.test_images, data.test_labels)):
        c1 = torch.cat([model.encode(to_float(part)).c1.argmax(dim=1) for part in x[:LABELLED].split(1000)])
        tables.append(metrics.contingency(c1, labels[:LABELLED], CATEGORIES))
    return Tables(*tables)


# What the codes do -------------------------------------------------------------------------------------------------


def measure_codes(model: nn.Module, random: torch.Generator) -> dict[str, float]:
    """Spearman's rank correlation of c2 and c3 with slant and stroke thickness of generated images, 200 a category.

    The correlation is taken within a category and averaged over the ten with its sign: a code that slants half of the
    digits to the left and half to the right counts as nothing.
    """
    noise, _, continuous = model.sample_latent(PER_CATEGORY * CATEGORIES, random)
    category = torch.arange(CATEGORIES).repeat_interleave(PER_CATEGORY)
    x = model.generate(len(category), category=category, c2=continuous[:, 0], c3=continuous[:, 1], noise=noise)
    found = {"slant": metrics.slant(x), "thickness": metrics.thickness(x)}
    numbers = {}
    for column, code in enumerate(("c2", "c3")):
        for factor, values in found.items():
            pairs = zip(continuous[:, column].split(PER_CATEGORY), values.split(PER_CATEGORY), strict=True)
            within = [metrics.rank_correlation(*pair) for pair in pairs]
            numbers[f"{code}_{factor}_rank_correlation"] = sum(within) / CATEGORIES
    return numbers


def meaning(numbers: Mapping[str, float], code: str) -> str:
    """What a code does: "slant", "slant + thickness" if it follows both, or "unclear" if it follows none."""
    return " + ".join(f for f in FACTORS if abs(numbers[f"{code}_{f}_rank_correlation"]) >= CLEAR) or "unclear"


def correlations(numbers: Mapping[str, float], code: str) -> str:
    """The rank correlations of a code, such as "slant +0.93, thickness −0.05"."""
    found = (f"{factor} {numbers[f'{code}_{factor}_rank_correlation']:+.2f}" for factor in FACTORS)
    return ", ".join(found).replace("-", "−")


# Pictures ----------------------------------------------------------------------------------------------------------


def row_names(data: Dataset) -> list[str]:
    """The names (10,) of a sheet's rows: the class that each category matches, or the category without classes."""
    unnamed = "no class" if data.classes else "category {}"
    return [*display_names(data.classes), *map(unnamed.format, range(len(data.classes), CATEGORIES))]


def typical(model: nn.Module, noise: Tensor) -> int:
    """The number of the row of noise (n, noise_size) whose ten images are nearest to the mean over all rows."""
    category = torch.arange(CATEGORIES).repeat_interleave(len(noise))
    x = model.generate(len(category), category=category, c2=0.0, c3=0.0, noise=noise.repeat(CATEGORIES, 1))
    x = x.view(CATEGORIES, -1, 784)
    return int((x - x.mean(dim=1, keepdim=True)).square().sum(dim=(0, 2)).argmin())


def sheets(model: nn.Module, noise: Tensor, continuous: Tensor) -> dict[str, Tensor]:
    """Images (10, columns, 28, 28) for c1, c2 and c3, one row per category in the order of the classes they match.

    c1: a column has one noise and one c2 and c3, rows of `noise` (columns, noise_size) and `continuous` (columns, 2).
    c2, c3: one code runs from -2 to 2, the other is 0, the noise is the `typical` row.
    """
    swept = torch.tensor(SWEEP, device=noise.device)
    fixed = noise[typical(model, noise)].expand(len(SWEEP), -1)
    zeros, found = torch.zeros_like(swept), {}
    columns = {"c1": (noise, *continuous.T), "c2": (fixed, swept, zeros), "c3": (fixed, zeros, swept)}
    for name, (z, c2, c3) in columns.items():
        category = model.digit_of_category.argsort().cpu().repeat_interleave(len(z))
        repeated = {"noise": z.repeat(CATEGORIES, 1), "c2": c2.repeat(CATEGORIES), "c3": c3.repeat(CATEGORIES)}
        found[name] = model.generate(len(category), category=category, **repeated).view(CATEGORIES, -1, 28, 28)
    return found


def save_epoch(run: Run, model: nn.Module, latent: Any) -> None:
    """epoch_NNN_c1.png, _c2.png, _c3.png and curves.png as of the epochs that are complete. latent: of ten columns."""
    save_curves(run)
    if not run.picture_due:
        return
    accuracy = run.rows[-1].get("accuracy") if run.rows else None
    right = "" if accuracy is None else f", c1 right on {accuracy:.1%} of the test images"
    keys = model.digit_of_category.argsort().tolist()
    for code, sheet in sheets(model, latent.noise, latent.continuous).items():
        title = f"{run.title}, {run.when}{right}\n{SHEETS[code]}"
        path = run.folder / f"epoch_{run.epoch:03d}_{code}.png"
        columns = () if code == "c1" else [f"{value:g}" for value in SWEEP]
        figures.save_grid(path, sheet, title, row_names(run.data), columns, keys)


def save_curves(run: Run) -> None:
    """curves.png as of the epochs that are complete."""
    c1, right, real = "information on c1 [nats]", "c1 right on test images", "mean probability of being real"
    panels = {
        c1: ["info_c1_nats", "guide_c1_nats"],
        "information on c2, c3 [nats]": ["info_c2_nats", "info_c3_nats", "guide_c2_nats", "guide_c3_nats"],
        right: ["accuracy"],
        "losses [nats]": ["loss_d", "loss_g"],
        real: ["d_real", "d_fake"],
    }
    reference = {c1: (math.log(CATEGORIES), "ln 10"), right: (1 / CATEGORIES, "chance")}
    plots.save_curves(run, panels, reference=reference, percent=(right, real), names=COLUMNS | ON_REAL_IMAGES)


def save_codes(run: Run, model: nn.Module, latent: Any, numbers: dict[str, float]) -> None:
    """codes.png and .pdf: the three sheets side by side, with what each code does."""
    found, names = sheets(model, latent.noise, latent.continuous), row_names(run.data)
    with plots.new_figure(15, 6.4, "".join(names)) as figure:
        panels = figure.subplots(1, 3, width_ratios=[sheet.shape[1] for sheet in found.values()])
        for axes, (code, sheet) in zip(panels, found.items(), strict=True):
            step = 30  # pixels from one image to the next
            page = F.pad(sheet.cpu().clamp(0, 1), (1, 1, 1, 1), value=1.0).permute(0, 2, 1, 3).flatten(2).flatten(0, 1)
            axes.imshow(page.numpy(), cmap="gray", vmin=0, vmax=1, interpolation="none")
            axes.set_yticks([step * row + step / 2 for row in range(CATEGORIES)], names, fontsize=13)
            axes.set_xticks([])
            does, below = "the category", "ten samples of noise, c2 and c3"
            if code != "c1":
                does, below = meaning(numbers, code), f"{code}, trained on -1 to 1 (framed)"
                axes.set_xticks([step * column + step / 2 for column in range(len(SWEEP))], [f"{v:g}" for v in SWEEP])
                axes.axvspan(2 * step, 7 * step, fill=False, edgecolor="tab:orange", linewidth=2.5)
            axes.set_title(f"{code}: {does}", fontsize=14)
            axes.set_xlabel(below, fontsize=13)
            axes.tick_params(length=0, labelsize=13)
            axes.spines[:].set_visible(False)
        panels[0].set_ylabel("category of c1, by the class it matches", fontsize=13)
        figure.suptitle(f"{run.title}, {run.when}", fontsize=14)
        plots.save_figure(run.folder / "codes.png", figure)


def save_explorer(run: Run, model: nn.Module, numbers: dict[str, float], accuracy: float | None) -> None:
    """explore.html: the page, with what it says of this run."""
    sliders = []
    for code in ("c2", "c3"):
        does = meaning(numbers, code)
        ends = FACTORS.get(does, ("", ""))  # no words for what does two things or none
        if ends[0] and numbers[f"{code}_{does}_rank_correlation"] < 0:
            ends = ends[::-1]
        note = f"rank correlation: {correlations(numbers, code)}; trained on −1 to 1"
        sliders.append({"name": code, "does": does, "ends": ends, "note": note})
    right = f"; c1 names the right class for {accuracy:.1%} of the test images" if accuracy is not None else ""
    noise = torch.cat([model.sample_latent(1, sampling_generator(seed)).noise for seed in range(SEEDS)])
    categories = model.digit_of_category.argsort().tolist()
    about = {
        "title": run.title,
        "subtitle": f"after {run.epoch} epochs{right}",
        "kind": "digit" if run.data.classes == DIGITS else "class",
        "picks": list(map(list, zip(row_names(run.data), categories, strict=True))),
        "codes": sliders,
        "noises": noise.double().round(decimals=5).tolist(),
        "first": typical(model, noise),
    }
    save_page(run.folder / "explore.html", model.ema, model.discriminator, about)


# The report --------------------------------------------------------------------------------------------------------


def report(
    run: Run, model: nn.Module, latent: Any, guide: PseudoLabels, tables: Tables | None, failed: str | None
) -> dict:
    """The pictures and report.json of a finished run. failed: the warning of the guide, if it has one."""
    config, data, last = run.config, run.data, run.rows[-1]
    factors = measure_codes(model, run.stream("measured codes"))
    found = {"guide_neighbours_agree": guide.neighbours_agree.item()} if config.guided else {}
    agreement, scores, train_shares = {}, {}, None
    if tables:
        agreement = compare_with_labels(run, model, tables)
        scorer = SampleScorer(data, config.data_dir, run.console)
        # As many as there are test images: a Fréchet distance of two finite sets depends on their sizes.
        noise, category, continuous = model.sample_latent(len(data.test_images), run.stream("judged samples"))
        samples = model.generate(len(noise), None, category, *continuous.unbind(dim=1), noise)
        scores, train_shares = scorer(samples, meant=model.digit_of_category[category].cpu()), scorer.train_shares
        if config.guided:
            table = metrics.contingency(guide.c1.long(), data.train_labels, CATEGORIES)
            found["guide_accuracy"] = metrics.accuracy(table, metrics.one_to_one(table))
    run.attempt(save_codes, model, latent, factors)
    run.attempt(figures.save_animation, "_c1")
    run.attempt(save_explorer, model, factors, agreement.get("accuracy"))
    information = {name: last[name] for name in ("info_c1_nats", "info_c2_nats", "info_c3_nats")}
    information["info_c1_maximum_nats"] = math.log(CATEGORIES)
    numbers = {**agreement, **information, **found, **factors, **(scorer.summary(scores) if tables else {})}
    lines = scorecard(numbers) | (SampleScorer.scorecard(numbers) if tables else {})
    collapsed = metrics.collapse([*run.rows[:-1], last | scores], train_shares, at_end=True)
    return run.finish(numbers, lines, "codes.png and explore.html", warnings=(failed, collapsed))


def compare_with_labels(run: Run, model: nn.Module, tables: Tables) -> dict[str, Any]:
    """How well c1 agrees with the classes, for report.json; saves confusion.png."""
    digit_of_category = model.digit_of_category.cpu().numpy()
    run.attempt(save_confusion, tables.test, np.argsort(digit_of_category))
    return {
        "classes": ", ".join(run.data.classes),
        "accuracy": metrics.accuracy(tables.test, digit_of_category),
        "accuracy_majority_map": metrics.accuracy(tables.test, metrics.majority(tables.train)),
    }


def save_confusion(run: Run, table: np.ndarray, order: np.ndarray) -> None:
    """confusion.png: the categories, in this order, against the classes."""
    rows = [f"category {category} (mostly {name})" for category, name in zip(order, row_names(run.data), strict=True)]
    plots.save_confusion(
        run.folder / "confusion.png",
        table[order, : len(run.data.classes)],
        f"{run.title}: c1 on the test images",
        rows,
        display_names(run.data.classes),
        ("what Q predicts", "class of the image, percent of the row"),
    )


def scorecard(report: Mapping[str, Any]) -> dict[str, str]:
    """The lines of the scorecard for the entries of report.json."""
    lines = {}
    if "accuracy" in report:
        lines["c1 right"] = f"{report['accuracy']:.1%} of the test images"
    if report.get("drawn_as_meant") is not None:
        lines["drawn as meant"] = f"{report['drawn_as_meant']:.1%} of the samples are the class of their c1"
    for code in ("c2", "c3"):
        lines[code] = f"{meaning(report, code)} (rank correlation: {correlations(report, code)})"
    lines["L_I(c1)"] = f"{report['info_c1_nats']:.3f} of {report['info_c1_maximum_nats']:.3f} nats"
    return lines
