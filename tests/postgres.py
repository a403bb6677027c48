"""A PostgreSQL server of its own for tests, where it is installed; nothing of one that runs already is touched."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_USER: Final = "postgres"


def missing() -> str:
    """Return why there can be no server, in words; empty where there can be one."""
    if _tool("initdb") is None:
        return "PostgreSQL's initdb is not installed (Debian's package postgresql)"
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        return "PostgreSQL does not run as root, and there is no setpriv to leave it"
    return ""


@contextmanager
def server() -> Iterator[str]:
    """Yield the address of an empty database, on a socket in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="pg-") as made:
        folder = Path(made)
        if os.geteuid() == 0:
            shutil.chown(folder, _USER)
        data = folder / "data"
        _run("initdb", "--auth=trust", f"--username={_USER}", "--no-sync", f"--pgdata={data}")
        listening = f"-k {folder} -c listen_addresses='' -c fsync=off"
        log = ("-l", str(folder / "log"))
        _run("pg_ctl", "start", "--wait", f"--pgdata={data}", *log, "-o", listening)
        try:
            yield f"postgresql://{_USER}@/{_USER}?host={folder}"
        finally:
            _run("pg_ctl", "stop", "--wait", "--mode=immediate", f"--pgdata={data}")


def _run(tool: str, *arguments: str) -> None:
    command: Sequence[str] = [str(_tool(tool)), *arguments]
    if os.geteuid() == 0:
        command = ["setpriv", f"--reuid={_USER}", f"--regid={_USER}", "--clear-groups", *command]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    if done.returncode:
        raise RuntimeError(f"{tool}: {done.stderr}")


def _tool(name: str) -> Path | None:
    """Return where a tool is: Debian keeps them out of the way."""
    debian = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    found = shutil.which(name)
    return debian[-1] if debian else Path(found) if found else None
