"""Pseudo-labels of real images, found without a label: category, slant and thickness. InfoGAN's guide.

A small network, `ClusterNet`, learns three things from pairs of training images. An image and one of its nearest
neighbours, transformed at random, belong to the same category: the mutual information of their categories is maximised
(IIC, Ji et al. 2019, arXiv:1807.06653; IMSAT, Hu et al. 2017, arXiv:1702.08720; neighbours as in SCAN, Van Gansbeke et
al. 2020, arXiv:2005.12320). An image and its own copy differ by a known slant and thickening, which two more outputs
must follow.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from common.data.dataset import to_float
from common.train.device import eval_mode, mixed_precision
from common.train.optim import adam, linear_decay, optimizer_step, scale_learning_rates
from common.train.random import stream, stream_seed

UNLABELLED = 255  # a category that stands for none

# [tuned: docs/notes.md]
SCALES = (5, 5, 20, 60, 200)  # neighbour i is the nearest within a random 1/SCALES[i] of the set; the last is far
RESTARTS = 3  # networks that start; the one with the best `neighbour_information` at the last scale continues
SELECT_AT = 0.4  # share of the updates after which one is selected
BALANCE = 3.0  # weight of the categories' entropy until then; it falls to 1 at 70 % of the updates

# Chosen in early trials that are not kept.
BATCH_SIZE = 256  # pairs per update
SELF_PAIRS = 0.2  # share of the pairs that are an image and its own copy, without a neighbour
UPDATES = 1000  # at most: a small set has 100 passes over it, at least 300 updates
LEARNING_RATE = 1e-3  # Adam's; falls to 2 % over the second half
WARM_UP = 0.1  # share of the updates in which it rises
FACTORS_WEIGHT = 0.2  # of slant and thickness, against the information on the category

# [our choice]
SMALLEST_PART = 300  # fewest images in such a part, which limits the scales of a small set
AGREE_AT_LEAST = 0.8  # share of far neighbours in one of ten categories, below which the guide has failed
SMALLEST_CATEGORY = 0.2  # of its fair share of the images, below which the guide has failed


def no_bar(total: int, what: str) -> tqdm:
    """A progress bar that shows nothing."""
    return tqdm(total=total, desc=what, disable=True)


class PseudoLabels(nn.Module):
    """Pseudo-labels of n images, as buffers: c1 (n,) uint8; continuous (n, 0 to 2) float32 in (-1, 1) for slant and
    thickness, as far as there are such codes, ranks within the category, so uniform and independent of it like
    InfoGAN's prior; and the share `neighbours_agree` () of images that are in one category with their far neighbour.
    For the report also the categories `test_c1` (n_test,) uint8 of test images. With n = 0 there is no guide."""

    def __init__(self, n: int, n_test: int, categories: int, continuous: int, device: torch.device):
        super().__init__()
        self.categories = categories
        for name, size in (("c1", n), ("test_c1", n_test)):
            self.register_buffer(name, torch.full((size,), UNLABELLED, dtype=torch.uint8, device=device))
        self.register_buffer("continuous", torch.zeros(n, min(2, continuous), device=device))
        self.register_buffer("neighbours_agree", torch.zeros((), device=device))

    def fit(
        self,
        images: Tensor,
        test_images: Tensor,
        seed: int,
        precision: str = "float32",
        updates: int | None = None,
        bar: Callable[[int, str], tqdm] = no_bar,
    ) -> None:
        """Find the pseudo-labels of images (n, 28, 28) uint8, see `fit_pseudo_labels`."""
        found = fit_pseudo_labels(images, test_images, self.categories, seed, precision, updates, bar)
        c1, factors, agree, test_c1 = found
        self.c1.copy_(c1)
        self.test_c1.copy_(test_c1)
        self.continuous.copy_(factors[:, : self.continuous.shape[1]])
        self.neighbours_agree.copy_(agree)

    @property
    def fitted(self) -> bool:
        """Whether all images have their pseudo-labels."""
        return bool((self.c1 != UNLABELLED).all())

    def lookup(self, batch: Tensor) -> tuple[Tensor, Tensor] | None:
        """c1 (m,) int64 and the continuous codes (m, 0 to 2) of the images with these indices; None without a guide."""
        if not len(self.c1):
            return None
        return self.c1.index_select(0, batch).long(), self.continuous.index_select(0, batch)

    @property
    def agree_at_least(self) -> float:
        """The share of far neighbours in one category below which the guide has failed. The more categories, the more
        neighbours lie on both sides of a border."""
        return AGREE_AT_LEAST ** (self.categories / 10)

    def failure(self) -> str | None:
        """What shows, without a label, that the guide has failed; None if nothing does."""
        if not len(self.c1):
            return None
        smallest = torch.bincount(self.c1.long(), minlength=self.categories).min().item() / len(self.c1)
        if smallest < SMALLEST_CATEGORY / self.categories:
            return f"the guide failed: its smallest category has {smallest:.1%} of the images"
        if self.neighbours_agree < self.agree_at_least:
            return f"the guide failed: only {self.neighbours_agree.item():.0%} of neighbours share a category"
        return None


class ClusterNet(nn.Module):
    """Two convolutions and a linear layer; a head with a logit per category, and one with two numbers for slant and
    thickness."""

    def __init__(self, categories: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Sequential(nn.Conv2d(1, 32, 4, stride=2, padding=1, bias=False), nn.BatchNorm2d(32), nn.LeakyReLU(0.1)),
            nn.Sequential(nn.Conv2d(32, 64, 4, stride=2, padding=1, bias=False), nn.BatchNorm2d(64), nn.LeakyReLU(0.1)),
            nn.Sequential(nn.Flatten(), nn.Linear(64 * 7 * 7, 256, bias=False), nn.BatchNorm1d(256), nn.LeakyReLU(0.1)),
        )
        self.category = nn.Linear(256, categories)
        self.factors = nn.Linear(256, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images (n, 1, 28, 28) in [0, 1] -> logits (n, categories), and two numbers (n, 2) of arbitrary scale."""
        features = self.body(x)
        return self.category(features).float(), self.factors(features).float()


