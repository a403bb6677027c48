"""Batch norm: a network in, the same network with batch norms after its layers, or without any, out."""

from copy import deepcopy
from itertools import pairwise
from typing import Final, Literal

from torch import nn

_NORMS: Final = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def with_batch_norm(network: nn.Module, choice: Literal["as_built", "added", "removed"]) -> nn.Module:
    """Return the network as its plan wants it normalized: a copy, or the network itself if nothing changes.

    `added` puts a norm after every Conv2d and Linear but the last that stands in a Sequential or a
    Beats layer, unless the next one in the order of definition is a norm: the child after `<name>`
    is `<name>_norm`. Raises ValueError when that leaves the network without any batch norm.

    `removed` is meant for networks that are about to be trained from the start: it puts an Identity
    in the place of every batch norm, whose statistics and scales are lost, and gives every Conv2d
    and Linear without a bias one of zeros, since it was the norms that shifted.
    """
    match choice:
        case "as_built":
            return network
        case "added":
            return _added(network)
        case "removed":
            return _removed(network)


def _added(network: nn.Module) -> nn.Module:
    normalized = deepcopy(network)
    bare = _bare_layers(normalized)
    changed = [_insert_norms(module, bare) for module in list(normalized.modules()) if _runs_in_order(module)]
    if any(changed):
        return normalized
    if not _norms(network):
        raise ValueError(
            "batch_norm: added found no place for a batch norm: it follows each Conv2d and Linear but the last "
            "that stands in a torch.nn.Sequential or a Beats layer; write the layers so, or use as_built"
        )
    return network


def _bare_layers(network: nn.Module) -> set[nn.Module]:
    """Return all layers that no norm follows, but the last, whose outputs are the logits."""
    leaves = [module for module in network.modules() if not list(module.children())]
    layers: list[nn.Module] = [leaf for leaf in leaves if isinstance(leaf, nn.Conv2d | nn.Linear)]
    normalized = {leaf for leaf, after in pairwise(leaves) if isinstance(after, _NORMS)}
    return set(layers[:-1]) - normalized


def _runs_in_order(module: nn.Module) -> bool:
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def _insert_norms(sequence: nn.Module, bare: set[nn.Module]) -> bool:
    """Put a norm after each of these layers in a sequence, in place; return whether there was any."""
    children = [
        (name, child) for name, child in sequence.named_modules(remove_duplicate=False) if name and "." not in name
    ]
    if bare.isdisjoint(child for _, child in children):
        return False
    for name, _ in children:
        delattr(sequence, name)
    for name, child in children:
        sequence.add_module(name, child)
        if child in bare:
            sequence.add_module(f"{name}_norm", _norm_after(child))
    return True


def _norm_after(layer: nn.Module) -> nn.Module:
    match layer:
        case nn.Conv2d(out_channels=width):
            return nn.BatchNorm2d(width, device=layer.weight.device, dtype=layer.weight.dtype)
        case nn.Linear(out_features=width):
            return nn.BatchNorm1d(width, device=layer.weight.device, dtype=layer.weight.dtype)
    raise TypeError(f"a layer to normalize is a Conv2d or a Linear, got {type(layer).__name__}")


def _removed(network: nn.Module) -> nn.Module:
    if not _norms(network):
        return network
    bare = deepcopy(network)
    for name in _norms(bare):
        bare.set_submodule(name, nn.Identity())
    for layer in bare.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear) and layer.bias is None:
            layer.bias = nn.Parameter(layer.weight.new_zeros(len(layer.weight)))
    return bare


def _norms(network: nn.Module) -> list[str]:
    return [name for name, module in network.named_modules(remove_duplicate=False) if isinstance(module, _NORMS)]
