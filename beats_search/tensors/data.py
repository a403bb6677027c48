"""Data: a data set as tensors in memory, in three splits, with what a model does first to its input."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from beats_search.records.column import Column

_BYTE_MAX = 255
_FEWEST_CLASSES = 2
_IMAGES = 4  # dimensions: n, channels, height, width


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Inputs of shape (n, channels, height, width) or (n, columns) and labels of shape (n,), int64, 0…classes-1.

    Images are float in [0, 1], or uint8 where 255 stands for 1 (a quarter of the memory).
    """

    inputs: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        """Refuse inputs and labels that are no tensors, or do not belong together."""
        for name, value in (("inputs", self.inputs), ("labels", self.labels)):
            if not isinstance(value, Tensor):
                raise TypeError(f"{name} need to be a torch tensor, got {type(value).__name__}")
        if not self.inputs.is_floating_point() and self.inputs.dtype != torch.uint8:
            raise ValueError(f"inputs need to be float or uint8, got {self.inputs.dtype}")
        if self.labels.dim() != 1:
            raise ValueError(f"labels need the shape (n,), got {tuple(self.labels.shape)}")
        if len(self.inputs) != len(self.labels):
            raise ValueError(f"a split needs a label per input, got {len(self.inputs)} and {len(self.labels)}")
        if self.labels.dtype != torch.int64:
            raise ValueError(f"labels need to be int64 class numbers, got {self.labels.dtype}")

    def __len__(self) -> int:
        """Return the number of inputs."""
        return len(self.labels)

    def first(self, count: int) -> "Split":
        """Return the first `count` inputs with their labels."""
        return Split(inputs=self.inputs[:count], labels=self.labels[:count])

    def drawn(self, count: int, seed: int) -> "Split":
        """Return `count` inputs drawn at random, each once, with their labels: a data set may be sorted by class."""
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))[:count]
        return Split(inputs=self.inputs[order], labels=self.labels[order])


@dataclass(frozen=True, slots=True, kw_only=True)
class DataBundle:
    """A data set ready for training: three splits, the names of the classes, and the preprocessing.

    `preprocess` turns inputs as the user has them (float in [0, 1]) into what the network expects.
    It is built from the training split alone and travels inside the exported graph. `columns` says
    what the inputs (n, columns) of a table hold; only there a number may be missing (NaN).
    """

    train: Split
    validation: Split
    test: Split
    classes: tuple[str, ...]
    preprocess: nn.Module = field(default_factory=nn.Identity)
    columns: tuple[Column, ...] = ()

    def __post_init__(self) -> None:
        """Refuse data that nothing can be learned from, naming the split."""
        if self.columns and self.input_shape != (len(self.columns),):
            raise ValueError(f"{len(self.columns)} columns need inputs (n, columns), got {self.input_shape}")
        for name in ("train", "validation", "test"):
            split = getattr(self, name)
            _check_split(name, split, self.input_shape, len(self.classes))
            _check_values(name, _known(split.inputs, self.columns))
        if len(self.classes) < _FEWEST_CLASSES:
            raise ValueError(f"a data set needs at least {_FEWEST_CLASSES} classes, got {len(self.classes)}")

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input, without the batch."""
        return tuple(self.train.inputs.shape[1:])

    @property
    def network_shape(self) -> tuple[int, ...]:
        """Shape of one input after the preprocessing, without the batch: what a network takes."""
        with torch.no_grad():
            return tuple(self.preprocess(to_float(self.train.inputs[:1])).shape[1:])


class Standardize(nn.Module):
    """Subtract the mean and divide by the standard deviation, per channel of (n, channels, …)."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Keep one mean and one standard deviation per channel; a constant channel is not scaled."""
        super().__init__()
        shape = (1, -1, 1, 1)
        spread = [value if value > 0 else 1.0 for value in std]
        self.register_buffer("mean", torch.tensor(mean).reshape(shape))
        self.register_buffer("std", torch.tensor(spread).reshape(shape))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the standardized inputs, of the same shape."""
        return (inputs - self.mean) / self.std


def standardize_by(train: Split) -> Standardize:
    """Return the preprocessing whose statistics are those of the training images."""
    images = to_float(train.inputs)
    return Standardize(images.mean(dim=(0, 2, 3)).tolist(), images.std(dim=(0, 2, 3)).tolist())


def _check_split(name: str, split: Split, input_shape: tuple[int, ...], classes: int) -> None:
    if not len(split):
        raise ValueError(f"the {name} split needs at least one input, got none")
    if tuple(split.inputs.shape[1:]) != input_shape:
        own = tuple(split.inputs.shape[1:])
        raise ValueError(f"inputs need one shape, got {input_shape} to train and {own} in {name}")
    low, high = int(split.labels.min()), int(split.labels.max())
    if low < 0 or high >= classes:
        rule = f"labels of the {name} split need to be in 0…{classes - 1} ({classes} classes)"
        raise ValueError(f"{rule}, got {low}…{high}")


def _known(inputs: Tensor, columns: tuple[Column, ...]) -> Tensor:
    """Return the inputs, the missing numbers of a table as 0."""
    numbers = torch.tensor([column.kind == "number" for column in columns], device=inputs.device)
    return torch.where(numbers & inputs.isnan(), 0.0, inputs) if columns else inputs


def _check_values(name: str, inputs: Tensor) -> None:
    if not inputs.is_floating_point():
        return
    if not bool(inputs.isfinite().all()):
        raise ValueError(f"inputs of the {name} split need to be finite numbers, got NaN or infinity")
    lowest, highest = float(inputs.min()), float(inputs.max())
    if inputs.dim() == _IMAGES and not 0 <= lowest <= highest <= 1:
        raise ValueError(f"float images of the {name} split need to be within 0…1, got {lowest:.3g}…{highest:.3g}")


def to_float(inputs: Tensor) -> Tensor:
    """Return inputs as float32 in [0, 1]; uint8 is divided by 255."""
    return inputs.float().div_(_BYTE_MAX) if inputs.dtype == torch.uint8 else inputs.float()
