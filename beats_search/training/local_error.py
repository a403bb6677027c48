"""Local errors: what a region makes of a batch in, the gradient of a loss of its own out.

A head, one linear layer from a region's output to the classes, is all that stands between a region
and the labels (Nøkland & Eidnes 2019, "prediction loss"). Heads belong to the trainer, never to the
model: an exported model has none. They begin at zero, so they draw nothing at random.
"""

import math
from collections.abc import Callable, Sequence
from typing import Final, Literal, TypeAlias, final

import torch
from torch import Tensor, nn
from torch.nn import Parameter
from torch.utils.hooks import RemovableHandle

from beats_search.training.regions import Region
from beats_search.training.windows import Gradients, added, present, square_norms

Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Logits (n, classes) and labels (n,) to a scalar."""

Scale: TypeAlias = Literal["none", "norm"]

_POOLED: Final = 4
"""Images are averaged down to this side before a head reads them."""

_IMAGES: Final = 4
_STRONGEST: Final = 10.0
"""`local_scale: norm` neither strengthens nor weakens a local gradient by more than this."""


@final
class LocalErrors:
    """The heads of all regions but the last, fed with what the regions after them are given.

    A region whose successor is not called with a tensor, or whose parameters its head does not
    depend on, has no local error and is trained by the network's loss alone.
    """

    def __init__(self, regions: Sequence[Region]) -> None:
        """Listen to the inputs of the regions; `close` ends that."""
        self.heads: dict[int, nn.Module] = {}
        self._seen: dict[int, Tensor] = {}
        self._handles = [self._listen(region, index - 1) for index, region in enumerate(regions) if index]

    def close(self) -> None:
        """Take all hooks off the model again."""
        for handle in self._handles:
            handle.remove()
        self._seen.clear()

    def loss(self, index: int, labels: Tensor, loss: Loss, classes: int) -> Tensor | None:
        """Return the loss of a region's head on the batch seen last; None where nothing was seen.

        A head that is not there yet is made on the way, and found in `heads`.
        """
        output = self._seen.get(index)
        if output is None:
            return None
        if index not in self.heads:
            self.heads[index] = _head(output, classes)
        return loss(self.heads[index](output.float()), labels)

    def forget(self) -> None:
        """Let go of the batch seen last, and of the graph that made it."""
        self._seen.clear()

    def parameters(self, index: int) -> list[Parameter]:
        """Return the parameters of a region's head; none where it has no head yet."""
        return list(self.heads[index].parameters()) if index in self.heads else []

    def state(self) -> dict[int, dict[str, Tensor]]:
        """Return copies of the weights of every head there is."""
        return {
            index: {name: tensor.clone() for name, tensor in head.state_dict().items()}
            for index, head in self.heads.items()
        }

    def load(self, state: dict[int, dict[str, Tensor]], device: torch.device) -> None:
        """Make the heads of a state; which way images are averaged is not part of it."""
        for index, weights in state.items():
            classes, features = weights["weight"].shape
            self.heads.setdefault(index, _Head(features, classes).to(device)).load_state_dict(weights)

    def _listen(self, region: Region, before: int) -> RemovableHandle:
        def keep(module: nn.Module, inputs: tuple[object, ...]) -> None:
            given = inputs[0] if inputs else None
            if module.training and torch.is_grad_enabled() and isinstance(given, Tensor) and given.requires_grad:
                self._seen[before] = given

        return region.entry.register_forward_pre_hook(keep)


def annealed(local_error: float, anneal: float, done: float) -> float:
    """Return α after a share `done` of training: constant at first, falling to 0 over the last share `anneal`."""
    return local_error * min(1.0, (1 - done) / anneal) if anneal else local_error


def mixed(backward: Gradients, local: Gradients, local_error: float, scale: Scale) -> Gradients:
    """Return (1 - α)·b + α·s·e in the tensors given; s is 1, or the clipped ‖b‖/‖e‖ for `norm`.

    A term whose weight is 0 is not evaluated, so that what is not finite in it does no harm.
    """
    torch._foreach_mul_(present(local), local_error * _strength(backward, local, scale))
    if local_error == 1:
        return local
    torch._foreach_mul_(present(backward), 1 - local_error)
    return added(backward, local)


def _strength(backward: Gradients, local: Gradients, scale: Scale) -> float:
    if scale == "none":
        return 1.0
    (ours, theirs) = square_norms([backward, local])
    if not (ours and theirs):
        return 1.0
    return min(max(math.sqrt(ours / theirs), 1 / _STRONGEST), _STRONGEST)


def _head(output: Tensor, classes: int) -> "_Head":
    features = math.prod(output.shape[1:])
    if output.ndim == _IMAGES:
        features = output.shape[1] * math.prod(min(side, _POOLED) for side in output.shape[2:])
    return _Head(features, classes).to(output.device)


@final
class _Head(nn.Module):
    """Average pooling of images to at most 4x4, and one linear layer that begins at zero."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(classes, features))
        self.bias = nn.Parameter(torch.zeros(classes))

    def forward(self, output: Tensor) -> Tensor:
        if output.ndim == _IMAGES:
            height, width = output.shape[2:]
            output = nn.functional.adaptive_avg_pool2d(output, (min(height, _POOLED), min(width, _POOLED)))
        return nn.functional.linear(output.flatten(1), self.weight, self.bias)
