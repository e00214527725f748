"""Numbers on images, codes and labels. Nothing here touches a network that is being trained."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor


def contingency(categories: Tensor, labels: Tensor, k: int = 10) -> np.ndarray:
    """How often category i met label j: (k, k) int64 from two (n,) int64 tensors of values in 0 … k-1."""
    return torch.bincount(categories.cpu() * k + labels.cpu(), minlength=k * k).reshape(k, k).numpy()


def one_to_one(table: np.ndarray) -> np.ndarray:
    """The label of each category (k,) under the permutation that agrees most with a contingency table."""
    from scipy.optimize import linear_sum_assignment

    return linear_sum_assignment(table, maximize=True)[1]


def majority(table: np.ndarray) -> np.ndarray:
    """The most frequent label of each category (k,); several categories may share one."""
    return table.argmax(axis=1)


def accuracy(table: np.ndarray, label_of_category: np.ndarray) -> float:
    """The share of images, in [0, 1], whose category stands for their label."""
    return float(table[np.arange(len(table)), label_of_category].sum() / table.sum())


def normalised_mutual_information(table: np.ndarray) -> float:
    """I(category; label) over the mean of their entropies: 0 where they are independent, 1 where they determine
    each other whatever the names. 0 as well where one of them is constant."""
    joint = table / table.sum()
    rows, columns = joint.sum(axis=1), joint.sum(axis=0)
    seen = joint > 0
    shared = (joint[seen] * np.log(joint[seen] / np.outer(rows, columns)[seen])).sum()
    entropies = sum(-(p[p > 0] * np.log(p[p > 0])).sum() for p in (rows, columns))
    return float(2 * shared / entropies) if entropies > 0 else 0.0


def gaussian_information(squared_error: float) -> float:
    """L_I in nats of a code that is uniform on (-1, 1): H(c) - ln(2 pi e s^2) / 2, with s^2 the mean squared error of
    Q's mean. It is the tightest bound of any Gaussian of one width around that mean.

    The width of 1 that InfoGAN trains with gives the same gradient up to a factor, but a bound that never exceeds
    ln 2 - ln(2 pi) / 2 = -0.226 nats.
    """
    return math.log(2) - 0.5 * math.log(2 * math.pi * math.e * max(squared_error, 1e-12))


def quotient(a: float, b: float) -> float | None:
    """a / b, or None where b is zero but for rounding: then the figure has no meaning."""
    return a / b if b > 1e-9 else None


def class_total_variation(shares: Tensor, target: Tensor) -> float:
    """Total variation of two distributions (k,): half the sum of differences, 0 if equal, 1 if they never overlap."""
    return float(0.5 * (shares - target).abs().sum())


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """|m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)) of two sets of features, (n_a, f) and (n_b, f).

    The distance of two Gaussians with the means and covariances of the sets, 0 for equal sets (Heusel et al. 2017,
    arXiv:1706.08500). Its scale is that of the features: compare it only within one classifier, best in units of its
    floor, the distance of the training set from the test set.
    """
    a, b = a.double().cpu(), b.double().cpu()
    covariance_a, covariance_b = torch.cov(a.T), torch.cov(b.T)
    # tr (S_a S_b)^(1/2) through the symmetric root of S_a, which keeps everything real.
    values, vectors = torch.linalg.eigh(covariance_a)
    root = vectors * values.clamp_min(0).sqrt() @ vectors.T
    shared = torch.linalg.eigvalsh(root @ covariance_b @ root).clamp_min(0).sqrt().sum()
    apart = (a.mean(dim=0) - b.mean(dim=0)).square().sum()
    return float((apart + covariance_a.trace() + covariance_b.trace() - 2 * shared).clamp_min(0))


def pca_mse(train: Tensor, test: Tensor, rank: int) -> float:
    """Mean squared error per pixel of `test` under PCA of this rank fitted on `train`, images (n, 28, 28) uint8.

    The optimum of every autoencoder with a linear output and that many hidden units (Bourlard and Kamp 1988). 0 for a
    rank of 784 or more. Computed in float64 from the covariance.
    """
    x, y = (part.flatten(1).double().cpu() / 255 for part in (train, test))
    mean = x.mean(dim=0)
    _, vectors = torch.linalg.eigh(torch.cov(x.T))  # in ascending order
    left_out = vectors[:, : max(x.shape[1] - rank, 0)]
    return float(((y - mean) @ left_out).square().sum() / y.numel())


def thickness(images: Tensor) -> Tensor:
    """The mean stroke width (n,) in pixels of images (n, 1, 28, 28) in [0, 1]: twice the area over the outline.

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
    """Spearman's rank correlation of two (n,) tensors, in [-1, 1]; 0 where one of them is constant."""
    from scipy.stats import spearmanr

    if a.numel() < 2 or (a == a[0]).all() or (b == b[0]).all():
        return 0.0
    return float(spearmanr(a.cpu().numpy(), b.cpu().numpy()).statistic)


SHARES = tuple(f"digit_{label}" for label in range(10))  # columns of metrics.csv, one per class
COLLAPSED_FOR = 3  # epochs in a row that a GAN must look collapsed before it is called so during training


def collapse(
    rows: Sequence[Mapping[str, float]], train_shares: Tensor | None = None, at_end: bool = False
) -> str | None:
    """What shows in the last three rows of metrics.csv that a GAN has collapsed; None where nothing does.

    Either D's mean probabilities for real and generated images are both within 0.01 of 0 or 1: then D teaches G
    nothing. Or one class takes more of the samples than halfway from its share (10,) in the training set to all of
    them; after training the last row alone is enough for that. Rows without shares say nothing of it.
    """
    last = rows[-COLLAPSED_FOR:]
    for_long = f"for {COLLAPSED_FOR} epochs"

    def one_class(row: Mapping[str, float]) -> bool:
        limits = (1 + train_shares) / 2
        return any(row.get(name, 0) > limit for name, limit in zip(SHARES, limits.tolist(), strict=True))

    if len(last) == COLLAPSED_FOR and all(min(row[d], 1 - row[d]) < 0.01 for row in last for d in ("d_real", "d_fake")):
        return f"collapsed: D(x) and D(G(z)) at their stops {for_long}"
    if train_shares is None or not last:
        return None
    if at_end and one_class(last[-1]):
        return "collapsed: most of the samples are of one class"
    if len(last) == COLLAPSED_FOR and all(map(one_class, last)):
        return f"collapsed: most of the samples are of one class {for_long}"
    return None
