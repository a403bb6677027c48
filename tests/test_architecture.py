"""The architecture checks itself: layers, fences, sizes of files, and the public face."""

import subprocess
import sys
from pathlib import Path

import pytest

import beats_search

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "beats_search").rglob("*.py"))
LONGEST_FILE = 400


def test_imports_keep_the_contracts() -> None:
    """Arrows point down, nothing goes round, and each library stays behind its fence."""
    result = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_stay_short(source: Path) -> None:
    """A file of the package has at most 400 lines."""
    assert len(source.read_text(encoding="utf-8").splitlines()) <= LONGEST_FILE


def test_public_face_is_exactly_all() -> None:
    """What a user can see in the package is what `__all__` says."""
    visible = {name for name in dir(beats_search) if not name.startswith("_")}
    submodules = {path.stem for path in (ROOT / "beats_search").iterdir()}
    assert visible - submodules == set(beats_search.__all__) - submodules


def test_import_loads_no_heavy_library() -> None:
    """Importing the package or its command line loads neither torch nor optuna nor plotly."""
    heavy = "{'torch', 'optuna', 'plotly', 'sklearn', 'onnxruntime', 'ray'}"
    code = f"import sys, beats_search, beats_search.cli; print(sorted({heavy} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
