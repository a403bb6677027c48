"""Quantization: a float model in, the same model on integer grids out, ready for int8 kernels.

Post-training: ranges are observed on training images, weights get the step of least squared error.
Quantization-aware: from there, steps and weights are trained together (`tensors.learned_quant`).
"""

from dataclasses import dataclass
from typing import ClassVar, Final, Literal, final

from torch import Tensor, nn

from beats_search.compression._conversion import Bits, freeze, learn_grids, quantize
from beats_search.compression._mixed import WIDTHS, mixed_bits
from beats_search.tensors.data import to_float
from beats_search.tensors.seams import Bench

__all__ = ["Quantization"]

_FULL_PRECISION: Final = 32


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Quantization:
    """Integer weights and activations, after training (`ptq`) or learned in `recovery_epochs` more of it (`qat`).

    `bits` are those of the weights, activations have 8; 32 leaves the model as it is. The first and the
    last layer keep 8 bits; `mixed` chooses each layer's bits so that a weight has `average_bits`.
    """

    bits: Literal[32, 8, 6, 4, 3, 2, "mixed"] = 8
    mode: Literal["ptq", "qat"] = "ptq"
    average_bits: float = 4.0
    recovery_epochs: int = 0
    calibration_images: int = 512

    closes: ClassVar[bool] = True
    """Nothing may come after it: the grids fit the weights as they are."""

    def __post_init__(self) -> None:
        """Refuse an observation of nothing, training that `ptq` does not do, and none where `qat` does."""
        if self.calibration_images < 1:
            raise ValueError(f"calibration_images needs to be at least 1, got {self.calibration_images}")
        if self.mode == "ptq" and self.recovery_epochs:
            rule = "mode: ptq quantizes after training and takes no recovery_epochs; mode: qat does"
            raise ValueError(f"{rule}, got recovery_epochs={self.recovery_epochs}")
        if self.mode == "qat" and self.recovery_epochs < 1:
            raise ValueError(f"mode: qat needs recovery_epochs of at least 1, got {self.recovery_epochs}")
        if not min(WIDTHS) <= self.average_bits <= max(WIDTHS):
            raise ValueError(f"average_bits needs to be between 2 and 8, got {self.average_bits}")

    @property
    def unforeseen(self) -> frozenset[str]:
        """What depends on trained weights: the size, where they choose the bits. Kernels compute in 8 in any case."""
        return frozenset({"size_kb"}) if self.bits == "mixed" else frozenset()

    def apply(self, model: nn.Module, bench: Bench) -> nn.Module:
        """Return a copy of the model on integer grids; raises TrialError when it has no static graph."""
        if self.bits == _FULL_PRECISION:
            return model
        images = self._images(bench)
        bits = self._bits(model, images, bench)
        if self.mode == "ptq":
            return quantize(model, images, bits)
        learned = learn_grids(model, images, bits)
        return freeze(bench.fine_tune(learned, self.recovery_epochs))

    def _bits(self, model: nn.Module, images: Tensor, bench: Bench) -> Bits:
        if self.bits != "mixed":
            return self.bits
        return mixed_bits(quantize(model, images), bench.data.validation, self.average_bits)

    def _images(self, bench: Bench) -> Tensor:
        """Return the training images that ranges are observed on."""
        return to_float(bench.data.train.drawn(self.calibration_images, bench.seed).inputs)
