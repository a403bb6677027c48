"""Arguments: a command line in, a checked request out."""

import argparse
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Final

from throughput_files import find_files
from throughput_records import BATCH, CONTESTANTS, MODELS, TRAINING_IMAGES, LightningLoop, ModelName
from throughput_summary import REFERENCE

_REPOSITORY: Final = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What is measured, and how often."""

    models: tuple[ModelName, ...]
    contestants: tuple[str, ...]
    rounds: int
    epochs: int
    images: int
    threads: int
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A run of the benchmark: what to measure, MNIST's files, the day, and where the result goes."""

    settings: Settings
    files: tuple[Path, ...]
    day: date
    out: Path


def read_request(arguments: Sequence[str]) -> Request:
    """Return what a command line asks for; print what is wrong with it and exit with code 2 otherwise."""
    parser = _parser()
    given = parser.parse_args(arguments)
    settings = Settings(
        models=tuple(given.models),
        contestants=tuple(dict.fromkeys((REFERENCE, *given.contestants))),
        rounds=given.rounds,
        epochs=given.epochs,
        images=given.images,
        threads=given.threads,
        seed=given.seed,
    )
    try:
        _check(settings)
        return Request(settings=settings, files=find_files(given.data), day=given.date, out=given.out)
    except (ValueError, FileNotFoundError, ModuleNotFoundError) as error:
        parser.error(str(error))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Compare training loops by images per second.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    out = _REPOSITORY / "reports" / "benchmarks" / "training_throughput.json"
    parser.add_argument("--data", type=Path, default=_REPOSITORY.parent / "shared" / "data", help="a folder with MNIST")
    parser.add_argument("--rounds", type=_positive, default=5, help="measurements of each contestant and model")
    parser.add_argument("--epochs", type=_positive, default=2, help="epochs in a measurement")
    parser.add_argument("--images", type=_positive, default=TRAINING_IMAGES, help="training images in an epoch")
    parser.add_argument("--threads", type=_positive, default=2, help="threads of torch")
    parser.add_argument("--seed", type=int, default=0, help="of the first round; each further one counts up")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS, help="which models")
    parser.add_argument(
        "--contestants", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS), help=f"beside {REFERENCE}"
    )
    parser.add_argument(
        "--date", type=date.fromisoformat, default=datetime.now(tz=UTC).date(), help="of the measurement"
    )
    parser.add_argument("--out", type=Path, default=out, help="the JSON file to write")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"needs to be at least 1, got {number}")
    return number


def _check(settings: Settings) -> None:
    """Refuse data that cannot be had or dealt alike, and contestants whose library is missing."""
    if settings.images > TRAINING_IMAGES:
        raise ValueError(f"--images needs to be at most {TRAINING_IMAGES}, got {settings.images}")
    if settings.images % BATCH == 1:  # `fit` adds a rest of one to the batch before it, a DataLoader does not
        raise ValueError(f"--images needs to leave no rest of 1 in batches of {BATCH}, got {settings.images}")
    peers = [name for name in settings.contestants if isinstance(CONTESTANTS[name], LightningLoop)]
    if peers and importlib.util.find_spec("lightning") is None:
        others = " ".join(name for name in CONTESTANTS if name not in peers)
        raise ModuleNotFoundError(
            f"{', '.join(peers)} need Lightning: pip install -e '.[benchmarks]', "
            f"or leave them out: --contestants {others}"
        )
