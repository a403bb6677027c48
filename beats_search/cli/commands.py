"""Commands: each reads its arguments, makes one call into app, prints the result and ends with its exit code."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer

from beats_search.cli.plain_text import printable
from beats_search.records.errors import BeatsError, CommandError

_INTERRUPTED: Final = 130

app = typer.Typer(
    name="beats-search",
    help="How small and fast can a network get before it gets worse? Searches, measures, and hands over the files.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Space = Annotated[Path, typer.Argument(metavar="SPACE", help="The YAML file of the search space.")]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run, like reports/digits.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Change one value of the space, e.g. training.epochs=4."),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def main() -> None:
    """Run the command line and exit with its code."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)


@app.command()
def run(  # noqa: PLR0913, PLR0917 - the options of the main command
    space: Space,
    out: Annotated[Path | None, typer.Option(help="The run's folder; default: reports/<name>.")] = None,
    trials: Annotated[int | None, typer.Option(help="How many trials to run, the reference among them.")] = None,
    timeout: Annotated[str | None, typer.Option(help="How long to search, over all sittings: 90s, 10m, 1h30m.")] = None,
    sampler: Annotated[str | None, typer.Option(help="What proposes the next trial; see `beats-search parts`.")] = None,
    backend: Annotated[str | None, typer.Option(metavar="NAME", help="Where trials run: local or ray.")] = None,
    workers: Annotated[
        str | None, typer.Option(metavar="N", help="How many processes try plans side by side, or auto.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="The seed of the search and of its trials.")] = None,
    changes: Set = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Delete the run in the folder and start anew.")] = False,  # noqa: FBT002 - a flag
    join: Annotated[  # noqa: FBT002 - a flag
        bool, typer.Option("--join", help="Work beside others on the study in search.storage, a database.")
    ] = False,
    debug: Debug = False,  # noqa: FBT002 - a flag
) -> None:
    """Search a space, or go on with its search."""
    from beats_search import app as composition
    from beats_search.cli.display import display

    options = {
        "search.trials": trials,
        "search.timeout": timeout,
        "search.sampler": sampler,
        "search.backend": backend,
        "search.workers": workers,
        "seed": seed,
    }
    given = tuple(f"{path}={value}" for path, value in options.items() if value is not None)
    request = composition.RunRequest(space=space, changes=(*(changes or ()), *given), out=out, fresh=fresh, join=join)
    with _answering(debug=debug):
        with display(composition.read(space, request.changes)) as notify:
            result = composition.run(request, notify)
        from beats_search.cli.tables import print_result

        print_result(result)
        if result.interrupted:
            raise typer.Exit(_INTERRUPTED)


@app.command()
def check(space: Space, changes: Set = None, debug: Debug = False) -> None:  # noqa: FBT002 - a flag
    """Validate a space and estimate its search; trains nothing."""
    from beats_search import app as composition
    from beats_search.cli.tables import print_check

    with _answering(debug=debug):
        print_check(composition.check(space, changes or (), lambda module: typer.echo(f"imports {module}")))


@app.command()
def show(
    run: Run,
    as_json: Annotated[bool, typer.Option("--json", help="Print front.json instead of a table.")] = False,  # noqa: FBT002 - a flag
    debug: Debug = False,  # noqa: FBT002 - a flag
) -> None:
    """Print the front of a run as a table."""
    from beats_search import app as composition
    from beats_search.cli.tables import print_front

    with _answering(debug=debug):
        if as_json:
            typer.echo(composition.front_json(run))
        else:
            print_front(*composition.show(run))


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of runs; several share one page.")],
    out: Annotated[
        Path | None, typer.Option(help="The page; default: the run's report.html, or comparison.html.")
    ] = None,
    debug: Debug = False,  # noqa: FBT002 - a flag
) -> None:
    """Rebuild a run's page, or compare runs on one page."""
    from beats_search import app as composition

    with _answering(debug=debug):
        typer.echo(composition.report(runs, out))


@app.command()
def export(
    run: Run,
    trial: Annotated[int, typer.Argument(metavar="TRIAL", help="The number of a finished trial.")],
    to: Annotated[Path, typer.Option(metavar="DIR", help="Where the files go.")],
    debug: Debug = False,  # noqa: FBT002 - a flag
) -> None:
    """Copy a model with its card and a script that runs it."""
    from beats_search import app as composition

    with _answering(debug=debug):
        for path in composition.export(run, trial, to):
            typer.echo(path)


@app.command()
def replay(
    run: Run,
    sampler: Annotated[str, typer.Option(metavar="A,B,C", help="Samplers to compare, with commas between.")],
    debug: Debug = False,  # noqa: FBT002 - a flag
) -> None:
    """Compare samplers on a finished run; trains nothing."""
    from beats_search import app as composition
    from beats_search.cli.tables import print_replay

    with _answering(debug=debug):
        print_replay(composition.replay(run, [name.strip() for name in sampler.split(",") if name.strip()]))


@app.command()
def parts(debug: Debug = False) -> None:  # noqa: FBT002 - a flag
    """List everything that a space may name."""
    from beats_search import app as composition
    from beats_search.cli.tables import print_parts

    with _answering(debug=debug):
        print_parts(composition.parts())


@app.command()
def schema() -> None:
    """Print the JSON Schema of a space, for editors."""
    from beats_search import app as composition

    with _answering(debug=False):
        typer.echo(composition.schema())


@contextmanager
def _answering(*, debug: bool) -> Iterator[None]:
    """Turn an error into one message and the exit code that belongs to it."""
    try:
        yield
    except typer.Exit:
        raise
    except BeatsError as error:
        if debug:
            raise
        _complain(str(error))
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt:
        raise typer.Exit(_INTERRUPTED) from None
    except OSError as error:
        if debug:
            raise
        _complain(f"{error.filename or 'a file'}: {error.strerror or error}")
        raise typer.Exit(CommandError.exit_code) from None
    except Exception as error:  # a defect of ours: one line, and how to see more
        if debug:
            raise
        _complain(f"unexpected {type(error).__name__}: {error}; --debug shows where")
        raise typer.Exit(1) from None


def _complain(message: str) -> None:
    typer.secho(printable(message), err=True, fg="red")
