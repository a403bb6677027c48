"""Words: a plan in, one short line that tells it from its neighbours out."""

from typing import Final

from beats_search.records.part import Part, Setting
from beats_search.records.plan import AugmentationPlan, TrialPlan

_FULL_BITS: Final = 32
_USUAL_RUNTIME: Final = "onnxruntime"


def plan_in_words(plan: TrialPlan) -> str:
    """Return a plan as its model, training and compression, parted by semicolons.

    What does nothing is left out: a window of one, a ratio of zero, 32 bits, the usual runtime.
    """
    clauses = [
        part_in_words(plan.model),
        _training(plan),
        f"window {plan.training.accumulation.window}" if plan.training.accumulation.window > 1 else "",
        _augmentation(plan.training.augmentation),
        *(technique_in_words(part) for part in plan.compression),
        f"on {plan.runtime.name}" if plan.runtime.name != _USUAL_RUNTIME else "",
    ]
    return "; ".join(clause for clause in clauses if clause)


def part_in_words(part: Part) -> str:
    """Return the name of a part and its settings, `resnet width 32`."""
    settings = ", ".join(f"{name} {_setting(value)}" for name, value in part.settings)
    return f"{part.name} {settings}".rstrip()


def technique_in_words(part: Part) -> str:
    """Return a compression technique in short, `channel_pruning 50 %`; empty when it does nothing."""
    match (part.name, dict(part.settings)):
        case ("quantization", {"bits": int() as bits}):
            return f"{bits} bits" if bits < _FULL_BITS else ""
        case ("channel_pruning" | "magnitude_pruning", {"ratio": int() | float() as ratio}):
            return f"{part.name} {100 * ratio:.3g} %" if ratio else ""
    return part_in_words(part)


def _training(plan: TrialPlan) -> str:
    training = plan.training
    epochs = "1 epoch" if training.epochs == 1 else f"{training.epochs} epochs"
    schedule = f", {training.schedule.name}" if training.schedule.name != "constant" else ""
    return f"{epochs} of {training.optimizer.name} at lr {training.lr:.3g}{schedule}"


def _augmentation(plan: AugmentationPlan) -> str:
    shift = f"shifted by {plan.shift} px" if plan.shift else ""
    rotation = f"rotated by {plan.rotation:g}°" if plan.rotation else ""
    return ", ".join(change for change in (shift, "flipped" if plan.flip else "", rotation) if change)


def _setting(value: Setting) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(_setting(item) for item in value)})"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
