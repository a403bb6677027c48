"""Targets: a space in, a refusal where it may not be measured on this machine out.

A machine is of the kind that the variable `BEATS_SEARCH_TARGET` names; a node of a Ray cluster is of the kind in
its label of the same meaning.
"""

import os
from typing import TYPE_CHECKING, Final

from beats_search.records.errors import CommandError

if TYPE_CHECKING:
    from beats_search.space.knobs import SearchSpace

VARIABLE: Final = "BEATS_SEARCH_TARGET"


def check_target(space: "SearchSpace") -> None:
    """Raise CommandError where a space names a kind of machine that this one is not."""
    here = os.environ.get(VARIABLE, "")
    if space.target in {"", here}:
        return
    kind = f"this one is {here!r}" if here else "it is not known what this one is"
    rule = f"{space.file}: runtime.target: only machines that are {space.target!r} may measure, and {kind}"
    raise CommandError(f"{rule}; {VARIABLE}={space.target} says that it is one")
