"""InfoGAN's pictures, measurements and report: c1 against the labels, c2 and c3 against slant and stroke thickness."""

import math
from collections.abc import Mapping, Sequence
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
from common.look.gan import LEGEND
from common.look.scorer import SampleScorer
from common.run.config import ROOT
from common.run.run import Run
from common.train.guide import PseudoLabels

FACTORS = {"slant": ("leans left", "leans right"), "thickness": ("thin", "thick")}  # labels for low and high values
CLEAR = 0.3  # rank correlation from which on a code is said to do something
LABELLED = 10_000  # training images whose labels fit the map from categories to classes
PER_CATEGORY = 200  # generated images that show what a code does
SEEDS = 50  # of the explorer: its noise vectors are those of generate(seed=0) to generate(seed=49)
SWEEP = [-2 + 0.5 * step for step in range(9)]  # twice the trained range, as in the paper's Fig. 2


class Tables(NamedTuple):
    """How often Q's most likely category (rows) meets each label (columns), (k, classes) each."""

    train: np.ndarray
    test: np.ndarray


def code_names(continuous: int) -> list[str]:
    """The names of this many continuous codes: c2, c3, …."""
    return [f"c{number}" for number in range(2, 2 + continuous)]


def columns(config: Any) -> tuple[dict[str, str], str]:
    """The columns of metrics.csv on the console, {column: heading}, and what stands above them."""
    shown = ("c1", *code_names(min(2, config.continuous)))  # of more codes a line would not fit into 80 characters
    information = {f"info_{code}_nats": f"I({code})" for code in shown}
    losses = {"loss_d": "loss D", "loss_g": "loss G", "d_real": "D(x)", "d_fake": "D(G(z))"}
    legend = f"I(c1): what an image tells of c1, at most {math.log(config.categories):.3f} nats\n{LEGEND}"
    return {"accuracy": "right %", **information, **losses}, legend


def loss_columns(config: Any, mean: dict[str, float]) -> dict[str, float]:
    """Columns of metrics.csv from the means of what was logged.

    info_*: L_I in nats on generated images, for c2, c3, … with the best-fitting variance; guide_*: the same on real
    ones, taking H(c1) as ln k.
    """
    row = {name: mean[name] for name in ("loss_d", "loss_g", "d_real", "d_fake")}
    for column, source in (("info", ""), ("guide", "guide_")):
        if f"{source}c1_nll" in mean:
            row[f"{column}_c1_nats"] = math.log(config.categories) - mean[f"{source}c1_nll"]
        for code in code_names(config.continuous):
            if (name := f"{source}{code}_error") in mean:
                row[f"{column}_{code}_nats"] = metrics.gaussian_information(mean[name])
    return row


def contingency_tables(model: nn.Module, data: Dataset) -> Tables | None:
    """The tables of the first 10,000 training images and of the test images; None for a set without labels."""
    if not data.classes:
        return None
    tables = []
    for x, labels in ((data.train_images, data.train_labels), (data.test_images, data.test_labels)):
        c1 = torch.cat([model.encode(to_float(part)).c1.argmax(dim=1) for part in x[:LABELLED].split(1000)])
        tables.append(metrics.contingency(c1, labels[:LABELLED], model.config.categories, len(data.classes)))
    return Tables(*tables)


# What the codes do -------------------------------------------------------------------------------------------------


def measure_codes(model: nn.Module, random: torch.Generator) -> dict[str, float]:
    """Spearman's rank correlation of c2, c3, … with slant and stroke thickness of generated images, 200 a category.

    The correlation is taken within a category and averaged over all with its sign: a code that slants half of the
    digits to the left and half to the right counts as nothing.
    """
    k = model.config.categories
    noise, _, continuous = model.sample_latent(PER_CATEGORY * k, random)
    category = torch.arange(k).repeat_interleave(PER_CATEGORY)
    x = model.generate(len(category), category=category, continuous=continuous, noise=noise)
    found = {"slant": metrics.slant(x), "thickness": metrics.thickness(x)}
    numbers = {}
    for code, value in zip(code_names(continuous.shape[1]), continuous.unbind(dim=1), strict=True):
        for factor, values in found.items():
            pairs = zip(value.split(PER_CATEGORY), values.split(PER_CATEGORY), strict=True)
            within = [metrics.rank_correlation(*pair) for pair in pairs]
            numbers[f"{code}_{factor}_rank_correlation"] = sum(within) / k
    return numbers


