"""A private PostgreSQL server in a temporary folder, for benchmarks and tests.

Limits: it needs PostgreSQL's own programs, on the PATH or where Debian's package puts them. Nothing
is synced to the disk, so it survives a restart but no power cut.
"""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Self


def binaries() -> Path | None:
    """Folder with initdb and postgres, or None where PostgreSQL is not installed."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if installed:
        return installed[-1].parent
    on_path = shutil.which("initdb")
    return Path(on_path).parent if on_path else None


class Server:
    """A server on a free port of this machine; it runs as `postgres` where this process is root.

    Raises on entering: FileNotFoundError if PostgreSQL is not installed.
    """

    def __enter__(self) -> Self:
        self.folder = Path(tempfile.mkdtemp(prefix="postgres-"))
        self.as_user = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
        if self.as_user:
            shutil.chown(self.folder, "postgres")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._run("initdb", "-D", "data", "-U", "postgres", "-A", "trust", "--no-sync")
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        with suppress(subprocess.CalledProcessError):
            self._control("stop", "-m", "immediate")
        shutil.rmtree(self.folder)

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        self._control("start", "-w", "-l", "log", "-o", options)

    def stop(self) -> None:
        """Every connection is cut."""
        self._control("stop", "-m", "fast")

    def restart(self, away_s: float = 0.0) -> None:
        """Cut every connection, and stay away for `away_s` seconds."""
        self.stop()
        time.sleep(away_s)
        self.start()

    def _control(self, action: str, *arguments: str) -> None:
        self._run("pg_ctl", action, "-D", "data", *arguments)

    def _run(self, name: str, *arguments: str) -> None:
        folder = binaries()
        if folder is None:
            raise FileNotFoundError("PostgreSQL is not installed: `apt install postgresql`")
        subprocess.run(
            [*self.as_user, str(folder / name), *arguments],
            cwd=self.folder,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
