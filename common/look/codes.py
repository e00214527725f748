"""What InfoGAN's codes do: c1 against the labels, c2 and c3 against slant and stroke thickness, and their pictures.

`model` is what `infogan.load` returns: it has `generate`, `encode` and `digit_of_category` (10,).
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.augment import slant
from common.data import DIGITS, Dataset, to_float
from common.look import figures, metrics, plots
from common.run import Run

CATEGORIES = 10
FACTORS = {"slant": ("leans left", "leans right"), "thickness": ("thin", "thick")}  # with what is little and much
CLEAR = 0.3  # rank correlation from which on a code is said to do something
LABELLED = 10_000  # training images whose labels fit the map from categories to classes
PER_CATEGORY = 200  # generated images that say what a code does
SWEEP = [-2 + 0.5 * step for step in range(9)]  # twice the trained range, as in the paper's Fig. 2
SHEETS = {
    "c1": "a row is a category of c1, named by the class it matches; a column is a noise",
    "c2": "a row is a category of c1; c2 goes from -2 to 2 (trained on -1 to 1)",
    "c3": "a row is a category of c1; c3 goes from -2 to 2 (trained on -1 to 1)",
}


class Tables(NamedTuple):
    """How often Q's most likely category (rows) meets each label (columns), (10, 10) each."""

    train: np.ndarray
    test: np.ndarray


def contingencies(model: nn.Module, data: Dataset) -> Tables | None:
    """The tables of the first 10,000 training images and of the test images; None for a set without labels."""
    if not data.classes:
        return None
    tables = []
    for x, labels in ((data.train_images, data.train_labels), (data.test_images, data.test_labels)):
        c1 = torch.cat([model.encode(to_float(piece)).c1.argmax(dim=1) for piece in x[:LABELLED].split(1000)])
        tables.append(metrics.contingency(c1, labels[:LABELLED], CATEGORIES))
    return Tables(*tables)


def measure(model: nn.Module, noise: Tensor, continuous: Tensor) -> dict[str, float]:
    """What c2 and c3 do to generated images: Spearman's rank correlation of each with slant and with stroke thickness.

    noise (2000, noise_size) and continuous (2000, 2) are drawn from the prior, for 200 images of each category. The
    correlation is taken within a category and averaged over the ten with its sign: a code that slants half of the
    digits to the left and half to the right counts as nothing.
    """
    category = torch.arange(CATEGORIES).repeat_interleave(PER_CATEGORY)
    x = model.generate(len(category), category=category, c2=continuous[:, 0], c3=continuous[:, 1], noise=noise)
    found = {"slant": slant(x), "thickness": metrics.thickness(x)}
    numbers = {}
    for column, code in enumerate(("c2", "c3")):
        for factor, values in found.items():
            pairs = zip(continuous[:, column].split(PER_CATEGORY), values.split(PER_CATEGORY), strict=True)
            within = [metrics.rank_correlation(*pair) for pair in pairs]
            numbers[f"{code}_{factor}_rank_correlation"] = sum(within) / CATEGORIES
    return numbers


def meaning(numbers: Mapping[str, float], code: str) -> str:
    """What a code does, from what `measure` returns: "slant", "slant + thickness" where it follows both, or "unclear"
    where it follows none."""
    return " + ".join(f for f in FACTORS if abs(numbers[f"{code}_{f}_rank_correlation"]) >= CLEAR) or "unclear"


def correlations(numbers: Mapping[str, float], code: str) -> str:
    """The rank correlations of a code, such as "slant +0.93, thickness −0.05"."""
    found = (f"{factor} {numbers[f'{code}_{factor}_rank_correlation']:+.2f}" for factor in FACTORS)
    return ", ".join(found).replace("-", "−")


def told(report: Mapping[str, Any]) -> dict[str, str]:
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


