"""App: a request in, a run folder, a page or a table's rows out. Joins space, search, trial and report.

The only package that sees every layer. Heavy libraries load in the function that needs them.
"""

from beats_search.app.checking import Candidate, CheckResult, check
from beats_search.app.recording import Watch
from beats_search.app.running import RunRequest, RunResult, run
from beats_search.app.runs import export, front_json, read_record, replay, report, show
from beats_search.app.spaces import parts, read, schema

__all__ = [
    "Candidate", "CheckResult", "RunRequest", "RunResult", "Watch", "check", "export", "front_json", "parts", "read",
    "read_record", "replay", "report", "run", "schema", "show",
]  # fmt: skip
