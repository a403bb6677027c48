"""Two nodes: a search on a Ray cluster of two nodes of this machine, one of which is killed halfway.

    python tests/faults/two_nodes.py [--space search_spaces/digits.yaml] [--trials 30] [--set PATH=VALUE]...

Ends with 0 when the search has ended by itself and every trial has an answer.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ray.cluster_utils import Cluster

from beats_search.records.outcome import Failed
from beats_search.records.run import RunRecord
from beats_search.search.reading import read_run

_DIGITS: Final = Path(__file__).resolve().parents[2] / "search_spaces" / "digits.yaml"
_PATIENCE_S: Final = 900.0


def main() -> None:
    """Run a search and kill a node under it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", type=Path, default=_DIGITS)
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--set", action="append", default=[], dest="changes", metavar="PATH=VALUE")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        out = Path(made) / "run"
        told = run_and_kill(chosen.space, out, chosen.trials, chosen.changes)
        record = read_run(out / "study.db")
        wrong = damages(record, chosen.trials)
        print(f"a node was killed after {told} trials; {len(record.trials)} trials, {len(record.finished())} finished")
        print("\n".join(wrong) or "every trial has its answer, and none was lost with the node")
        sys.exit(bool(wrong))


def run_and_kill(space: Path, out: Path, trials: int, changes: list[str]) -> int:
    """Search a space, kill a node after half of the trials, and return after how many it was."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        other = cluster.add_node(num_cpus=1)
        command = [sys.executable, "-m", "beats_search", "run", str(space), "--out", str(out), "--trials", str(trials)]
        ray = ["--backend", "ray", "--set", f"search.ray.address={cluster.address}", "--set", "search.retries=3"]
        given = [word for change in changes for word in ("--set", change)]
        with subprocess.Popen([*command, *ray, *given]) as search:
            killed_at = _kill_halfway(search, out, trials, lambda: cluster.remove_node(other, allow_graceful=False))
            if search.wait(_PATIENCE_S):
                raise RuntimeError(f"the search ended with {search.returncode}")
        return killed_at
    finally:
        cluster.shutdown()  # type: ignore[no-untyped-call] # has no types


def damages(record: RunRecord, trials: int) -> list[str]:
    """Return in words what is wrong with a run that lost a node."""
    plans = [trial.plan.fingerprint() for trial in record.trials]
    failed = [trial.number for trial in record.trials if isinstance(trial.outcome, Failed)]
    wrong = {
        f"{len(record.trials)} trials have an answer in place of {trials}": len(record.trials) != trials,
        "some plan was tried under two numbers": len(plans) != len(set(plans)),
        f"trials {failed} failed": bool(failed),
    }
    return [words for words, is_so in wrong.items() if is_so]


def _kill_halfway(search: "subprocess.Popen[bytes]", out: Path, trials: int, kill: Callable[[], None]) -> int:
    until = time.monotonic() + _PATIENCE_S
    while (told := _told(out)) < trials / 2:
        if search.poll() is not None or time.monotonic() > until:
            raise RuntimeError(f"the search came to {told} trials only")
        time.sleep(0.2)
    kill()
    return told


def _told(out: Path) -> int:
    rows = out / "trials.csv"
    return len(rows.read_text(encoding="utf-8").splitlines()) - 1 if rows.exists() else 0


if __name__ == "__main__":
    main()
