"""Augmentation: a batch of images in, the same images shifted, mirrored and turned at random out."""

import math

import torch
from torch import Generator, Tensor
from torch.nn import functional

from beats_search.records.plan import AugmentationPlan

_IMAGE_RANK = 4


def augment(images: Tensor, plan: AugmentationPlan, generator: Generator) -> Tensor:
    """Return float images (n, channels, height, width), each changed by a draw of its own.

    What comes into view is 0. The same tensor is returned when the plan changes nothing. Raises
    ValueError for inputs that are no images. `generator` is on the device of the images.
    """
    if plan == AugmentationPlan():
        return images
    if images.ndim != _IMAGE_RANK:
        raise ValueError(f"augmentation needs images (n, channels, height, width), got shape {tuple(images.shape)}")
    turned = _rotate(images, plan.rotation, generator) if plan.rotation else images
    return _move(turned, plan.shift, generator, flip=plan.flip)


def _rotate(images: Tensor, degrees: float, generator: Generator) -> Tensor:
    """Turn each image about its middle by up to `degrees` either way, with bilinear interpolation."""
    height, width = images.shape[2:]
    draws = torch.rand(len(images), generator=generator, device=images.device)
    angles = (2 * draws - 1) * math.radians(degrees)
    cos, sin, zero = angles.cos(), angles.sin(), torch.zeros_like(angles)
    # affine_grid measures each axis from -1 to 1, so a turn of an oblong image needs its aspect ratio
    rows = (cos, -sin * height / width, zero), (sin * width / height, cos, zero)
    matrices = torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)
    grid = functional.affine_grid(matrices, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, align_corners=False)


def _move(images: Tensor, shift: int, generator: Generator, *, flip: bool) -> Tensor:
    """Shift each image by up to `shift` pixels along both axes, and mirror half of them left-right."""
    count, channels, height, width = images.shape
    down, right = torch.randint(0, 2 * shift + 1, (2, count, 1), generator=generator, device=images.device)
    rows = torch.arange(height, device=images.device) + down
    columns = torch.arange(width, device=images.device).expand(count, width)
    if flip:
        mirrored = torch.rand((count, 1), generator=generator, device=images.device) < 1 / 2
        columns = torch.where(mirrored, columns.flip(1), columns)
    every_image = torch.arange(count, device=images.device)[:, None, None, None]
    every_channel = torch.arange(channels, device=images.device)[:, None, None]
    padded = functional.pad(images, (shift,) * 4)
    return padded[every_image, every_channel, rows[:, None, :, None], (columns + right)[:, None, None, :]]
