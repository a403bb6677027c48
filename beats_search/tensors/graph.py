"""Graph: a module in, the same computation as a graph of named nodes out, batch norms folded in."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from beats_search.records.errors import TrialError

Layer: TypeAlias = nn.Conv2d | nn.Linear
Norm: TypeAlias = nn.BatchNorm1d | nn.BatchNorm2d


def traced(model: nn.Module) -> fx.GraphModule:
    """Return the graph of a model in eval mode, without its Identities; the argument stays as it is.

    Raises TrialError when the computation depends on the data, so that no graph exists.
    """
    try:
        return _without_identities(fx.symbolic_trace(model.eval()))
    except Exception as error:  # tracing runs the user's code, which may raise anything
        raise TrialError(f"the model has no static graph (torch.fx): {error}") from error


def fold_batch_norms(model: fx.GraphModule) -> fx.GraphModule:
    """Fold every batch norm that directly follows a convolution or linear layer into it, in place.

    A layer or a norm that is called more than once stays as it is: what fits one call breaks another.
    """
    return merge_batch_norms(model, _folded)


def merge_batch_norms(model: fx.GraphModule, merged: Callable[[Layer, Norm], nn.Module]) -> fx.GraphModule:
    """Put what `merged` makes of them in the place of every layer and the batch norm that directly follows, in place.

    A layer or a norm that is called more than once stays as it is: what fits one call breaks another.
    """
    modules = dict(model.named_modules())
    calls = Counter(node.target for node in model.graph.nodes if node.op == "call_module")
    for node in list(model.graph.nodes):
        source = node.args[0] if node.args else None
        if not isinstance(source, fx.Node) or len(source.users) > 1:
            continue
        if max(calls[source.target], calls[node.target]) > 1:
            continue
        pair = _layer_and_norm(module_of(source, modules), module_of(node, modules))
        if pair is not None:
            both = merged(*pair)
            model.delete_submodule(str(node.target))
            model.set_submodule(str(source.target), both)
            modules[str(source.target)] = both
            node.replace_all_uses_with(source)
            model.graph.erase_node(node)
    model.delete_all_unused_submodules()
    model.recompile()
    return model


def module_of(node: fx.Node, modules: Mapping[str, nn.Module]) -> nn.Module | None:
    """Return the module that a node calls, None for other nodes."""
    return modules.get(str(node.target)) if node.op == "call_module" else None


def tensor_shapes(model: fx.GraphModule, example: Tensor) -> dict[fx.Node, torch.Size]:
    """Run the model on an example and return the shape at every node that yields a float tensor."""
    recorder = _Recorder(model)
    with torch.inference_mode():
        recorder.run(example)
    return recorder.shapes


def _without_identities(model: fx.GraphModule) -> fx.GraphModule:
    """Let what follows an Identity follow what comes before it, in place: two layers are fused only side by side."""
    modules = dict(model.named_modules())
    for node in list(model.graph.nodes):
        if isinstance(module_of(node, modules), nn.Identity):
            node.replace_all_uses_with(node.all_input_nodes[0])
            model.graph.erase_node(node)
    model.delete_all_unused_submodules()
    model.recompile()
    return model


def _layer_and_norm(layer: nn.Module | None, norm: nn.Module | None) -> tuple[Layer, Norm] | None:
    if not isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d) or norm.running_mean is None:
        return None  # without running statistics a norm depends on the batch
    if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
        return layer, norm
    return (layer, norm) if isinstance(layer, nn.Linear) and isinstance(norm, nn.BatchNorm1d) else None


def _folded(layer: Layer, norm: Norm) -> nn.Module:
    if isinstance(layer, nn.Linear):
        return fuse_linear_bn_eval(layer, norm)
    return fuse_conv_bn_eval(layer, norm)


class _Recorder(fx.Interpreter):
    def __init__(self, model: fx.GraphModule) -> None:
        super().__init__(model)
        self.shapes: dict[fx.Node, torch.Size] = {}

    def run_node(self, n: fx.Node) -> Any:  # noqa: ANN401 - fixed by fx.Interpreter
        result = super().run_node(n)
        if n.op != "output" and isinstance(result, Tensor) and result.is_floating_point():
            self.shapes[n] = result.shape
        return result
