"""Numbers on images, codes and labels. Nothing here touches a network that is being trained."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from common.train.guide import slant  # noqa: F401 - metrics.slant, beside thickness; it lives where the guide needs it


def contingency(categories: Tensor, labels: Tensor, k: int, classes: int) -> np.ndarray:
    """The number of images (k, classes) int64 with category i and label j, from two (n,) int64 tensors."""
    return torch.bincount(categories.cpu() * classes + labels.cpu(), minlength=k * classes).view(k, classes).numpy()


def match(table: np.ndarray) -> np.ndarray:
    """The label of each category (k,) under which a contingency table has its highest accuracy: each label at most
    once, unless there are more categories than labels; then the most frequent one of each category."""
    from scipy.optimize import linear_sum_assignment

    return majority(table) if len(table) > table.shape[1] else linear_sum_assignment(table, maximize=True)[1]


def majority(table: np.ndarray) -> np.ndarray:
    """The most frequent label of each category (k,); several categories may share one."""
    return table.argmax(axis=1)


def accuracy(table: np.ndarray, label_of_category: np.ndarray) -> float:
    """The share of images, in [0, 1], whose category is mapped to their label."""
    return float(table[np.arange(len(table)), label_of_category].sum() / table.sum())


def gaussian_information(squared_error: float) -> float:
    """L_I in nats of a code that is uniform on (-1, 1): H(c) - ln(2 pi e s^2) / 2, with s^2 the mean squared error of
    Q's mean. It is the tightest bound of any Gaussian of one width around that mean.

    The width of 1 that InfoGAN trains with gives the same gradient up to a factor, but a bound that never exceeds
    ln 2 - ln(2 pi) / 2 = -0.226 nats.
    """
    return math.log(2) - 0.5 * math.log(2 * math.pi * math.e * max(squared_error, 1e-12))


def quotient(a: float, b: float) -> float | None:
    """a / b, or None if b is zero except for rounding: then the ratio has no meaning."""
    return a / b if b > 1e-9 else None


def class_total_variation(shares: Tensor, target: Tensor) -> float:
    """Total variation of two distributions (k,): half the sum of differences, 0 if equal, 1 if disjoint."""
    return float(0.5 * (shares - target).abs().sum())


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """|m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)) of two sets of features, (n_a, f) and (n_b, f).

    The distance of two Gaussians with the means and covariances of the sets, 0 for equal sets (Heusel et al. 2017,
    arXiv:1706.08500). Its scale is that of the features: compare it only within one classifier, best in units of its
    floor, the distance of the training set from the test set.
    """
    a, b = a.cpu().double(), b.cpu().double()  # in this order: mps has no float64
    covariance_a, covariance_b = torch.cov(a.T), torch.cov(b.T)
    # tr (S_a S_b)^(1/2) through the symmetric root of S_a, which keeps everything real.
    values, vectors = torch.linalg.eigh(covariance_a)
    root = vectors * values.clamp_min(0).sqrt() @ vectors.T
    root_trace = torch.linalg.eigvalsh(root @ covariance_b @ root).clamp_min(0).sqrt().sum()
    mean_term = (a.mean(dim=0) - b.mean(dim=0)).square().sum()
    return float((mean_term + covariance_a.trace() + covariance_b.trace() - 2 * root_trace).clamp_min(0))


def spread_within_classes(features: Tensor, labels: Tensor) -> float:
    """The mean squared distance of features (n, f) to the mean of their class, averaged over the classes in labels
    (n,)."""
    groups = [features[labels == label] for label in labels.unique()]
    return sum(float(group.var(dim=0, correction=0).sum()) for group in groups) / len(groups)


def pca_mse(train: Tensor, test: Tensor, rank: int) -> float:
    """Mean squared error per pixel of `test` under PCA of this rank fitted on `train`, images (n, 28, 28) uint8.

    On the training images no autoencoder with a linear output and that many hidden units is better (Bourlard and Kamp
    1988). 0 for a rank of 784 or more. Computed in float64 from the covariance.
    """
    x, y = (part.flatten(1).cpu().double() / 255 for part in (train, test))
    mean = x.mean(dim=0)
    _, vectors = torch.linalg.eigh(torch.cov(x.T))  # in ascending order
    left_out = vectors[:, : max(x.shape[1] - rank, 0)]
    return float(((y - mean) @ left_out).square().sum() / y.numel())


def thickness(images: Tensor) -> Tensor:
    """The stroke thickness (n,) of images (n, 1, 28, 28) in [0, 1]: twice the area over the outline.

    It grows with the width but is no length: bars 1 to 5 pixels wide and 20 long have 1.0, 1.8, 2.6, 3.4 and 4.0.

    A stroke of length l and width w has area l w and an outline of about 2 l, so that a large digit has more ink but
    no thicker stroke. The outline is the total variation of the image, which needs no threshold: a pale stroke has
    as much less outline as it has area.
    """
    ink = torch.nn.functional.pad(images.squeeze(1), (1, 1, 1, 1))
    down = ink[:, 1:, :-1] - ink[:, :-1, :-1]
    right = ink[:, :-1, 1:] - ink[:, :-1, :-1]
    outline = torch.hypot(down, right).sum(dim=(1, 2))
    return 2 * ink.sum(dim=(1, 2)) / outline.clamp_min(1e-6)


def rank_correlation(a: Tensor, b: Tensor) -> float:
    """Spearman's rank correlation of two (n,) tensors, in [-1, 1]; 0 if one of them is constant."""
    from scipy.stats import spearmanr

    if a.numel() < 2 or (a == a[0]).all() or (b == b[0]).all():
        return 0.0
    return float(spearmanr(a.cpu().numpy(), b.cpu().numpy()).statistic)


SHARE = "share_"  # of a class in the samples: the beginning of its column's name in metrics.csv
COLLAPSED_FOR = 3  # epochs in a row that a GAN must look collapsed before it is called so during training


def collapse(
    rows: Sequence[Mapping[str, float]], train_shares: Tensor | None = None, at_end: bool = False
) -> str | None:
    """A warning if the last three rows of metrics.csv show that a GAN has collapsed, else None.

    Either D's mean probabilities for real and generated images are both within 0.01 of 0 or 1, where D teaches G
    nothing. Or one class takes more of the samples than halfway from its share in the training set (k,) to all of them;
    `at_end` of training one such row is enough. Rows without shares are not counted as collapsed.
    """
    last = rows[-COLLAPSED_FOR:]
    limits = [] if train_shares is None else ((1 + train_shares) / 2).tolist()
    stuck = [all(min(row[name], 1 - row[name]) < 0.01 for name in ("d_real", "d_fake")) for row in last]
    shares = [[value for name, value in row.items() if name.startswith(SHARE)] for row in last]
    one_class = [any(share > limit for share, limit in zip(row, limits, strict=False)) for row in shares]
    if len(last) == COLLAPSED_FOR and all(stuck):
        return f"collapsed: D(x) and D(G(z)) at their stops for {COLLAPSED_FOR} epochs"
    if at_end and any(one_class[-1:]):
        return "collapsed: most of the samples are of one class"
    if len(last) == COLLAPSED_FOR and all(one_class):
        return f"collapsed: most of the samples are of one class for {COLLAPSED_FOR} epochs"
    return None
