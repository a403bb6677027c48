"""Every data set on the shelf keeps one contract; files are read as they were published."""

import gzip
import pickle
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torchvision.datasets import cifar

from beats_search import plugins
from beats_search.datasets import digits
from beats_search.datasets._published import read_mnist_family
from beats_search.datasets.cifar10 import Cifar10
from beats_search.datasets.digits import Digits
from beats_search.datasets.fashion_mnist import FashionMnist
from beats_search.datasets.mnist import Mnist
from beats_search.records.part import Part
from beats_search.tensors.data import DataBundle, Split, to_float

TRAIN, TEST = 10_025, 20
SHELF = {
    "digits": {},
    "mnist": {"root": "mnist"},
    "fashion_mnist": {"root": "fashion"},
    "cifar10": {"root": "cifar"},
}


def idx(values: Tensor) -> bytes:
    """Return the bytes of an IDX file."""
    return (
        b"\x00\x00\x08" + bytes([values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape) + bytes(values.numpy())
    )


def images(count: int) -> Tensor:
    """Return images of 4x4 pixels, each full of its own number modulo 256."""
    return (torch.arange(count) % 256).to(torch.uint8).reshape(-1, 1, 1).expand(-1, 4, 4).contiguous()


def labels(count: int) -> Tensor:
    """Return labels that run through ten classes."""
    return (torch.arange(count) % 10).to(torch.uint8)


def write_mnist(folder: Path, *, packed: bool) -> None:
    """Write a tiny MNIST: published files, but for fewer and smaller images."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, count in (("train", TRAIN), ("t10k", TEST)):
        for stem, values in (
            (f"{part}-images-idx3-ubyte", images(count)),
            (f"{part}-labels-idx1-ubyte", labels(count)),
        ):
            content = idx(values)
            path = folder / (f"{stem}.gz" if packed else stem)
            path.write_bytes(gzip.compress(content, 1) if packed else content)


def write_cifar(folder: Path) -> None:
    """Write a tiny CIFAR-10: the first pixel of each image is its number modulo 256, in red."""
    folder.mkdir(parents=True)
    for name, count in (*((f"data_batch_{part}", TRAIN // 5) for part in range(1, 6)), ("test_batch", TEST)):
        pixels = np.zeros((count, 3072), dtype=np.uint8)
        pixels[:, 0] = np.arange(count) % 256
        (folder / name).write_bytes(pickle.dumps({"data": pixels, "labels": labels(count).tolist()}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Hold tiny copies of all published data sets; checksums of theirs are taken as right."""
    folder = tmp_path_factory.mktemp("published")
    write_mnist(folder / "mnist" / "MNIST" / "raw", packed=False)
    write_mnist(folder / "fashion", packed=True)
    write_cifar(folder / "cifar" / "cifar-10-batches-py")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cifar, "check_integrity", lambda path, _checksum: Path(path).is_file())
        yield folder


def load(name: str, home: Path) -> DataBundle:
    """Load a data set by its name, its root inside `home`."""
    settings = {key: str(home / value) for key, value in SHELF[name].items()}
    bundle: DataBundle = plugins.make("datasets", Part(name=name, settings=tuple(settings.items()))).load()
    return bundle


def test_every_data_set_is_tested() -> None:
    """A new file on the shelf comes with an entry here; tables, which are no images, have tests of their own."""
    assert set(plugins.names("datasets")) == {*SHELF, "csv"}


@pytest.mark.parametrize("name", SHELF)
def test_inputs_are_images_from_zero_to_one(name: str, home: Path) -> None:
    """All splits hold images (n, channels, height, width) of one shape within [0, 1]."""
    data = load(name, home)
    for split in (data.train, data.validation, data.test):
        assert split.inputs.ndim == 4
        assert tuple(split.inputs.shape[1:]) == data.input_shape
        assert split.inputs.dtype in {torch.uint8, torch.float32}
        assert float(to_float(split.inputs).min()) >= 0
        assert float(to_float(split.inputs).max()) <= 1


@pytest.mark.parametrize("name", SHELF)
def test_every_label_has_a_named_class(name: str, home: Path) -> None:
    """All ten classes are named, by different names, and occur in training."""
    data = load(name, home)
    assert len(set(data.classes)) == len(data.classes) == 10
    assert sorted(set(data.train.labels.tolist())) == list(range(10))


@pytest.mark.parametrize("name", SHELF)
def test_preprocessing_standardizes_the_training_split(name: str, home: Path) -> None:
    """The preprocessing brings training images to mean 0, and to deviation 1 where they vary at all."""
    data = load(name, home)
    outputs = data.preprocess(to_float(data.train.inputs))
    for channel in range(outputs.shape[1]):
        assert float(outputs[:, channel].mean()) == pytest.approx(0, abs=1e-4)
        assert float(outputs[:, channel].std()) in (pytest.approx(1, abs=1e-3), 0)