# Objectives -----------------------------------------------------------------------------------------------------


def mutual_information(p: Tensor, q: Tensor, balance: float) -> Tensor:
    """Sum of P (ln P - balance (ln m + ln m')) for n pairs with probabilities p and q, (n, k) each, in nats; P is their
    symmetrised joint distribution, m its marginal.

    At balance 1 this is the mutual information of a pair: 0 if one says nothing of the other, ln k if both are in the
    same of k equally frequent categories. Above 1 the categories' entropy counts more, which keeps digits apart that
    would merge: it adds 2 (balance - 1) H(m).
    """
    joint = p.T @ q / len(p)
    joint = ((joint + joint.T) / 2).clamp(min=1e-8)  # either image may come first
    log_marginal = joint.sum(dim=0).log()
    return (joint * (joint.log() - balance * (log_marginal + log_marginal[:, None]))).sum()


def factor_alignment(change: Tensor, applied: Tensor) -> Tensor:
    """corr(d0, slant) + corr(d1, thickening) - corr(d0, thickening)^2 - corr(d1, slant)^2, at most 2, of the change d
    (n, 2) of the network's two numbers from images to their own copies, and what was applied to these (n, 2)."""
    change, applied = (F.normalize(values - values.mean(dim=0), dim=0) for values in (change, applied))
    correlation = change.T @ applied
    return correlation.trace() - correlation[0, 1].square() - correlation[1, 0].square()


# Neighbours ------------------------------------------------------------------------------------------------------


def slant(images: Tensor) -> Tensor:
    """The shear (n,) of images (n, 1, 28, 28) in [0, 1], in pixels to the right per pixel up, from second moments.

    Undoing it makes the ink's horizontal and vertical position uncorrelated.
    """
    axis = torch.arange(images.shape[-1], dtype=torch.float32, device=images.device)
    ink = images.squeeze(1)
    mass = ink.sum(dim=(1, 2)).clamp_min(1e-6)
    x = axis - (ink.sum(dim=1) @ axis / mass)[:, None]  # (n, 28), from the centre of mass
    y = axis - (ink.sum(dim=2) @ axis / mass)[:, None]
    covariance = (ink * y[:, :, None] * x[:, None, :]).sum(dim=(1, 2))
    variance = (ink * y[:, :, None].square()).sum(dim=(1, 2))
    return -covariance / variance.clamp_min(1e-6)  # image rows count downwards


