"""The loop of the source texts: torchvision's MNIST and a task in, a trained network's accuracy out."""

from collections.abc import Callable, Iterator
from typing import Any, Final, final

import torch
from torch import Generator, Tensor, nn, optim
from torch.utils.data import DataLoader, Sampler
from torchvision import datasets, transforms

from throughput_records import BATCH, LR, TRAINING_IMAGES, VALIDATION_IMAGES, SourceLoop, Task
from throughput_stopwatch import Stopwatch

Batches = DataLoader[Any]

MEAN: Final = 0.1307
STD: Final = 0.3081
VALIDATION_BATCH: Final = 1000


def prepare_source(task: Task, loop: SourceLoop) -> Callable[[nn.Module, Stopwatch], float]:
    """Read the data, and return the training to time: a network and a watch in, its validation accuracy out."""
    published = read_published(task.folder)

    def train(network: nn.Module, watch: Stopwatch) -> float:
        batches = training_batches(published, task, loop.workers)
        held_out = validation_batches(published, loop.workers)
        optimizer = optim.Adam(network.parameters(), lr=LR)
        accuracy = 0.0
        for _ in range(task.epochs):
            watch.switch("training")
            _train_epoch(network, batches, optimizer)
            watch.switch("validation")
            accuracy = _accuracy(network, held_out)
        return accuracy

    return train


@final
class Order(Sampler[int]):
    """The order in which `fit` deals the images, epoch after epoch, for everybody else."""

    def __init__(self, count: int, seed: int) -> None:
        self._count = count
        self._generator = Generator().manual_seed(seed)

    def __iter__(self) -> Iterator[int]:
        """Return the indices of the next epoch."""
        return iter(torch.randperm(self._count, generator=self._generator).tolist())

    def __len__(self) -> int:
        return self._count


def read_published(folder: str) -> datasets.MNIST:
    """Return the 60,000 published training images, which become standardized floats one at a time."""
    steps = transforms.Compose([transforms.ToTensor(), transforms.Normalize((MEAN,), (STD,))])
    return datasets.MNIST(folder, train=True, transform=steps)


def training_batches(published: datasets.MNIST, task: Task, workers: int) -> Batches:
    """Return the task's training images in shuffled batches."""
    order = Order(task.images, task.seed)
    return DataLoader(published, BATCH, sampler=order, num_workers=workers, persistent_workers=workers > 0)


def validation_batches(published: datasets.MNIST, workers: int) -> Batches:
    """Return the validation split, the last of the published training images, in large batches."""
    held_out = range(TRAINING_IMAGES, TRAINING_IMAGES + VALIDATION_IMAGES)
    return DataLoader(
        published, VALIDATION_BATCH, sampler=held_out, num_workers=workers, persistent_workers=workers > 0
    )


def _train_epoch(network: nn.Module, batches: Batches, optimizer: optim.Optimizer) -> None:
    network.train()
    criterion = nn.CrossEntropyLoss()
    for images, labels in batches:
        optimizer.zero_grad()
        loss = criterion(network(images), labels)
        loss.backward()
        optimizer.step()


def _accuracy(network: nn.Module, held_out: Batches) -> float:
    network.eval()
    correct = 0
    with torch.no_grad():
        for images, labels in held_out:
            logits: Tensor = network(images)
            correct += int((logits.argmax(1) == labels).sum())
    return correct / VALIDATION_IMAGES