def meaning(numbers: Mapping[str, float], code: str) -> str:
    """What a code does: "slant", "slant + thickness" if it follows both, or "unclear" if it follows none."""
    return " + ".join(f for f in FACTORS if abs(numbers[f"{code}_{f}_rank_correlation"]) >= CLEAR) or "unclear"


def correlations(numbers: Mapping[str, float], code: str) -> str:
    """The rank correlations of a code, such as "slant +0.93, thickness −0.05"."""
    found = (f"{factor} {numbers[f'{code}_{factor}_rank_correlation']:+.2f}" for factor in FACTORS)
    return ", ".join(found).replace("-", "−")


# Pictures ----------------------------------------------------------------------------------------------------------


def rows_of(model: nn.Module, data: Dataset) -> dict[str, int]:
    """{name: category} of the rows of a sheet, sorted by the class that each category matches and named by it: "3", the
    next of the same class "3 b". A category of no class, as all are without labels, has its number for a name."""
    names, class_of, found = display_names(data.classes), model.digit_of_category.tolist(), {}
    for category in sorted(range(len(class_of)), key=class_of.__getitem__):
        again = class_of[:category].count(class_of[category])
        suffix = f" {chr(ord('a') + again % 26) * (1 + again // 26)}" if again else ""  # b to z, aa, bb, …
        known = class_of[category] < len(names)
        found[names[class_of[category]] + suffix if known else f"category {category}"] = category
    return found


def typical(model: nn.Module, noise: Tensor) -> int:
    """The number of the row of noise (n, noise_size) whose images, one a category, are nearest to the mean over all
    rows."""
    k, zeros = model.config.categories, torch.zeros(model.config.continuous)
    category = torch.arange(k).repeat_interleave(len(noise))
    continuous = zeros.expand(len(category), -1)
    x = model.generate(len(category), category=category, continuous=continuous, noise=noise.repeat(k, 1))
    x = x.view(k, -1, 784)
    return int((x - x.mean(dim=1, keepdim=True)).square().sum(dim=(0, 2)).argmin())


def sheets(model: nn.Module, latent: Any, categories: Sequence[int]) -> dict[str, Tensor]:
    """Images (rows, columns, 28, 28) for c1, c2, c3, …, one row for each of these categories.

    c1: a column has the noise and the continuous codes of one row of `latent`. The others: one code runs from -2 to 2,
    the rest is 0, the noise is the `typical` row.
    """
    m, device = model.config.continuous, latent.noise.device
    columns, fixed = {"c1": (latent.noise, latent.continuous)}, latent.noise[typical(model, latent.noise)]
    for number, code in enumerate(code_names(m)):
        swept = torch.zeros(len(SWEEP), m, device=device)
        swept[:, number] = torch.tensor(SWEEP, device=device)
        columns[code] = fixed.expand(len(SWEEP), -1), swept
    found, rows = {}, len(categories)
    for name, (noise, continuous) in columns.items():
        category = torch.tensor(categories).repeat_interleave(len(noise))
        repeated = {"noise": noise.repeat(rows, 1), "continuous": continuous.repeat(rows, 1)}
        found[name] = model.generate(len(category), category=category, **repeated).view(rows, -1, 28, 28)
    return found


