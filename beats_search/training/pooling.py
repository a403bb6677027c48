"""Pooling: a network in, the same function out, with activations computed after pooling and not before.

The largest of some values goes through a ReLU just as the values themselves would, to the bit and with
the same gradient, but there are fewer of them: a quarter for the usual window. It saves about a tenth
of a training step of a small convolutional network on a CPU. For training only: runtimes fuse a ReLU
that follows its convolution.
"""

from itertools import pairwise

from torch import nn


def pool_first(model: nn.Module) -> None:
    """Let each ReLU right before a MaxPool2d of a Sequential come after it, in place; names and parameters stay.

    Only where nobody looks at the ReLU's output: within Sequentials that are the model itself or
    children of such, and without hooks.
    """
    for sequence in _sequences(model).values():
        children = _children(sequence)
        names = list(children)
        for first, second in pairwise(range(len(names))):
            if _commute(children[names[first]], children[names[second]]):
                names[first], names[second] = names[second], names[first]
        _arrange(sequence, names)


def arrange_as(rearranged: nn.Module, model: nn.Module) -> None:
    """Put the children of every Sequential into the order that they have in `model`, in place."""
    originals = _sequences(model)
    for name, sequence in _sequences(rearranged).items():
        _arrange(sequence, list(_children(originals[name])))


def _sequences(model: nn.Module, name: str = "") -> dict[str, nn.Sequential]:
    """Return, by name, the model and its descendants, as far as each only calls its children one after another."""
    if not isinstance(model, nn.Sequential) or type(model).forward is not nn.Sequential.forward:
        return {}
    found = {name: model}
    for child_name, child in _children(model).items():
        found |= _sequences(child, f"{name}.{child_name}".removeprefix("."))
    return found


def _commute(first: nn.Module, second: nn.Module) -> bool:
    if type(first) is not nn.ReLU or type(second) is not nn.MaxPool2d or second.return_indices:
        return False
    return not any((each._forward_hooks or each._forward_pre_hooks) for each in (first, second))  # noqa: SLF001 - torch tells nowhere else whether somebody listens


def _children(sequence: nn.Sequential) -> dict[str, nn.Module]:
    """Return all children by name; unlike named_children, those too that stand there twice."""
    return dict(zip(iter(sequence._modules), sequence, strict=True))  # noqa: SLF001 - torch tells their names nowhere else


def _arrange(sequence: nn.Sequential, names: list[str]) -> None:
    children = _children(sequence)
    if names != list(children):
        for name in children:
            delattr(sequence, name)
        for name in names:
            sequence.add_module(name, children[name])
