"""Lightning's Trainer, set up for speed: a task in, a trained network's accuracy out.

As its documentation advises: no logger, checkpoints, progress bar or sanity check, workers that
persist, evaluation in inference mode (its default). One leg goes further and indexes tensors by the batch.
"""

from collections.abc import Callable

import lightning
from torch import Tensor, nn, optim
from torch.nn import functional
from torch.utils.data import BatchSampler, DataLoader, TensorDataset
from torchvision import datasets

from throughput_records import BATCH, LR, TRAINING_IMAGES, LightningLoop, Task
from throughput_source import (
    MEAN,
    STD,
    VALIDATION_BATCH,
    Batches,
    Order,
    read_published,
    training_batches,
    validation_batches,
)
from throughput_stopwatch import Stopwatch


def prepare_lightning(task: Task, loop: LightningLoop) -> Callable[[nn.Module, Stopwatch], float]:
    """Read the data, and return the training to time: a network and a watch in, its validation accuracy out."""
    published = read_published(task.folder)

    def train(network: nn.Module, watch: Stopwatch) -> float:
        batches, held_out = _tensor_batches(published, task) if loop.tensors else _image_batches(published, task, loop)
        trainer = _trainer(task, loop, watch)
        trainer.fit(_Classifier(network), batches, held_out)
        return float(trainer.callback_metrics["accuracy"])

    return train


class _Classifier(lightning.LightningModule):  # type: ignore[misc]  # followed as Any: it is an extra
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        images, labels = batch
        return functional.cross_entropy(self.network(images), labels)

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        images, labels = batch
        right = (self.network(images).argmax(1) == labels).float().mean()
        self.log("accuracy", right, batch_size=len(labels))

    def configure_optimizers(self) -> optim.Optimizer:
        return optim.Adam(self.parameters(), lr=LR)


class _Timing(lightning.Callback):  # type: ignore[misc]  # the same
    def __init__(self, watch: Stopwatch) -> None:
        self._watch = watch

    def on_validation_start(self, *_: object) -> None:
        self._watch.switch("validation")

    def on_validation_end(self, *_: object) -> None:
        self._watch.switch("training")


def _trainer(task: Task, loop: LightningLoop, watch: Stopwatch) -> lightning.Trainer:
    return lightning.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=task.epochs,
        precision=loop.precision,
        callbacks=[_Timing(watch)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )


def _image_batches(published: datasets.MNIST, task: Task, loop: LightningLoop) -> tuple[Batches, Batches]:
    return training_batches(published, task, loop.workers), validation_batches(published, loop.workers)


def _tensor_batches(published: datasets.MNIST, task: Task) -> tuple[Batches, Batches]:
    inputs = published.data.unsqueeze(1).float().div_(255).sub_(MEAN).div_(STD)
    train = TensorDataset(inputs[: task.images], published.targets[: task.images])
    held_out = TensorDataset(inputs[TRAINING_IMAGES:], published.targets[TRAINING_IMAGES:])
    order = BatchSampler(Order(task.images, task.seed), BATCH, drop_last=False)
    in_turn = BatchSampler(range(len(held_out)), VALIDATION_BATCH, drop_last=False)
    return (
        DataLoader(train, sampler=order, batch_size=None),
        DataLoader(held_out, sampler=in_turn, batch_size=None),
    )
