"""Networks: a data set's name, a seed and a folder in, the data and the dense network to compress out, trained once."""

import json
import time
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torchvision.io import decode_jpeg

from beats_search.datasets.mnist import Mnist
from beats_search.records.part import Part
from beats_search.records.plan import AugmentationPlan, TrainingPlan, TrialPlan
from beats_search.tensors.data import DataBundle, Split, standardize_by
from beats_search.training.fit import fit
from beats_search.trial.recipe import build_model, stage_seed
from throughput_files import find_files, unpacked

WIDTH: Final = 32
SGD: Final = Part(name="sgd", settings=(("momentum", 0.9), ("nesterov", True), ("weight_decay", 5e-4)))
TRAINING: Final = {
    "mnist": TrainingPlan(
        epochs=3,
        batch_size=128,
        optimizer=SGD,
        lr=0.1,
        schedule=Part(name="one_cycle"),
        augmentation=AugmentationPlan(shift=2),
        device="cpu",
    ),
    "cifar10": TrainingPlan(
        epochs=15,
        batch_size=64,
        optimizer=SGD,
        lr=0.1,
        schedule=Part(name="one_cycle"),
        augmentation=AugmentationPlan(shift=4, flip=True),
        device="cpu",
    ),
}
"""How the dense networks are trained, and how their compressed ones recover."""

CYCLES: Final = {"mnist": ((3, 1.0),), "cifar10": ((15, 1.0), (15, 0.5), (8, 0.25))}
"""The dense networks are trained so many times in a row: epochs, and shares of the rate (Loshchilov & Hutter 2017)."""

_VALIDATION: Final = {"mnist": 10_000, "cifar10": 5_000}


@cache
def load(dataset: str, folder: Path) -> DataBundle:
    """Return a data set from `folder`; the test split is the published one."""
    if dataset == "mnist":
        with unpacked(find_files(folder)) as root:
            return Mnist(root=str(root)).load()
    train, test = (_jpegs(folder / "cifar10-jpeg" / f"{part}.npz") for part in ("train", "test"))
    order = torch.randperm(len(train), generator=Generator().manual_seed(0))  # the files are sorted by class
    held = order[: _VALIDATION[dataset]]
    rest = order[_VALIDATION[dataset] :]
    shown = Split(inputs=train.inputs[rest], labels=train.labels[rest])
    names = "airplane automobile bird cat deer dog frog horse ship truck"
    return DataBundle(
        train=shown,
        validation=Split(inputs=train.inputs[held], labels=train.labels[held]),
        test=test,
        classes=tuple(names.split()),
        preprocess=standardize_by(shown),
    )


def plan_of(dataset: str, seed: int, width: int = WIDTH) -> TrialPlan:
    """Return the plan of the dense network."""
    model = Part(name="resnet", settings=(("width", width),))
    return TrialPlan(dataset=Part(name=dataset), model=model, training=TRAINING[dataset], seed=seed)


def dense(dataset: str, seed: int, data: Path, work: Path, width: int = WIDTH) -> nn.Module:
    """Return the dense network, trained now or by an earlier call with the same folder `work`."""
    plan, bundle = plan_of(dataset, seed, width), load(dataset, data)
    model, folder = build_model(plan, bundle), work / f"{dataset}-{seed}-{width}"
    for number, (epochs, share) in enumerate(CYCLES[dataset]):
        file = folder / f"dense-{number}.pt"
        if not file.exists():
            training = replace(plan.training, epochs=epochs, lr=share * plan.training.lr)
            _train(model, bundle, training, stage_seed(plan, "training") + number, file)
        model.load_state_dict(torch.load(file, weights_only=True))
    return model.eval()


def _train(model: nn.Module, bundle: DataBundle, training: TrainingPlan, seed: int, file: Path) -> None:
    began = time.perf_counter()
    trained = fit(model, bundle, training, seed=seed)
    file.parent.mkdir(parents=True, exist_ok=True)
    told = {"seconds": time.perf_counter() - began, "validation": [score.accuracy for score in trained.curve]}
    file.with_suffix(".json").write_text(json.dumps(told))
    aside = file.with_suffix(".part")
    torch.save(trained.model.state_dict(), aside)
    aside.rename(file)


def _jpegs(file: Path) -> Split:
    """Return all images of a file, uint8 (n, 3, 32, 32), with their labels."""
    packed = np.load(file)
    jpeg, offsets = torch.from_numpy(packed["jpeg"]), packed["offsets"].tolist()
    images: list[Tensor] = [decode_jpeg(jpeg[start:end]) for start, end in pairwise(offsets)]
    return Split(inputs=torch.stack(images), labels=torch.from_numpy(packed["labels"]).long())
