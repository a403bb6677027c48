"""A toy search in a folder, with so many workers, whose outcomes are functions of the plan; it goes on where it was."""

import sys
from dataclasses import replace
from pathlib import Path

from search_toy import Trials, budget, new_ledger, problem
from worker_toys import Toys

from beats_search.search.backends.local import Workers
from beats_search.search.ledger import Ledger
from beats_search.search.study import by, search

if __name__ == "__main__":
    folder, workers, trials = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    path = folder / "study.db"
    plan = replace(budget(trials, "frontier" if workers == 1 else "sobol"), retries=1000)
    with Ledger.open(path) if path.exists() else new_ledger(path) as ledger:
        crew = Workers(Toys(folder=folder, always="slow"), [{}] * workers)
        search(problem(Trials()), ledger, plan, drive=by(crew))
