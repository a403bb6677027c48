"""Confirming: a plan and a seed in, the accuracy that it reaches when all of it is trained anew out.

Trials of one search share what they trained, and the best of many was lucky; another seed tells by how much.
"""

import tempfile
from dataclasses import replace
from pathlib import Path

from beats_search.measuring.quality import accuracy
from beats_search.measuring.quiet import ALONE, QuietWindow
from beats_search.records.plan import TrialPlan
from beats_search.tensors.data import to_float
from beats_search.training.fit import fit
from beats_search.trial.recipe import build_model, compress, example_of, load_data, recovery, runtime_of, stage_seed


def confirm(plan: TrialPlan, seed: int, window: QuietWindow = ALONE) -> float:
    """Return the validation accuracy of the exported file; nothing stored is used, and nothing is kept.

    Raises whatever training, compression or export raise.
    """
    again = replace(plan, seed=seed)
    data = load_data(again.dataset)
    trained = fit(
        build_model(again, data), data, again.training, seed=stage_seed(again, "training"), pace=window.pace
    ).model
    compressed = compress(trained, again, data, recovery(again, data, window.pace), window)
    with tempfile.TemporaryDirectory() as folder, window.pace():
        runtime = runtime_of(again)
        engine = runtime.deploy(compressed, example_of(data), Path(folder) / f"model{runtime.suffix}")
        return accuracy(engine.logits(to_float(data.validation.inputs)), data.validation.labels)
