"""A toy search on a shared study: address, folder for notes, trials; outcomes are functions of the plan."""

import sys
from dataclasses import replace
from pathlib import Path

from search_toy import Trials, budget, facts, problem
from worker_toys import Toys

from beats_search.search.backends.local import Workers
from beats_search.search.leases import Rhythm
from beats_search.search.shared import open_shared
from beats_search.search.study import by, search

if __name__ == "__main__":
    address, folder, trials = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    plan = replace(budget(trials, "sobol"), retries=3)
    rhythm = Rhythm(beat_s=0.5, grace_s=3.0)
    with open_shared(address, facts(), lambda _: None, join=True, rhythm=rhythm) as ledger:
        crew = Workers(Toys(folder=folder, always="slow"), [{}] * 2)
        sys.stdout.write(search(problem(Trials()), ledger, plan, drive=by(crew)).name)
