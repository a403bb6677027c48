"""Structure: a model in, all that its computation depends on beside the values of its weights out.

Models of equal structure compute the same function of inputs and weights. What depends on nothing
else, such as an exported graph or a latency, is found out once and kept by structure.
"""

import dataclasses
import enum
import functools
import hashlib
import types
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator
from itertools import chain
from typing import Final, Generic, TypeAlias, TypeVar, final

import torch
from torch import Tensor, fx, nn

from beats_search.records.part import Part
from beats_search.tensors.fake_quant import QuantizedConv2d

Structure: TypeAlias = Hashable
T = TypeVar("T")

_ATOMS: Final = (types.NoneType, bool, int, str, bytes, enum.Enum, torch.dtype, torch.device, torch.memory_format)
_SHOWN: Final = (float, complex, slice)  # 0.0 equals -0.0, but divides otherwise
_POINTERS: Final = frozenset({torch.int64, torch.bool})
_LAYERS: Final = frozenset({nn.Conv1d, nn.Conv2d, nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d, QuantizedConv2d})
_SIZES: Final = ("in_channels", "out_channels", "in_features", "out_features", "num_features")
_CHANNELS: Final = 2
_COUNTER: Final = "num_batches_tracked"
_OF_EVERY_MODULE: Final = frozenset(nn.Module().__dict__)
_OF_EVERY_GRAPH: Final = frozenset(fx.GraphModule(nn.Module(), fx.Graph()).__dict__)


def structure_of(model: nn.Module) -> Structure | None:
    """Return what a model is beside its weights: modules, settings, code of graphs, shapes and types of tensors.

    Classes and functions stand for themselves, so a structure is good within its process. None when
    a module holds what cannot be compared, such as hooks or objects of unknown kind. What a forward
    reads from outside of its module, such as a global variable, is not seen.
    """
    return _described(model, _settings, lambda shape: shape)


def family_of(model: nn.Module) -> Structure | None:
    """Return the structure without the sizes of its layers: all widths of one network are a family.

    Kernels, strides and the like stay, and so do sizes of 1. What a forward makes of a size that it
    reads from a tensor is not seen.
    """
    return _described(model, _settings_without_sizes, _kernel)


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """Return the parameters and buffers by name whose values are no part of the structure.

    Those of type int64 and bool are: they point into other tensors or choose among them.
    """
    return {name: tensor for name, tensor in _state(model) if tensor.dtype not in _POINTERS}


def name_of(found: Hashable) -> str | None:
    """Return a name of a structure, or of what is made of some, that it has in all processes of a run.

    Classes and functions go by where they are defined. None when one of them has no name of its own there.
    """
    try:
        return hashlib.sha256("\n".join(_named(found)).encode()).hexdigest()
    except _UnknownError:
        return None


@final
class Known(Generic[T]):
    """What has been found out by structure, or any other key; of more than `most`, the least recently used go."""

    def __init__(self, most: int) -> None:
        """Begin with nothing."""
        self._most = most
        self._found: OrderedDict[Hashable | None, T] = OrderedDict()

    def __len__(self) -> int:
        """Return the number of keys."""
        return len(self._found)

    def found(self, key: Hashable | None, find: Callable[[], T], *, keep: Callable[[T], bool] = lambda _: True) -> T:
        """Return what is known by a key, or else find it; keep it where the key is not None and `keep` agrees."""
        if key in self._found:
            self._found.move_to_end(key)
            return self._found[key]
        new = find()
        if key is not None and keep(new):
            self._found[key] = new
        while len(self._found) > self._most:
            self._found.popitem(last=False)
        return new


class _UnknownError(Exception):
    """Something of which nobody knows whether it changes."""


def _described(
    model: nn.Module, settings: Callable[[nn.Module], dict[str, object]], shape: Callable[[torch.Size], Hashable]
) -> Structure | None:
    try:
        modules = tuple(
            (name, _module(module, settings(module))) for name, module in model.named_modules(remove_duplicate=False)
        )
        return modules, tuple(_tensors(model, shape))
    except (_UnknownError, RuntimeError):  # torch raises the latter for tensors that are not plain ones
        return None


