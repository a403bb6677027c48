"""Files: a folder that holds MNIST in some form in, a temporary folder as torchvision wants it out."""

import gzip
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_NAMES: Final = tuple(f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1"))


def find_files(data: Path) -> tuple[Path, ...]:
    """Return MNIST's four files, packed or not, from `data/MNIST/raw`, `data/mnist` or `data` itself.

    Raises FileNotFoundError, which says how to get them, when one is missing.
    """
    folders = (data / "MNIST" / "raw", data / "mnist", data)
    return tuple(_find(name, folders) for name in _NAMES)


@contextmanager
def unpacked(files: tuple[Path, ...]) -> Iterator[Path]:
    """Make a temporary folder in which torchvision finds the files, unpacked; it goes away after."""
    with tempfile.TemporaryDirectory() as made:
        raw = Path(made) / "MNIST" / "raw"
        raw.mkdir(parents=True)
        for file in files:
            opener = gzip.open if file.suffix == ".gz" else Path.open
            with opener(file, "rb") as packed, (raw / file.name.removesuffix(".gz")).open("wb") as plain:
                shutil.copyfileobj(packed, plain)
        yield Path(made)


def _find(name: str, folders: tuple[Path, ...]) -> Path:
    candidates = [folder / f"{name}{suffix}" for folder in folders for suffix in ("", ".gz")]
    found = next((path for path in candidates if path.is_file()), None)
    if found is None:
        looked = ", ".join(str(folder) for folder in folders)
        raise FileNotFoundError(
            f"no {name} or {name}.gz in {looked}; give the folder with --data DIR, or let torchvision fetch it: "
            "python -c \"from torchvision.datasets import MNIST; MNIST('data', download=True)\", then --data data"
        )
    return found
