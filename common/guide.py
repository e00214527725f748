"""Codes of real images, found without a label: which of ten kinds, how slanted, how thick. InfoGAN's guide.

A small network, the reader, learns three things from pairs of training images. An image and one of its neighbours,
moved, are of the same kind: the information that their categories share is maximised (IIC, Ji et al. 2019,
arXiv:1807.06653; IMSAT, Hu et al. 2017, arXiv:1702.08720; neighbours as in SCAN, Van Gansbeke et al. 2020,
arXiv:2005.12320). An image and its own copy differ by a slant and a thickening that are known, and the reader's two
numbers must follow them. Constants are a prototype's, where each was tried, unless marked as assumptions.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common import BadInput
from common.augment import moved, neighbours
from common.data import to_float
from common.device import eval_mode, mixed_precision
from common.optim import adam, descend, linear_decay, scale_learning_rates
from common.streams import stream, stream_seed

CATEGORIES = 10
UNREAD = 255  # a category that stands for none
BATCH_SIZE = 256  # pairs per update
OWN = 0.2  # share of the pairs that are an image and its own copy, without a neighbour
UPDATES = 1000  # 100 passes over a set of fewer than 2,560 images, but at least 300 updates
BEGINNINGS = 3  # readers that begin; the one whose far neighbours share most goes on
BEGIN = 0.4  # share of the updates after which one is chosen; until then categories are held to equal sizes
BALANCE = 3.0  # weight of the categories' entropy in that time; it falls to 1 until 70 % of the updates
LEARNING_RATE = 1e-3  # Adam's; falls to 2 % over the second half
WARM_UP = 0.1  # share of the updates in which it rises
FACTORS_WEIGHT = 0.2  # of slant and thickness, against the information on the category
AGREE_AT_LEAST = 0.8  # share of far neighbours in one category, below which the guide has failed [assumption]
SMALLEST_CATEGORY = 0.02  # share of the images, below which the guide has failed [assumption]


class Codes(nn.Module):
    """What the reader says of n images, as buffers: c1 (n,) uint8; continuous (n, 2) float32 in (-1, 1) for slant and
    thickness, ranks within the category, so uniform and independent of it as InfoGAN's prior has them; and the share
    `neighbours_agree` () of images that are in one category with their far neighbour. With n = 0 there is no guide."""

    def __init__(self, n: int, device: torch.device):
        super().__init__()
        self.register_buffer("c1", torch.full((n,), UNREAD, dtype=torch.uint8, device=device))
        self.register_buffer("continuous", torch.zeros(n, 2, device=device))
        self.register_buffer("neighbours_agree", torch.zeros((), device=device))

    @property
    def known(self) -> bool:
        """Whether all images have been read. Raises BadInput for codes that are neither all there nor all unread."""
        if not ((self.c1 < CATEGORIES).all() or (self.c1 == UNREAD).all()):
            raise BadInput("the guide's codes in checkpoint.pt are no categories")
        return bool((self.c1 != UNREAD).all())

    def of(self, batch: Tensor) -> tuple[Tensor, Tensor] | tuple[()]:
        """c1 (m,) int64 and the continuous codes (m, 2) of the images with these indices; nothing without a guide."""
        if not len(self.c1):
            return ()
        return self.c1.index_select(0, batch).long(), self.continuous.index_select(0, batch)

    def failure(self) -> str | None:
        """What shows, without a label, that the guide has failed; None where nothing does."""
        if not len(self.c1):
            return None
        smallest = torch.bincount(self.c1.long(), minlength=CATEGORIES).min().item() / len(self.c1)
        if smallest < SMALLEST_CATEGORY:
            return f"the guide failed: its smallest category has {smallest:.1%} of the images"
        if self.neighbours_agree < AGREE_AT_LEAST:
            return f"the guide failed: {self.neighbours_agree.item():.0%} of neighbours are in one category"
        return None


# The reader -----------------------------------------------------------------------------------------------------


class Reader(nn.Module):
    """Two convolutions and a linear layer; a head with a logit per category, one with two numbers."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Sequential(nn.Conv2d(1, 32, 4, stride=2, padding=1, bias=False), nn.BatchNorm2d(32), nn.LeakyReLU(0.1)),
            nn.Sequential(nn.Conv2d(32, 64, 4, stride=2, padding=1, bias=False), nn.BatchNorm2d(64), nn.LeakyReLU(0.1)),
            nn.Sequential(nn.Flatten(), nn.Linear(64 * 7 * 7, 256, bias=False), nn.BatchNorm1d(256), nn.LeakyReLU(0.1)),
        )
        self.category = nn.Linear(256, CATEGORIES)
        self.factors = nn.Linear(256, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images (n, 1, 28, 28) in [0, 1] -> logits (n, 10), and two numbers (n, 2) of no scale."""
        features = self.body(x)
        return self.category(features).float(), self.factors(features).float()


def shared_information(p: Tensor, q: Tensor, balance: float) -> Tensor:
    """Sum of P (ln P - balance (ln m + ln m')) for n pairs with probabilities p and q, (n, k) each, in nats; P is their
    symmetrised joint distribution, m its marginal.

    At balance 1 this is the mutual information of a pair: 0 where one says nothing of the other, ln k where both name
    the same of k equally frequent categories. Above 1 the categories' entropy counts more, which keeps digits apart
    that would merge: it adds 2 (balance - 1) H(m).
    """
    joint = p.T @ q / len(p)
    joint = ((joint + joint.T) / 2).clamp(min=1e-8)  # either image may come first
    log_marginal = joint.sum(dim=0).log()
    return (joint * (joint.log() - balance * (log_marginal + log_marginal[:, None]))).sum()


def followed_factors(change: Tensor, put_in: Tensor) -> Tensor:
    """corr(d0, slant) + corr(d1, thickening) - corr(d0, thickening)^2 - corr(d1, slant)^2, at most 2, of the reader's
    changes d (n, 2) from images to their own copies and what was put into these (n, 2). No scale is imposed."""
    change, put_in = (F.normalize(values - values.mean(dim=0), dim=0) for values in (change, put_in))
    correlation = change.T @ put_in
    return correlation.trace() - correlation[0, 1].square() - correlation[1, 0].square()


def train_step(
    reader: Reader,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    pairs: Tensor,
    progress: float,
    random: torch.Generator,
    autocast: torch.autocast,
) -> None:
    """One update after this share of all updates, on a random batch of images (n, 28, 28) uint8 and their moved
    neighbours, of pairs (n, 5)."""
    batch = torch.randint(len(images), (min(BATCH_SIZE, len(images)),), generator=random, device=random.device)
    own = max(2, round(OWN * len(batch)))
    scale = torch.randint(pairs.shape[1], (len(batch),), generator=random, device=random.device)
    others = torch.cat((batch[:own], pairs[batch, scale][own:]))
    copies, put_in = moved(to_float(images[others]), random)
    with autocast:  # in one pass, of twice the batch
        logits, factors = reader(torch.cat((to_float(images[batch]), copies)))
    balance = 1 + (BALANCE - 1) * min(1, max(0, (0.7 - progress) / (0.7 - BEGIN)))
    before, after = factors.chunk(2)
    loss = -shared_information(*logits.softmax(dim=1).chunk(2), balance)
    loss = loss - FACTORS_WEIGHT * followed_factors(after[:own] - before[:own], put_in[:own])
    scale_learning_rates(min(1, progress / WARM_UP + 0.01, linear_decay(progress, 0.5, 0.02)), optimizer)
    descend(optimizer, loss)


def read(
    images: Tensor, seed: int, precision: str = "float32", updates: int | None = None, show: bool = False
) -> dict[str, Tensor]:
    """Train readers on images (n, 28, 28) uint8, choose one, return the state of `Codes`. Same seed, same codes.

    precision: float32 or bfloat16; updates: of the reader that is chosen, by default as many as the set needs; show:
    draw a bar with the time left.
    """
    from tqdm.auto import tqdm

    device = images.device
    updates = updates or min(UPDATES, max(300, 100 * math.ceil(len(images) / BATCH_SIZE)))
    begin = round(BEGIN * updates)
    autocast = mixed_precision(device, precision)
    random = stream(seed, "guide", device=device)
    with tqdm(total=updates + (BEGINNINGS - 1) * begin, desc="reading the images", disable=not show) as bar:
        pairs = neighbours(images, random, torch.bfloat16 if precision == "bfloat16" else torch.float32)
        far = pairs[:, -1]
        begun = []
        for number in range(BEGINNINGS):
            with torch.random.fork_rng(devices=[]):  # the caller's random state stays as it is
                torch.manual_seed(stream_seed(seed, "guide weights", number))
                reader = Reader().to(device, memory_format=torch.channels_last)
            optimizer = adam(reader, LEARNING_RATE)
            for update in range(begin):
                train_step(reader, optimizer, images, pairs, update / updates, random, autocast)
                bar.update()
            begun.append((neighbours_share(reader, images, far, autocast), number, reader, optimizer))
        *_, reader, optimizer = max(begun)
        for update in range(begin, updates):
            train_step(reader, optimizer, images, pairs, update / updates, random, autocast)
            bar.update()
    logits, factors = said(reader, images, autocast)
    c1 = logits.argmax(dim=1)
    continuous = torch.empty_like(factors)
    for category in range(CATEGORIES):
        rows = (c1 == category).nonzero().squeeze(1)
        ranks = factors[rows].argsort(dim=0, stable=True).argsort(dim=0)
        continuous[rows] = (ranks + 0.5) / max(1, len(rows)) * 2 - 1
    return {"c1": c1.byte(), "continuous": continuous, "neighbours_agree": (c1 == c1[far]).float().mean()}


def said(reader: Reader, images: Tensor, autocast: torch.autocast) -> tuple[Tensor, Tensor]:
    """The reader's logits (n, 10) and numbers (n, 2) of images (n, 28, 28) uint8, in eval mode."""
    with eval_mode(reader), autocast:
        logits, factors = zip(*(reader(to_float(chunk)) for chunk in images.split(500)), strict=True)
    return torch.cat(logits), torch.cat(factors)


def neighbours_share(reader: Reader, images: Tensor, neighbour: Tensor, autocast: torch.autocast) -> float:
    """The information in nats that the categories of the first 5,000 images and of their neighbours (n,) share. Unlike
    the share of pairs that agree, it also tells a partition into few kinds from one into ten."""
    pair = (said(reader, x, autocast)[0].argmax(dim=1) for x in (images[:5000], images[neighbour[:5000]]))
    return shared_information(*(F.one_hot(c1, CATEGORIES).float() for c1 in pair), balance=1.0).item()
