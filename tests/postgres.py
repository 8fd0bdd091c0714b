"""A PostgreSQL server of one's own in a temporary folder, from Debian's package."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path


def binaries() -> Path | None:
    """Folder with initdb and postgres, or None where the package is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


class Server:
    """A private cluster on a free port of this machine; the server refuses to run as root."""

    def __enter__(self) -> "Server":
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
        """Every connection is cut; the server is away for a while."""
        self.stop()
        time.sleep(away_s)
        self.start()

    def _control(self, action: str, *arguments: str) -> None:
        self._run("pg_ctl", action, "-D", "data", *arguments)

    def _run(self, name: str, *arguments: str) -> None:
        program = binaries()
        assert program is not None
        subprocess.run(
            [*self.as_user, str(program / name), *arguments],
            cwd=self.folder,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
