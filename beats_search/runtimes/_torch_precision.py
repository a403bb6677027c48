"""Precision: a float model in, one whose heavy layers compute in fewer bits out; float inputs and logits as before."""

from collections.abc import Mapping
from typing import Any, Final, final

import torch
from torch import Tensor, nn

PRECISIONS: Final[Mapping[str, torch.dtype]] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
"""Names of precisions, as `executed_as` tells them, and what they are in torch."""


def in_precision(model: nn.Module, precision: str) -> nn.Module:
    """Convert the layers with weight matrices, in place, and return the model from float inputs to float logits.

    Norms keep their statistics and scales in fp32, and so does the preprocessing, which has no
    weights: a raw column of a table may not fit into 8 bits. Integer grids stay as they are.
    """
    dtype = PRECISIONS[precision]
    if dtype == torch.float32:
        return model
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        if any(weight.dim() > 1 for weight in own):
            for weight in own:
                weight.data = weight.data.to(dtype)
            module.register_forward_pre_hook(_Cast(dtype), with_kwargs=True)
        elif own and not isinstance(module, nn.modules.batchnorm._BatchNorm):  # noqa: SLF001 - has no public name
            module.register_forward_pre_hook(_Cast(torch.float32), with_kwargs=True)
    return _FloatLogits(model)


@final
class _Cast:
    """Hands a module its float arguments in the precision of its weights; batch norms take any."""

    def __init__(self, dtype: torch.dtype) -> None:
        self._dtype = dtype

    def __call__(
        self, _: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return tuple(self._cast(value) for value in arguments), {
            name: self._cast(value) for name, value in named.items()
        }

    def _cast(self, value: object) -> object:
        return value.to(self._dtype) if isinstance(value, Tensor) and value.is_floating_point() else value


@final
class _FloatLogits(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.model(inputs)
        return logits.float()