def row_names(data: Dataset) -> list[str]:
    """The names (10,) of a sheet's rows: the class that each category matches, or the category where there are none."""
    unnamed = "no class" if data.classes else "category {}"
    return [*data.classes, *map(unnamed.format, range(len(data.classes), CATEGORIES))]


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
    zero = torch.zeros_like(swept)
    columns = {"c1": (noise, *continuous.T), "c2": (fixed, swept, zero), "c3": (fixed, zero, swept)}
    found = {}
    for name, (z, c2, c3) in columns.items():
        category = model.digit_of_category.argsort().cpu().repeat_interleave(len(z))
        tiled = {"noise": z.repeat(CATEGORIES, 1), "c2": c2.repeat(CATEGORIES), "c3": c3.repeat(CATEGORIES)}
        found[name] = model.generate(len(category), category=category, **tiled).view(CATEGORIES, -1, 28, 28)
    return found


def draw_sheets(run: Run, model: nn.Module, found: dict[str, Tensor]) -> None:
    """epoch_NNN_c1.png, _c2.png, _c3.png of what `sheets` returns."""
    accuracy = run.rows[-1].get("accuracy") if run.rows else None
    right = "" if accuracy is None else f", c1 right on {accuracy:.1%} of the test images"
    keys = model.digit_of_category.argsort().tolist()
    for code, sheet in found.items():
        title = f"{run.title}, {run.when}{right}\n{SHEETS[code]}"
        path = run.folder / f"epoch_{run.epoch:03d}_{code}.png"
        columns = () if code == "c1" else [f"{value:g}" for value in SWEEP]
        figures.save_grid(path, sheet, title, row_names(run.data), columns, keys)


def draw_codes(run: Run, found: dict[str, Tensor], numbers: dict[str, float]) -> None:
    """codes.png and .pdf: the three sheets side by side, with what each code does."""
    with plots.new_figure(15, 6.4, run.data.text) as figure:
        panels = figure.subplots(1, 3, width_ratios=[sheet.shape[1] for sheet in found.values()])
        for axes, (code, sheet) in zip(panels, found.items(), strict=True):
            step = 30  # pixels from one image to the next
            page = F.pad(sheet.cpu().clamp(0, 1), (1, 1, 1, 1), value=1.0).permute(0, 2, 1, 3).flatten(2).flatten(0, 1)
            axes.imshow(page.numpy(), cmap="gray", vmin=0, vmax=1, interpolation="none")
            axes.set_yticks([step * row + step / 2 for row in range(CATEGORIES)], row_names(run.data), fontsize=13)
            axes.set_xticks([])
            does, below = "the category", "ten draws of noise, c2 and c3"
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


def compare_with_labels(run: Run, model: nn.Module, tables: Tables) -> dict[str, Any]:
    """How well c1 agrees with the classes, for report.json, and confusion.png."""
    digit_of_category = model.digit_of_category.cpu().numpy()
    order = np.argsort(digit_of_category)
    rows = [f"category {category} (mostly {name})" for category, name in zip(order, row_names(run.data), strict=True)]
    plots.save_confusion(
        run.folder / "confusion.png",
        tables.test[order, : len(run.data.classes)],
        f"{run.title}: c1 on the test images",
        rows,
        run.data.classes,
        ("what Q reads", "class of the image, percent of the row"),
    )
    return {
        "classes": ", ".join(run.data.classes),
        "accuracy": metrics.accuracy(tables.test, digit_of_category),
        "accuracy_majority_map": metrics.accuracy(tables.test, metrics.majority(tables.train)),
        "normalised_mutual_information": metrics.normalised_mutual_information(tables.test),
    }


def about_page(run: Run, model: nn.Module, numbers: dict[str, float], accuracy: float | None) -> dict[str, Any]:
    """What explore.html says, for `explorer.save_page`."""
    sliders = []
    for code in ("c2", "c3"):
        does = meaning(numbers, code)
        ends = FACTORS.get(does, ("", ""))  # no words for what does two things or none
        if ends[0] and numbers[f"{code}_{does}_rank_correlation"] < 0:
            ends = ends[::-1]
        note = f"rank correlation: {correlations(numbers, code)}; trained on −1 to 1"
        sliders.append({"name": code, "does": does, "ends": ends, "note": note})
    right = f"; c1 names the right class for {accuracy:.1%} of the test images" if accuracy is not None else ""
    return {
        "title": run.title,
        "subtitle": f"after {run.epoch} epochs{right}",
        "kind": "digit" if run.data.classes == DIGITS else "class",
        "picks": list(map(list, zip(row_names(run.data), model.digit_of_category.argsort().tolist(), strict=True))),
        "codes": sliders,
    }
