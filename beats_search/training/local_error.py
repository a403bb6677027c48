"""Local errors: what a region makes of a batch in, the gradient of a loss of its own out.

A head, one linear layer from a region's output to the classes, is all that stands between a region
and the labels (Nøkland & Eidnes 2019, "prediction loss"). Heads belong to the trainer, never to the
model: an exported model has none. They begin at zero, so they draw nothing at random.
"""

import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias, final

import torch
from torch import Tensor, nn
from torch.nn import Parameter
from torch.optim import Optimizer

from beats_search.training.regions import Region
from beats_search.training.windows import Gradients, added, present, square_norms

Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Logits (n, classes) and labels (n,) to a scalar."""

Scale: TypeAlias = Literal["none", "norm"]

_POOLED: Final = 4
"""Images are averaged down to this side before a head reads them."""

_IMAGES: Final = 4
_MATRIX: Final = 2
_STRONGEST: Final = 10.0
"""`local_scale: norm` neither strengthens nor weakens a local gradient by more than this."""


@final
class LocalErrors:
    """The heads of all regions but the last, fed with what the regions after them are given.

    A region whose successor is not called with a tensor, or changes it in place, or whose parameters
    its head does not depend on, has no local error and is trained by the network's loss alone. Of a
    module that is called several times in a forward pass, the last call counts.
    """

    def __init__(self, regions: Sequence[Region], optimizer: Optimizer) -> None:
        """Listen to the inputs of the regions; `close` ends that, and takes the heads from the optimizer."""
        self.heads: dict[int, nn.Module] = {}
        self._regions = regions
        self._optimizer = optimizer
        self._seen: dict[int, tuple[Tensor, int]] = {}
        self._closed = False
        self._handles = [
            region.entry.register_forward_pre_hook(_Listener(self, region.entry, index), with_kwargs=True)
            for index, region in enumerate(regions[1:])
        ]

    def close(self) -> None:
        """Take all hooks off the model and all heads from the optimizer."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._closed = True
        self.forget()
        self._drop(tuple(self.heads))

    @property
    def hears(self) -> bool:
        """Whether the model still tells what its regions make of a batch, if it has more than one."""
        return not self._closed

    def hear(self, index: int, given: Tensor) -> None:
        """Note what a region has made of the batch that passes the network now."""
        self._seen[index] = (given, given._version)  # noqa: SLF001 - torch tells changes in place nowhere else

    def loss(self, index: int, logits: Tensor, labels: Tensor, loss: Loss) -> Tensor | None:
        """Return the loss of a region's head on the batch seen last; None where nothing was seen.

        A head that is not there yet is made on the way. Raises ValueError when the network's logits
        are not (n, classes), or the region's output has another n.
        """
        output, version = self._seen.get(index, (None, 0))
        if output is None or output._version != version:  # noqa: SLF001 - the same
            return None
        if index not in self.heads:
            self._make_head(index, output, logits)
        return loss(self.heads[index](output), labels)

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

    def load(self, state: Mapping[int, Mapping[str, Tensor]]) -> None:
        """Have the heads of a state, and no others."""
        self._drop(tuple(self.heads.keys() - state.keys()))
        for index, weights in state.items():
            if index not in self.heads:
                classes, features = weights["weight"].shape
                self._adopt(index, _Head(features, classes))
            self.heads[index].load_state_dict(weights)

    def _make_head(self, index: int, output: Tensor, logits: Tensor) -> None:
        if logits.ndim != _MATRIX or output.shape[:1] != logits.shape[:1]:
            name, made, got = self._regions[index].name, tuple(output.shape), tuple(logits.shape)
            rule = "local_error needs logits (n, classes), and outputs of every region that begin with n as well"
            raise ValueError(f"{rule}, got logits {got} and {made} from {name}; local_error=0 does without")
        features = math.prod(output.shape[1:])
        if output.ndim == _IMAGES:
            features = output.shape[1] * math.prod(min(side, _POOLED) for side in output.shape[2:])
        self._adopt(index, _Head(features, logits.shape[1]))

    def _adopt(self, index: int, head: "_Head") -> None:
        """Let the optimizer step on a head as it steps on the largest parameter of the head's region."""
        largest = max(self._regions[index].parameters, key=Tensor.numel)
        self.heads[index] = head.to(largest.device)
        for settings in self._optimizer.param_groups:
            if any(parameter is largest for parameter in settings["params"]):
                settings["params"] += list(head.parameters())
                if "param_names" in settings:
                    settings["param_names"] += [f"local_error.{index}.{name}" for name, _ in head.named_parameters()]

    def _drop(self, indices: Sequence[int]) -> None:
        """Take heads from the optimizer again, with its state of them."""
        dropped = {id(each): each for index in indices for each in self.heads.pop(index).parameters()}
        for settings in self._optimizer.param_groups:
            settings["params"] = [each for each in settings["params"] if id(each) not in dropped]
            if "param_names" in settings:
                settings["param_names"] = settings["param_names"][: len(settings["params"])]
        for parameter in dropped.values():
            self._optimizer.state.pop(parameter, None)


