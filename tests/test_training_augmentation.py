"""Augmentation changes each image by a draw of its own, and only as far as the plan allows."""

import math

import pytest
import torch
from torch import Generator, Tensor
from torch.nn import functional
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import rotate

from beats_search.records.plan import AugmentationPlan
from beats_search.training.augmentation import augment


def pictures(count: int, height: int = 5, width: int = 7) -> Tensor:
    """Return `count` copies of one image without any symmetry, in two channels."""
    image = torch.arange(1.0, 2 * height * width + 1).reshape(1, 2, height, width)
    return image.expand(count, -1, -1, -1).contiguous()


def seeded(seed: int = 0) -> Generator:
    """Return a source of random numbers."""
    return Generator().manual_seed(seed)


def shifts(image: Tensor, most: int) -> list[Tensor]:
    """Return all shifts of an image by up to `most` pixels either way, filled with 0."""
    height, width = image.shape[1:]
    padded = functional.pad(image, (most,) * 4)
    starts = [(row, column) for row in range(2 * most + 1) for column in range(2 * most + 1)]
    return [padded[:, row : row + height, column : column + width] for row, column in starts]


def indices(outputs: Tensor, allowed: list[Tensor]) -> set[int]:
    """Return which of the allowed images occur; fails on an image that is none of them."""
    found = [[number for number, image in enumerate(allowed) if torch.equal(output, image)] for output in outputs]
    assert all(found)
    return {numbers[0] for numbers in found}


def test_nothing_to_do_returns_the_same_tensor() -> None:
    """A plan without augmentation costs nothing, whatever the rank of the inputs."""
    rows = torch.rand(3, 4)
    assert augment(rows, AugmentationPlan(), seeded()) is rows


def test_a_shift_is_one_of_the_allowed_ones() -> None:
    """Every image is moved by whole pixels up to the limit along both axes; over many draws, all moves occur."""
    inputs = pictures(600)
    allowed = shifts(inputs[0], 2)
    assert indices(augment(inputs, AugmentationPlan(shift=2), seeded()), allowed) == set(range(25))


def test_a_flip_mirrors_about_half_of_the_images() -> None:
    """Every image is the original or its mirror image; of 600 fair coins, 240 to 360 fall heads."""
    inputs = pictures(600)
    outputs = augment(inputs, AugmentationPlan(flip=True), seeded())
    mirrored = sum(torch.equal(output, inputs[0].flip(-1)) for output in outputs)
    assert indices(outputs, [inputs[0], inputs[0].flip(-1)]) == {0, 1}
    assert 240 <= mirrored <= 360


def test_shift_and_flip_combine() -> None:
    """With both, every image is a shift of the original or of its mirror image."""
    inputs = pictures(900)
    outputs = augment(inputs, AugmentationPlan(shift=1, flip=True), seeded())
    assert indices(outputs, shifts(inputs[0], 1) + shifts(inputs[0].flip(-1), 1)) == set(range(18))


@pytest.mark.parametrize("size", [(9, 9), (6, 11)])
def test_a_rotation_is_that_of_torchvision(size: tuple[int, int]) -> None:
    """Images turn about their middle by the drawn angles as torchvision turns them one at a time."""
    inputs = pictures(20, *size)
    outputs = augment(inputs, AugmentationPlan(rotation=40), seeded(3))
    angles = (2 * torch.rand(20, generator=seeded(3)) - 1) * 40
    theirs = [
        rotate(image, angle, InterpolationMode.BILINEAR) for image, angle in zip(inputs, angles.tolist(), strict=True)
    ]
    torch.testing.assert_close(outputs, torch.stack(theirs), rtol=1e-3, atol=1e-2)


def test_a_rotation_stays_within_its_limit() -> None:
    """A bright point right of the middle is not turned by more than the limit."""
    inputs = torch.zeros(200, 1, 41, 41)
    inputs[:, :, 20, 38] = 1
    outputs = augment(inputs, AugmentationPlan(rotation=30), seeded()).flatten(1)
    places = outputs.argmax(dim=1)
    rows, columns = places // 41 - 20, places % 41 - 20
    angles = torch.atan2(rows.float(), columns.float()).abs()
    assert math.radians(20) < float(angles.max()) < math.radians(33)


def test_equal_seeds_draw_equal_changes() -> None:
    """All draws come from the generator that is handed in."""
    plan, inputs = AugmentationPlan(shift=2, flip=True, rotation=15), pictures(50)
    assert torch.equal(augment(inputs, plan, seeded(1)), augment(inputs, plan, seeded(1)))
    assert not torch.equal(augment(inputs, plan, seeded(1)), augment(inputs, plan, seeded(2)))


def test_the_originals_stay_as_they_are() -> None:
    """The training images are not written to."""
    inputs = pictures(10)
    augment(inputs, AugmentationPlan(shift=2, flip=True, rotation=15), seeded())
    assert torch.equal(inputs, pictures(10))


def test_rows_of_a_table_are_refused() -> None:
    """Only images can be shifted, mirrored or turned."""
    with pytest.raises(ValueError, match=r"augmentation needs images .* got shape \(3, 4\)"):
        augment(torch.rand(3, 4), AugmentationPlan(shift=1), seeded())