def deskewed(images: Tensor) -> Tensor:
    """Images (n, 28, 28) uint8 -> (n, 196) float32: upright, centred by their mass and averaged over 2 x 2 pixels, so
    that distances are those of shapes (LeCun et al. 1998)."""
    parts = []
    for chunk in images.split(4096):
        x = to_float(chunk)
        axis = (torch.arange(28, device=x.device) - 13.5) / 14  # where `affine_grid` has the pixels
        mass = x.sum(dim=(1, 2, 3)).clamp_min(1e-6)
        centre_x, centre_y = x.sum(dim=(1, 2)) @ axis / mass, x.sum(dim=(1, 3)) @ axis / mass
        one, zero = torch.ones_like(mass), torch.zeros_like(mass)
        rows = (torch.stack((one, -slant(x), centre_x)), torch.stack((zero, one, centre_y)))
        grid = F.affine_grid(torch.stack(rows).permute(2, 0, 1), list(x.shape), align_corners=False)
        parts.append(F.avg_pool2d(F.grid_sample(x, grid, align_corners=False), 2).flatten(1))
    return torch.cat(parts)


def nearest(features: Tensor, parts: int, random: torch.Generator, dtype: torch.dtype = torch.float32) -> Tensor:
    """The nearest other row (n,) of each row of features (n, f), within one of `parts` random parts of equal size.

    In blocks of 500 rows, so that memory stays small; dtype: of the products.
    """
    features = features - features.mean(dim=0)
    found = torch.empty(len(features), dtype=torch.long, device=features.device)
    order = torch.randperm(len(features), generator=random, device=random.device)
    for part in order.tensor_split(parts):
        x = features[part]
        half_square, x = x.square().sum(dim=1) / 2, x.to(dtype)
        for rows in torch.arange(len(part), device=part.device).split(500):
            # |a - b|^2 = |a|^2 - 2 (a b - |b|^2 / 2)
            closeness = (x[rows] @ x.T).float() - half_square
            closeness[torch.arange(len(rows), device=rows.device), rows] = -math.inf
            found[part[rows]] = part[closeness.argmax(dim=1)]
    return found


