"""Copies of images: deskewed, moved at random, shifted; and each image's nearest others."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from common.data import to_float

SCALES = (5, 5, 20, 60, 200)  # the set is split into so many parts, and neighbours are the nearest within a part
SMALLEST_PART = 300  # images in a part, where there are as many [assumption]


def slant(images: Tensor) -> Tensor:
    """The shear (n,) of images (n, 1, 28, 28) in [0, 1], in pixels to the right per pixel up, from second moments.

    It is the shear that would make the ink's horizontal and vertical position uncorrelated if undone.
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
        middle_x, middle_y = x.sum(dim=(1, 2)) @ axis / mass, x.sum(dim=(1, 3)) @ axis / mass
        one, none = torch.ones_like(mass), torch.zeros_like(mass)
        rows = (torch.stack((one, -slant(x), middle_x)), torch.stack((none, one, middle_y)))
        places = F.affine_grid(torch.stack(rows).permute(2, 0, 1), list(x.shape), align_corners=False)
        parts.append(F.avg_pool2d(F.grid_sample(x, places, align_corners=False), 2).flatten(1))
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
    ones tell which islands of images belong together."""
    features = deskewed(images)
    scales = [max(1, min(scale, len(images) // SMALLEST_PART)) for scale in SCALES]
    return torch.stack([nearest(features, scale, random, dtype) for scale in scales], dim=1)


def moved(x: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Copies (n, 1, 28, 28) of images in [0, 1], and what was put into them (n, 2): slant in pixels to the right per
    pixel up, thickening from -0.4 (eroded) to 0.4 (dilated), by 3 x 3 pixels.

    Each copy is turned by up to 15 degrees, sheared by up to 0.3 and scaled by up to 15 %, on a grid shifted by up to
    10 % of the width, all uniformly: changes after which a digit is the same digit.
    """

    def uniform(most: float) -> Tensor:
        return (torch.rand(len(x), generator=random, device=x.device) * 2 - 1) * most

    angle, shear, scale = uniform(math.radians(15)), uniform(0.3), 1 + uniform(0.15)
    cos, sin = angle.cos() / scale, angle.sin() / scale
    rows = torch.stack((cos, shear * cos - sin, uniform(0.2))), torch.stack((sin, cos + shear * sin, uniform(0.2)))
    places = F.affine_grid(torch.stack(rows).permute(2, 0, 1), list(x.shape), align_corners=False)
    copy = F.grid_sample(x, places, align_corners=False)
    thicker = uniform(0.4)
    amount = thicker.view(-1, 1, 1, 1)
    side = amount.sign()  # the largest pixel around where it thickens; the least where it thins, for -max(-x) = min(x)
    copy = copy.lerp(side * F.max_pool2d(side * copy, 3, stride=1, padding=1), amount.abs())
    return copy, torch.stack((shear - angle.tan(), thicker), dim=1)


def shifted(x: Tensor, reach: int, random: torch.Generator) -> Tensor:
    """Images (n, 1, 28, 28), each moved by its own draw of up to `reach` pixels in both directions, black coming in.

    D must judge drawn and real images moved alike, and G learns through the moving (Zhao et al. 2020, arXiv:2006.10738,
    "differentiable augmentation"): a fully connected D would otherwise learn single pixels by heart.
    """
    if reach == 0:
        return x
    wide = 28 + 2 * reach
    pixel = torch.arange(28, device=x.device)
    corner = torch.randint(2 * reach + 1, (2, len(x), 1), generator=random, device=x.device)
    where = corner[0] * wide + corner[1] + (pixel[:, None] * wide + pixel).flatten()  # (n, 784)
    return F.pad(x, (reach,) * 4).flatten(1).gather(1, where).view(-1, 1, 28, 28)