def save_epoch(run: Run, model: nn.Module, latent: Any, guide: PseudoLabels) -> None:
    """epoch_NNN_c1.png, _c2.png, … and curves.png as of the epochs that are complete. latent: of ten columns."""
    save_curves(run, guide)
    if not run.picture_due:
        return
    accuracy = run.rows[-1].get("accuracy") if run.rows else None
    right = "" if accuracy is None else f", c1 right on {accuracy:.1%} of the test images"
    rows = rows_of(model, run.data)
    for code, sheet in sheets(model, latent, [*rows.values()]).items():
        what, labels = f"; {code} goes from -2 to 2 (trained on -1 to 1)", [f"{value:g}" for value in SWEEP]
        if code == "c1":
            what, labels = ", named by the class it matches; columns share one noise vector", ()
        title = f"{run.headline}{right}\neach row is one value of c1{what}"
        path = run.folder / f"epoch_{run.epoch:03d}_{code}.png"
        figures.save_grid(path, sheet, title, [*rows], labels)


def save_curves(run: Run, guide: PseudoLabels) -> None:
    """curves.png as of the epochs that are complete."""
    k, codes = run.config.categories, code_names(run.config.continuous)
    c1, right, real = "what images tell of c1 [nats]", "c1 right on test images [%]", "how real D finds images"
    panels = {
        c1: ["info_c1_nats", "guide_c1_nats"],
        f"what images tell of {', '.join(codes)} [nats]": [f"{at}_{c}_nats" for c in codes for at in ("info", "guide")],
        right: ["accuracy"],
        "losses [nats]": ["loss_d", "loss_g"],
        real: ["d_real", "d_fake"],
    }
    dashed = {f"guide_{code}_nats": f"I({code}), real" for code in ("c1", *codes)}
    reference = {c1: (math.log(k), f"ln {k}"), right: (1 / max(1, len(run.data.classes)), "chance")}
    reference |= {real: (0.5, "can't tell")}
    lowest = min((row["accuracy"] for row in run.rows if "accuracy" in row), default=0)
    if of_guide := guide_accuracy(guide, run.data):
        reference[right] = of_guide["guide_accuracy"], "guide"
        lowest = min(lowest, of_guide["guide_accuracy"])
    limits = {right: (0.9 if lowest >= 0.9 else 0, 1), real: (0, 1)}
    names = columns(run.config)[0] | {f"info_{code}_nats": f"I({code})" for code in codes} | {"accuracy": "c1"} | dashed
    plots.save_curves(run, panels, reference, percent=[right], limits=limits, names=names, dashed=dashed)


def save_codes(run: Run, model: nn.Module, latent: Any, numbers: dict[str, float]) -> None:
    """codes.png: the sheets of all codes side by side, with what each code does."""
    rows = rows_of(model, run.data)
    found = sheets(model, latent, [*rows.values()])
    widths = [sheet.shape[1] for sheet in found.values()]
    with plots.new_figure(15 * sum(widths) / 28, 1.7 + 0.47 * len(rows), "".join(rows)) as figure:
        panels = figure.subplots(1, len(found), width_ratios=widths, squeeze=False)[0]
        for axes, (code, sheet) in zip(panels, found.items(), strict=True):
            step = 30  # pixels from one image to the next
            page = F.pad(sheet.cpu().clamp(0, 1), (1, 1, 1, 1), value=1.0).permute(0, 2, 1, 3).flatten(2).flatten(0, 1)
            axes.imshow(page.numpy(), cmap="gray", vmin=0, vmax=1, interpolation="none")
            axes.set_yticks([step * row + step / 2 for row in range(len(rows))], rows, fontsize=13)
            axes.set_xticks([])
            *some, last = "ten samples of noise", *code_names(run.config.continuous)
            does, below = "the category", f"{', '.join(some)} and {last}" if some else last
            if code != "c1":
                does, below = meaning(numbers, code), f"{code}, trained on -1 to 1 (framed); typical noise"
                axes.set_xticks([step * column + step / 2 for column in range(len(SWEEP))], [f"{v:g}" for v in SWEEP])
                axes.axvspan(2 * step, 7 * step, fill=False, edgecolor="tab:orange", linewidth=2.5)
            axes.set_title(f"{code}: {does}", fontsize=14)
            axes.set_xlabel(below, fontsize=13)
            axes.tick_params(length=0, labelsize=13)
            axes.spines[:].set_visible(False)
        panels[0].set_ylabel("category of c1, by the class it matches", fontsize=13)
        figure.suptitle(run.headline, fontsize=14, wrap=True)
        plots.save_figure(run.folder / "codes.png", figure)


