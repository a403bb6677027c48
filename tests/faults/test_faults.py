"""A search under fire loses nothing: no trial, no number, no point of the front. `fire.py` is the long version."""

from pathlib import Path

import pytest
from fire import Fire, burn, damages, finish, study_of

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("fire", [
    Fire(kills=3, seed=1, workers=1, longest_s=3.0, trials=12),
    Fire(kills=4, seed=2, workers=2, longest_s=4.0, trials=24),
    Fire(kills=2, seed=3, workers=2, longest_s=14.0, trials=5, real=True),
], ids=lambda fire: f"{'real' if fire.real else 'toy'}, {fire.workers} workers")  # fmt: skip
def test_a_search_under_fire_loses_nothing(fire: Fire, tmp_path: Path) -> None:
    """Killed at random moments, searches and workers, it ends with the trials and the front of an undisturbed one."""
    burnt, calm = tmp_path / "burnt", tmp_path / "calm"
    for folder in (burnt, calm):
        folder.mkdir()
    assert burn(burnt, fire)
    finish(calm, fire)
    assert damages(study_of(burnt), study_of(calm)) == []