def neighbours(images: Tensor, random: torch.Generator, dtype: torch.dtype = torch.float32) -> Tensor:
    """Neighbours (n, 5) of images (n, 28, 28) uint8, one at each of SCALES. The near ones keep categories pure, the far
    ones tell which clusters of images belong together."""
    features = deskewed(images)
    scales = [max(1, min(scale, len(images) // SMALLEST_PART)) for scale in SCALES]
    return torch.stack([nearest(features, scale, random, dtype) for scale in scales], dim=1)


def random_affine(x: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Transformed copies (n, 1, 28, 28) of images in [0, 1], and what was applied to them (n, 2): slant in pixels to
    the right per pixel up, thickening from -0.4 (eroded) to 0.4 (dilated), by 3 x 3 pixels.

    Each copy is rotated by up to 15 degrees, sheared by up to 0.3 and scaled by up to 15 %, on a grid shifted by up to
    10 % of the width, all uniformly: changes after which a digit is the same digit.
    """

    def uniform(most: float) -> Tensor:
        return (torch.rand(len(x), generator=random, device=x.device) * 2 - 1) * most

    angle, shear, scale = uniform(math.radians(15)), uniform(0.3), 1 + uniform(0.15)
    cos, sin = angle.cos() / scale, angle.sin() / scale
    rows = torch.stack((cos, shear * cos - sin, uniform(0.2))), torch.stack((sin, cos + shear * sin, uniform(0.2)))
    grid = F.affine_grid(torch.stack(rows).permute(2, 0, 1), list(x.shape), align_corners=False)
    copy = F.grid_sample(x, grid, align_corners=False)
    thicker = uniform(0.4)
    amount = thicker.view(-1, 1, 1, 1)
    side = amount.sign()  # dilation is the largest pixel around, erosion the smallest: -max(-x) = min(x)
    copy = copy.lerp(side * F.max_pool2d(side * copy, 3, stride=1, padding=1), amount.abs())
    return copy, torch.stack((shear - angle.tan(), thicker), dim=1)


# Training --------------------------------------------------------------------------------------------------------


def train_step(
    network: ClusterNet,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    pairs: Tensor,
    progress: float,
    random: torch.Generator,
    autocast: torch.autocast,
) -> None:
    """One update at this progress (share of the updates done), on a random batch of images (n, 28, 28) uint8 and
    transformed copies of their neighbours, whose indices are pairs (n, 5)."""
    batch = torch.randint(len(images), (min(BATCH_SIZE, len(images)),), generator=random, device=random.device)
    own = max(2, round(SELF_PAIRS * len(batch)))
    scale = torch.randint(pairs.shape[1], (len(batch),), generator=random, device=random.device)
    others = torch.cat((batch[:own], pairs[batch, scale][own:]))
    copies, applied = random_affine(to_float(images[others]), random)
    with autocast:  # in one pass, of twice the batch
        logits, factors = network(torch.cat((to_float(images[batch]), copies)))
    balance = 1 + (BALANCE - 1) * min(1, max(0, (0.7 - progress) / (0.7 - SELECT_AT)))
    before, after = factors.chunk(2)
    loss = -mutual_information(*logits.softmax(dim=1).chunk(2), balance)
    loss = loss - FACTORS_WEIGHT * factor_alignment(after[:own] - before[:own], applied[:own])
    scale_learning_rates(min(1, progress / WARM_UP + 0.01, linear_decay(progress, 0.5, 0.02)), optimizer)
    optimizer_step(optimizer, loss)


def fit_pseudo_labels(
    images: Tensor,
    test_images: Tensor,
    categories: int,
    seed: int,
    precision: str = "float32",
    updates: int | None = None,
    bar: Callable[[int, str], tqdm] = no_bar,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """c1 (n,), slant and thickness (n, 2), neighbours_agree () and test_c1 (n_test,) of `PseudoLabels` for images and
    test images (n, 28, 28) uint8. Nothing is learnt from the test images.

    Same seed, device and precision: same labels.

    precision: float32 or bfloat16; updates: of the network that is selected, by default as many as the set needs; bar:
    makes a progress bar from the number of updates and a description.
    """
    device = images.device
    updates = updates or min(UPDATES, max(300, 100 * math.ceil(len(images) / BATCH_SIZE)))
    select_at = round(SELECT_AT * updates)
    autocast = mixed_precision(device, precision)
    random = stream(seed, "guide", device=device)
    pairs = neighbours(images, random, torch.bfloat16 if precision == "bfloat16" else torch.float32)
    far, candidates = pairs[:, -1], []
    with bar(updates + (RESTARTS - 1) * select_at, "clustering the images") as progress:
        for number in range(RESTARTS):
            with torch.random.fork_rng(devices=[]):  # the caller's random state on the CPU stays
                torch.manual_seed(stream_seed(seed, "guide weights", number))
                network = ClusterNet(categories).to(device, memory_format=torch.channels_last)
            optimizer = adam(network, LEARNING_RATE)
            for update in range(select_at):
                train_step(network, optimizer, images, pairs, update / updates, random, autocast)
                progress.update()
            candidates.append((neighbour_information(network, images, far, autocast), number, network, optimizer))
        *_, network, optimizer = max(candidates)  # `number` breaks ties
        for update in range(select_at, updates):
            train_step(network, optimizer, images, pairs, update / updates, random, autocast)
            progress.update()
    logits, factors = predict(network, images, autocast)
    c1 = logits.argmax(dim=1)
    continuous = torch.empty_like(factors)
    for category in range(categories):
        rows = (c1 == category).nonzero().squeeze(1)
        ranks = factors[rows].argsort(dim=0, stable=True).argsort(dim=0)
        continuous[rows] = (ranks + 0.5) / max(1, len(rows)) * 2 - 1
    test_c1 = predict(network, test_images, autocast)[0].argmax(dim=1)
    return c1, continuous, (c1 == c1[far]).float().mean(), test_c1


def predict(network: ClusterNet, images: Tensor, autocast: torch.autocast) -> tuple[Tensor, Tensor]:
    """The network's logits (n, categories) and numbers (n, 2) of images (n, 28, 28) uint8, in eval mode."""
    with eval_mode(network), autocast:
        logits, factors = zip(*(network(to_float(chunk)) for chunk in images.split(500)), strict=True)
    return torch.cat(logits), torch.cat(factors)


def neighbour_information(network: ClusterNet, images: Tensor, neighbour: Tensor, autocast: torch.autocast) -> float:
    """The mutual information in nats between the categories of the first 5,000 images and of their neighbours (n,).

    Unlike the share of pairs that agree, it is lower if fewer categories are used.
    """
    pair = (predict(network, x, autocast)[0] for x in (images[:5000], images[neighbour[:5000]]))
    hard = (F.one_hot(logits.argmax(dim=1), logits.shape[1]).float() for logits in pair)
    return mutual_information(*hard, balance=1.0).item()
