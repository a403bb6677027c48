"""Published: image files in the form in which they were published, into the splits that a search uses."""

import gzip
import struct
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from beats_search.tensors.data import DataBundle, Split, standardize_by

VALIDATION_IMAGES: Final = 10_000
"""The last images of a published training set; the search judges by them."""

_UNSIGNED_BYTES: Final = b"\x00\x00\x08"
"""How an IDX file of uint8 begins; the next byte is the rank, then one big-endian uint32 per dimension."""


def refuse_limit(limit: int | None) -> None:
    """Raise ValueError unless a limit on the training images leaves some."""
    if limit is not None and limit < 1:
        raise ValueError(f"limit needs to be at least 1 training image, got {limit}")


def read_mnist_family(source: Any, root: str, *, download: bool) -> tuple[Split, Split]:  # noqa: ANN401 - untyped library
    """Return the published training and test set of `source`, a data set class of torchvision.

    The four IDX files lie in `root/<class name>/raw`, where torchvision puts them, or in `root`
    itself; packed (`.gz`) or not. Raises FileNotFoundError when one is missing.
    """
    home = Path(root).expanduser().absolute()
    folders = (home / source.__name__ / "raw", home)
    if download and not all(_find(stem, folders) for stem in _stems("train") + _stems("t10k")):
        source(home, download=True)
    train, test = (_read_pair(source.__name__, part, folders) for part in ("train", "t10k"))
    return train, test


def bundle(published: Split, test: Split, classes: tuple[str, ...], limit: int | None) -> DataBundle:
    """Return a data set whose validation split is the last 10,000 of the published training images.

    `limit` keeps only that many of the images before them.
    """
    count = len(published) - VALIDATION_IMAGES
    if count < 1:
        raise ValueError(f"a training set needs more than {VALIDATION_IMAGES} images, got {len(published)}")
    train = published.first(count if limit is None else min(limit, count))
    validation = Split(inputs=published.inputs[count:], labels=published.labels[count:])
    return DataBundle(train=train, validation=validation, test=test, classes=classes, preprocess=standardize_by(train))


def _stems(part: str) -> tuple[str, str]:
    return f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte"


def _read_pair(name: str, part: str, folders: tuple[Path, ...]) -> Split:
    images, labels = (_read_idx(_found(name, stem, folders)) for stem in _stems(part))
    return Split(inputs=images.unsqueeze(1), labels=labels.long())


def _found(name: str, stem: str, folders: tuple[Path, ...]) -> Path:
    path = _find(stem, folders)
    if path is None:
        looked = " or ".join(str(folder) for folder in folders)
        raise FileNotFoundError(f"{name} needs {stem} or {stem}.gz in {looked}; dataset: download: true fetches it")
    return path


def _find(stem: str, folders: tuple[Path, ...]) -> Path | None:
    candidates = (folder / f"{stem}{suffix}" for folder in folders for suffix in ("", ".gz"))
    return next((path for path in candidates if path.is_file()), None)


def _read_idx(path: Path) -> Tensor:
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    if not content.startswith(_UNSIGNED_BYTES):
        raise ValueError(f"{path} is no IDX file of unsigned bytes: it begins with {content[:4].hex(' ')}")
    start = 4 + 4 * content[3]
    shape = struct.unpack(f">{content[3]}I", content[4:start])
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=start).reshape(shape)