@pytest.mark.parametrize("where", ["datasets/data/digits.csv.gz", "nowhere"])
def test_digits_are_split_in_the_published_order(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last 360 images test, the 288 before validate, 1,149 train, wherever scikit-learn has its file."""
    monkeypatch.setattr(digits, "_FILE", where)
    data, published = Digits().load(), load_digits()
    assert [len(split) for split in (data.train, data.validation, data.test)] == [1149, 288, 360]
    joined = torch.cat([split.inputs for split in (data.train, data.validation, data.test)]).squeeze(1)
    assert np.array_equal(joined.numpy() * 16, published.images)
    assert data.test.labels.tolist() == published.target[-360:].tolist()


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10"])
def test_validation_is_the_end_of_the_published_training_set(name: str, home: Path) -> None:
    """The last 10,000 training images validate, those before train, the published test set tests."""
    data = load(name, home)
    assert [len(split) for split in (data.train, data.validation, data.test)] == [TRAIN - 10_000, 10_000, TEST]
    first_validation = (TRAIN - 10_000) % 256
    assert data.validation.inputs[0].max() == first_validation


def test_packed_and_unpacked_files_are_one_data_set(home: Path) -> None:
    """Files directly in the root, packed with gzip, read as unpacked ones where torchvision puts them."""
    unpacked, packed = Mnist(root=str(home / "mnist")).load(), FashionMnist(root=str(home / "fashion")).load()
    assert torch.equal(unpacked.train.inputs, packed.train.inputs)
    assert torch.equal(unpacked.test.labels, packed.test.labels)


def test_cifar_keeps_its_colours_apart(home: Path) -> None:
    """Pixels stay in the channel in which they were published."""
    test = Cifar10(root=str(home / "cifar")).load().test
    assert test.inputs.shape == (TEST, 3, 32, 32)
    assert test.inputs[:, 0, 0, 0].tolist() == list(range(TEST))
    assert int(test.inputs[:, 1:].sum()) == 0


@pytest.mark.parametrize(("family", "root"), [(Mnist, "mnist"), (FashionMnist, "fashion"), (Cifar10, "cifar")])
def test_a_limit_keeps_the_first_training_images_only(
    family: type[Mnist | FashionMnist | Cifar10], root: str, home: Path
) -> None:
    """`limit` shortens the training split and nothing else; more than there are is all."""
    limited, whole = family(root=str(home / root), limit=15).load(), family(root=str(home / root), limit=99_999).load()
    assert torch.equal(limited.train.inputs, whole.train.inputs[:15])
    assert len(whole.train) == TRAIN - 10_000
    assert torch.equal(limited.validation.inputs, whole.validation.inputs)


@pytest.mark.parametrize("family", [Mnist, FashionMnist, Cifar10])
def test_a_limit_of_nothing_is_refused(family: type[Mnist | FashionMnist | Cifar10]) -> None:
    """A limit below 1 is a mistake of the space."""
    with pytest.raises(ValueError, match="limit needs to be at least 1 training image, got 0"):
        family(limit=0)


@pytest.mark.parametrize("family", [Mnist, FashionMnist, Cifar10])
def test_a_missing_file_says_where_it_was_looked_for(
    family: type[Mnist | FashionMnist | Cifar10], tmp_path: Path
) -> None:
    """The error names the absolute folder and the setting that fetches the files."""
    with pytest.raises(FileNotFoundError, match="download: true") as caught:
        family(root=str(tmp_path)).load()
    assert str(tmp_path) in str(caught.value)


def test_a_file_that_is_no_idx_file_is_refused(tmp_path: Path) -> None:
    """An HTML page saved as a data file is named as what it is not."""
    write_mnist(tmp_path, packed=False)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(b"<html>")
    with pytest.raises(ValueError, match="train-images-idx3-ubyte is no IDX file"):
        Mnist(root=str(tmp_path)).load()


def test_a_training_set_without_room_for_validation_is_refused(tmp_path: Path) -> None:
    """10,000 training images or fewer would leave none to train on."""
    write_mnist(tmp_path, packed=False)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(images(10_000)))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(labels(10_000)))
    with pytest.raises(ValueError, match="more than 10000 images, got 10000"):
        Mnist(root=str(tmp_path)).load()


@pytest.mark.parametrize("present", [True, False])
def test_a_download_happens_only_for_missing_files(tmp_path: Path, *, present: bool) -> None:
    """`download` asks torchvision for files that are not there, and for no others."""
    asked: list[Path] = []

    class MNIST:
        """Stands in for torchvision's class, whose name is that of the folder."""

        def __init__(self, root: Path, *, download: bool) -> None:
            assert download
            asked.append(root)
            write_mnist(root / "MNIST" / "raw", packed=True)

    if present:
        write_mnist(tmp_path, packed=True)
    train, _ = read_mnist_family(MNIST, str(tmp_path), download=True)
    assert asked == ([] if present else [tmp_path])
    assert isinstance(train, Split)
    assert len(train) == TRAIN


def test_cifar_passes_the_download_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`download` fetches CIFAR-10 through torchvision before it is read."""
    monkeypatch.setattr(cifar, "check_integrity", lambda path, _checksum: Path(path).is_file())
    monkeypatch.setattr(cifar.CIFAR10, "download", lambda self: write_cifar(Path(self.root) / "cifar-10-batches-py"))
    assert len(Cifar10(root=str(tmp_path), download=True).load().test) == TEST
