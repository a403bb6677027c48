"""Words: a plan in, one short line that tells it from its neighbours out."""

import math
from collections.abc import Mapping
from typing import Final

from beats_search.records.part import Part, Setting
from beats_search.records.plan import AccumulationPlan, AugmentationPlan, TrainingPlan, TrialPlan

_FULL_BITS: Final = 32
_USUAL_RUNTIME: Final = "onnxruntime"
_USUAL_TEMPERATURE: Final = 4.0
_ALL_LAYERS: Final = ("*",)
_SILENT: Final[Mapping[str, Setting]] = {"activation": "relu", "dropout": 0.0, "beats_layers": 0}
"""Settings of models that go without saying."""


def plan_in_words(plan: TrialPlan) -> str:
    """Return a plan as its model, training and compression, parted by semicolons.

    What does nothing is left out: a window of one, no clipping, a ratio of zero, 32 bits, the usual runtime.
    """
    clauses = [
        part_in_words(plan.model),
        _training(plan.training),
        accumulation_in_words(plan.training.accumulation),
        _regularization(plan.training),
        _augmentation(plan.training.augmentation),
        *(technique_in_words(part) for part in plan.compression),
        runtime_in_words(plan.runtime),
    ]
    return "; ".join(clause for clause in clauses if clause)


def accumulation_in_words(plan: AccumulationPlan) -> str:
    """Return how gradients are accumulated, `window 4, trigger 1.6, local error 0.2`; empty for plain training.

    A window of one leaves a trigger nothing to decide and a sum nothing to add up.
    """
    windowed = plan.window > 1
    triggered = windowed and plan.trigger != "never"
    usual = AccumulationPlan()
    return _joined(
        f"window {plan.window}" if windowed else "",
        f"trigger {_setting(plan.trigger)}" if triggered else "",
        "scope global" if triggered and plan.scope == "global" else "",
        "sum" if windowed and plan.mode == "sum" else "",
        f"top {100 * plan.top_k:.3g} %" if plan.top_k < 1 else "",
        f"local error {plan.local_error:.3g}" if plan.local_error else "",
        f"anneal {plan.anneal:.3g}" if plan.local_error and plan.anneal != usual.anneal else "",
        "scaled to the norm" if plan.local_error and plan.local_scale == "norm" else "",
    )


def part_in_words(part: Part) -> str:
    """Return the name of a part and its settings, `resnet width 32`; what does nothing is left out."""
    settings = ", ".join(
        f"{name} {_setting(value)}" for name, value in part.settings if _SILENT.get(name, ...) != value
    )
    return f"{part.name} {settings}".rstrip()


def technique_in_words(part: Part) -> str:
    """Return a compression technique in short, `channel_pruning 50 %`; empty when it does nothing."""
    match (part.name, dict(part.settings)):
        case ("quantization", {"bits": bits}):
            return _how_quantized(dict(part.settings)) if bits != _FULL_BITS else ""
        case ("channel_pruning" | "magnitude_pruning", {"ratio": int() | float() as ratio}):
            share = f"{part.name} {100 * ratio:.3g} %{_of_which_layers(dict(part.settings).get('layers'))}"
            return _joined(share, _how_pruned(dict(part.settings))) if ratio else ""
    return part_in_words(part)


def runtime_in_words(part: Part) -> str:
    """Return what is unusual about a runtime, `on torch_eager, cuda, in bf16`; empty for the usual one."""
    settings = dict(part.settings)
    device, precision, bits = (settings.get(name) for name in ("device", "precision", "linear_bits"))
    return _joined(
        f"on {part.name}" if part.name != _USUAL_RUNTIME else "",
        str(device) if device not in {None, "cpu"} else "",
        f"in {precision}" if precision not in {None, "fp32"} else "",
        "cuda graphs" if settings.get("cuda_graphs") else "",
        f"linear layers in {bits} bits" if bits not in {None, _FULL_BITS} else "",
    )


def _how_quantized(settings: Mapping[str, Setting]) -> str:
    """Return bits and mode of a quantization, `4 bits, qat`; after training is the usual mode."""
    bits = settings["bits"]
    words = f"{bits} bits" if bits != "mixed" else f"{_setting(settings.get('average_bits', 4.0))} bits on average"
    return _joined(words, "qat" if settings.get("mode") == "qat" else "")


def _of_which_layers(layers: Setting | None) -> str:
    """Return of which layers something is done, ` of conv1, conv2`; empty where that is all of them."""
    chosen = layers if isinstance(layers, tuple) else ()
    return f" of {', '.join(map(str, chosen))}" if chosen and chosen != _ALL_LAYERS else ""


def _how_pruned(settings: Mapping[str, Setting]) -> str:
    """Return what is unusual about a pruning, `taylor, global, 3 steps, distillation 0.5`."""
    criterion, steps = settings.get("criterion", "magnitude"), settings.get("steps", 1)
    distillation, temperature = settings.get("distillation", 0), settings.get("temperature", _USUAL_TEMPERATURE)
    return _joined(
        str(criterion) if criterion != "magnitude" else "",
        "global" if "global" in (settings.get("ranking"), settings.get("scope")) else "",
        f"{steps} steps" if steps != 1 else "",
        f"distillation {_setting(distillation)}" if distillation else "",
        f"temperature {_setting(temperature)}" if distillation and temperature != _USUAL_TEMPERATURE else "",
    )


def _training(training: TrainingPlan) -> str:
    epochs = "1 epoch" if training.epochs == 1 else f"{training.epochs} epochs"
    return _joined(f"{epochs} of {training.optimizer.name} at lr {training.lr:.3g}", _schedule(training.schedule))


def _schedule(part: Part) -> str:
    match (part.name, dict(part.settings)):
        case ("constant", _):
            return ""
        case ("milestones", {"epochs": tuple() as epochs}):
            return f"milestones at {', '.join(_setting(epoch) for epoch in epochs)}"
    return part.name


def _regularization(training: TrainingPlan) -> str:
    return _joined(
        f"batch norm {training.batch_norm}" if training.batch_norm != "as_built" else "",
        f"label smoothing {training.label_smoothing:.3g}" if training.label_smoothing else "",
        f"clip {training.clip:.3g}" if training.clip else "",
        f"ema {_near_one(training.ema)}" if training.ema else "",
    )


def _near_one(decay: float) -> str:
    """Return a decay with 3 significant digits of what it lacks to 1: 0.9995 is not 1."""
    return str(round(decay, 2 - math.floor(math.log10(1 - decay))))


def _augmentation(plan: AugmentationPlan) -> str:
    return _joined(
        f"shifted by {plan.shift} px" if plan.shift else "",
        "flipped" if plan.flip else "",
        f"rotated by {plan.rotation:g}°" if plan.rotation else "",
    )


def _joined(*clauses: str) -> str:
    return ", ".join(clause for clause in clauses if clause)


def _setting(value: Setting) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(_setting(item) for item in value)})"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