def save_codes_animation(run: Run, model: nn.Module, latent: Any) -> None:
    """codes.gif: an image of each category while c2, then c3, … goes to 1.5, to -1.5 and back to 0, in 40 frames in
    all, at least ten each.

    The noise is the `typical` row of `latent`.
    """
    categories, m = torch.tensor([*rows_of(model, run.data).values()]), run.config.continuous
    frames, sweeps = max(10, 40 // max(1, m)), {}
    wave = 1.2 * (torch.arange(frames) * math.tau / frames).sin()
    k, noise = len(categories), latent.noise[typical(model, latent.noise)]
    for number, code in enumerate(code_names(m)):
        continuous = torch.zeros(len(wave), k, m)
        continuous[:, :, number] = wave[:, None]
        n = len(wave) * k
        given = {"category": categories.repeat(len(wave)), "noise": noise.expand(n, -1)}
        sweeps[code] = model.generate(n, continuous=continuous.view(n, m), **given).view(len(wave), k, 28, 28)
    if sweeps:
        figures.save_sweep(run.folder / "codes.gif", sweeps)


def save_explorer(run: Run, model: nn.Module, numbers: dict[str, float], accuracy: float | None) -> None:
    """explore.html: the page, with what it says of this run."""
    sliders = []
    for code in code_names(run.config.continuous):
        does = meaning(numbers, code)
        ends = FACTORS.get(does, ("", ""))  # no words for what does two things or none
        if ends[0] and numbers[f"{code}_{does}_rank_correlation"] < 0:
            ends = ends[::-1]
        note = f"rank correlation: {correlations(numbers, code)}"
        sliders.append({"name": code, "does": does, "ends": ends, "note": note})
    classes, folder = run.data.classes, run.folder.resolve()
    letters = classes and all(len(name) == 1 and name.isalpha() for name in classes)
    kind = "digit" if classes == DIGITS else "letter" if letters else "class"
    new = "images" if kind == "class" else f"{kind}s"
    count = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")[len(sliders)]
    right = f"; recognises {accuracy:.1%} of new {new}".replace("%", " %") if accuracy is not None else ""
    noise = torch.cat([model.sample_latent(1, sampling_generator(seed)).noise for seed in range(SEEDS)])
    about = {
        "title": f"InfoGAN: {count} control{'s' if sliders else ''} it taught itself",
        "subtitle": f"{run.data.title}, {run.epoch} epoch{'s' * (run.epoch != 1)}: trained without labels{right}",
        "kind": kind,
        "picks": list(rows_of(model, run.data).items()),
        "codes": sliders,
        "noises": noise.double().round(decimals=5).tolist(),
        "first": typical(model, noise),
        "example": run.data.test_images[0].flatten().tolist(),
        "run": (folder.relative_to(ROOT) if folder.is_relative_to(ROOT) else folder).as_posix(),
    }
    save_page(run.folder / "explore.html", model.ema, model.discriminator, about)


# The report --------------------------------------------------------------------------------------------------------


def report(
    run: Run, model: nn.Module, latent: Any, guide: PseudoLabels, tables: Tables | None, failed: str | None
) -> dict:
    """The pictures and report.json of a finished run. failed: the warning of the guide, if it has one."""
    config, data, last = run.config, run.data, run.rows[-1]
    run.say("Part 3 of 3: judging and drawing" if config.guided else "judging and drawing")
    factors = measure_codes(model, run.stream("measured codes"))
    found = {"guide_neighbours_agree": guide.neighbours_agree.item()} if config.guided else {}
    agreement, scores, train_shares = {}, {}, None
    if tables:
        agreement = compare_with_labels(run, model, tables)
        scorer = SampleScorer(data, config.data_dir, run.console)
        # As many as there are test images: a Fréchet distance of two finite sets depends on their sizes.
        noise, category, continuous = model.sample_latent(len(data.test_images), run.stream("judged samples"))
        samples = model.generate(len(noise), category=category, continuous=continuous, noise=noise)
        scores, train_shares = scorer(samples, meant=model.digit_of_category[category].cpu()), scorer.train_shares
        found |= guide_accuracy(guide, data)
    run.attempt(save_codes, model, latent, factors)
    run.attempt(figures.save_animation, "_c1")
    run.attempt(save_codes_animation, model, latent)
    run.attempt(save_explorer, model, factors, agreement.get("accuracy"))
    information = {name: value for name, value in last.items() if name.startswith("info_")}
    information["info_c1_maximum_nats"] = math.log(config.categories)
    numbers = {**agreement, **information, **found, **factors, **(scorer.summary(scores) if tables else {})}
    lines = scorecard(numbers) | (SampleScorer.scorecard(numbers) if tables else {})
    collapsed = metrics.collapse([*run.epoch_rows[:-1], last | scores], train_shares, at_end=True)
    return run.finish(numbers, lines, "codes.png and explore.html", warnings=(failed, collapsed))


def guide_accuracy(guide: PseudoLabels, data: Dataset) -> dict[str, float]:
    """The accuracy of the guide's categories on test and training images, under the map that fits the latter best;
    empty without a guide, before it is fitted and for a set without labels."""
    if not (len(guide.c1) and guide.fitted and data.classes):
        return {}
    size = guide.categories, len(data.classes)
    table = metrics.contingency(guide.c1.long(), data.train_labels, *size)
    on_test = metrics.contingency(guide.test_c1.long(), data.test_labels, *size)
    found = {"": on_test, "_on_training_images": table}
    return {f"guide_accuracy{of}": metrics.accuracy(counts, metrics.match(table)) for of, counts in found.items()}


def compare_with_labels(run: Run, model: nn.Module, tables: Tables) -> dict[str, Any]:
    """How well c1 agrees with the classes, for report.json; saves confusion.png.

    With fewer categories than classes some classes have none: they bound the accuracy.
    """
    class_of, classes = model.digit_of_category.cpu().numpy(), run.data.classes
    run.attempt(save_confusion, model, tables.test)
    found = {
        "classes": ", ".join(classes),
        "accuracy": metrics.accuracy(tables.test, class_of),
        "accuracy_majority_map": metrics.accuracy(tables.test, metrics.majority(tables.train)),
    }
    without = [label for label in range(len(classes)) if label not in class_of]
    if without:
        found["classes_without_category"] = ", ".join(classes[label] for label in without)
        found["accuracy_at_most"] = 1 - float(tables.test[:, without].sum() / tables.test.sum())
    return found


def save_confusion(run: Run, model: nn.Module, table: np.ndarray) -> None:
    """confusion.png: the categories, in the order of the sheets, against the classes."""
    order, names = [*rows_of(model, run.data).values()], display_names(run.data.classes)
    plots.save_confusion(
        run.folder / "confusion.png",
        table[order],
        f"{run.headline}: c1 on the test images",
        [f"category {category} (mostly {names[model.digit_of_category[category]]})" for category in order],
        names,
        ("category InfoGAN chose", f"true {'digit' if run.data.classes == DIGITS else 'class'}, % of each row"),
    )


def scorecard(report: Mapping[str, Any]) -> dict[str, str]:
    """The lines of the scorecard for the entries of report.json."""
    lines = {}
    if "accuracy" in report:
        lines["c1 right"] = f"{report['accuracy']:.1%} of the test images"
    if without := report.get("classes_without_category"):
        lines["no category"] = f"for {without}: at most {report['accuracy_at_most']:.1%} can be right"
    if "drawn_as_meant" in report:
        lines["drawn as meant"] = f"{report['drawn_as_meant']:.1%} of the samples are the class of their c1"
        if (spread := report["spread_over_test"]) is not None:
            lines["spread"] = f"{spread:.2f} of that of real images of a class"
    for name in report:
        if name.endswith("_slant_rank_correlation"):
            code = name.partition("_")[0]
            lines[code] = f"{meaning(report, code)} (correlation: {correlations(report, code)})"
    lines["L_I(c1)"] = f"{report['info_c1_nats']:.3f} of {report['info_c1_maximum_nats']:.3f} nats"
    return lines
