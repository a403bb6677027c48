"""The command line: argv in, one call into app, an exit code out. Nothing else prints."""

from beats_search.cli.commands import main

__all__ = ["main"]