def _state(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


def _tensors(model: nn.Module, shape: Callable[[torch.Size], Hashable]) -> Iterator[Hashable]:
    """Yield what each tensor is, which of the tensors before it is the same one, and what pointers point to."""
    seen: dict[Hashable, int] = {}
    for name, tensor in _state(model):
        place = (tensor.untyped_storage().data_ptr(), tensor.storage_offset(), tensor.shape, tensor.stride())
        first = seen.setdefault(place if tensor.numel() else name, len(seen))
        fixed = tensor.dtype in _POINTERS and not name.endswith(_COUNTER)
        yield name, type(tensor), shape(tensor.shape), tensor.dtype, first, _content(tensor) if fixed else None


def _kernel(shape: torch.Size) -> Hashable:
    """Return a shape without the sizes of its first two dimensions, unless they are 1."""
    return tuple(size if size == 1 or dimension >= _CHANNELS else None for dimension, size in enumerate(shape))


def _settings(module: nn.Module) -> dict[str, object]:
    return {name: value for name, value in vars(module).items() if name not in _OF_EVERY_MODULE}


def _settings_without_sizes(module: nn.Module) -> dict[str, object]:
    settings = _settings(module)
    if type(module) in _LAYERS:
        for name in _SIZES:
            settings.pop(name, None)
        if getattr(module, "groups", 1) == getattr(module, "out_channels", 0):
            settings["groups"] = "depthwise"
    return settings


def _module(module: nn.Module, settings: dict[str, object]) -> Hashable:
    if module._forward_hooks or module._forward_pre_hooks:  # noqa: SLF001 - torch has no other way to see them
        raise _UnknownError
    if not isinstance(module, fx.GraphModule):
        return type(module), _known(settings)
    for name in _OF_EVERY_GRAPH:
        settings.pop(name, None)
    targets = tuple(_known(node.target) for node in module.graph.nodes)
    return fx.GraphModule, module.code, targets, _known(settings)  # each graph module has a class of its own


def _known(value: object) -> Hashable:
    """Return a value as something that is equal for what is the same; raise where that cannot be told."""
    if isinstance(value, _ATOMS):
        return type(value), value
    if isinstance(value, _SHOWN):
        return type(value), repr(value)
    if isinstance(value, type | types.BuiltinFunctionType | types.FunctionType) and _is_settled(value):
        return value
    parts = _parts(value)
    if parts is None:
        raise _UnknownError
    return type(value), tuple(_known(item) for item in parts)


def _named(value: object) -> Iterator[str]:
    match value:
        case tuple():
            yield f"({len(value)}"
            for item in value:
                yield from _named(item)
        case type() | types.FunctionType() | types.BuiltinFunctionType():
            if "<" in value.__qualname__:
                raise _UnknownError
            yield f"{value.__module__}.{value.__qualname__}"
        case _ if isinstance(value, (*_ATOMS, Part)):
            yield repr(value)
        case _:
            raise _UnknownError


def _is_settled(value: object) -> bool:
    """Tell whether a class or function does the same each time; one that holds variables of another may not."""
    closed = isinstance(value, types.FunctionType) and value.__closure__ is not None
    return not closed or str(value.__module__).startswith("torch.")


def _parts(value: object) -> Iterable[object] | None:
    """Return what makes up a value of its type, None for a type of which that is not known."""
    match value:
        case tuple() | list() | set() | frozenset():
            return value
        case dict():
            return chain.from_iterable(value.items())
        case Tensor():
            return value.shape, value.dtype, _content(value)
        case functools.partial():
            return value.func, value.args, value.keywords
        case _ if dataclasses.is_dataclass(value):
            return [getattr(value, field.name, None) for field in dataclasses.fields(value)]
    return None


def _content(tensor: Tensor) -> bytes:
    """Return the values of a tensor, bit by bit."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