def annealed(local_error: float, anneal: float, done: float) -> float:
    """Return α after a share `done` of training: constant at first, falling to 0 over the last share `anneal`."""
    return local_error * min(1.0, (1 - done) / anneal) if anneal else local_error


def mixed(backward: Gradients, local: Gradients, local_error: float, scale: Scale) -> Gradients:
    """Return (1 - α)·b + α·s·e in the tensors given; s is 1, or the clipped ‖b‖/‖e‖ for `norm`.

    A term whose weight is 0 is not evaluated, so that what is not finite in it does no harm.
    """
    if tensors := present(local):
        torch._foreach_mul_(tensors, local_error * _strength(backward, local, scale))
    if local_error == 1:
        return local
    if tensors := present(backward):
        torch._foreach_mul_(tensors, 1 - local_error)
    return added(backward, local)


def _strength(backward: Gradients, local: Gradients, scale: Scale) -> float:
    if scale == "none":
        return 1.0
    (ours, theirs) = square_norms([backward, local])
    if not (ours and theirs):
        return 1.0
    return min(max(math.sqrt(ours / theirs), 1 / _STRONGEST), _STRONGEST)


@final
class _Listener:
    """A hook that tells what a module is given; deaf on copies of the module, and when nobody asks any more."""

    def __init__(self, told: LocalErrors, entry: nn.Module, index: int) -> None:
        self._told, self._entry, self._index = weakref.ref(told), weakref.ref(entry), index

    def __call__(self, module: nn.Module, inputs: tuple[object, ...], named: dict[str, Any]) -> None:
        told = self._told()
        given = next((each for each in (*inputs, *named.values()) if isinstance(each, Tensor)), None)
        if told is None or given is None or module is not self._entry():
            return
        if module.training and torch.is_grad_enabled() and given.requires_grad:
            told.hear(self._index, given)

    def __reduce__(self) -> tuple[Callable[[], object], tuple[()]]:
        return _deaf_listener, ()


def _deaf_listener() -> Callable[..., None]:
    return _hear_nothing


def _hear_nothing(*_: object) -> None:
    """Stand where a copy of a model has a hook of the original."""


@final
class _Head(nn.Module):
    """Average pooling of images to at most 4x4, and one linear layer that begins at zero, in float32."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(classes, features))
        self.bias = nn.Parameter(torch.zeros(classes))

    def forward(self, output: Tensor) -> Tensor:
        output = output.float()
        if output.ndim == _IMAGES:
            height, width = output.shape[2:]
            output = nn.functional.adaptive_avg_pool2d(output, (min(height, _POOLED), min(width, _POOLED)))
        return nn.functional.linear(output.flatten(1), self.weight, self.bias)
