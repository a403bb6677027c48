"""Networks: a model and a seed in, the same untrained network twice out: as the package builds it, as the texts do."""

from collections.abc import Mapping
from typing import Final

import torch
from torch import nn

from beats_search.models.cnn import Cnn
from beats_search.models.mlp import Mlp
from throughput_records import ModelName

_FAMILIES: Final[Mapping[ModelName, Mlp | Cnn]] = {"mlp": Mlp(width=100), "cnn": Cnn(width=32, dense=128)}
_INPUT_SHAPE: Final = (1, 28, 28)
_CLASSES: Final = 10


def build(model: ModelName, seed: int) -> nn.Module:
    """Return the package's network from standardized images to logits; equal seeds give equal weights."""
    torch.manual_seed(seed)
    return _FAMILIES[model].build(_INPUT_SHAPE, _CLASSES)


def as_in_the_texts(model: ModelName, network: nn.Module) -> nn.Module:
    """Return the same network layer by layer as the source texts have it, with copies of the weights."""
    written = _mlp() if model == "mlp" else _cnn()
    pairs = zip(written.state_dict(), network.state_dict().values(), strict=True)
    written.load_state_dict(dict(pairs))
    return written


def _mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 100), nn.ReLU(), nn.Linear(100, 10))


def _cnn() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 32, 3, padding="same"), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3, padding="same"), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(64 * 7 * 7, 128), nn.ReLU(), nn.Linear(128, 10)),
    )
