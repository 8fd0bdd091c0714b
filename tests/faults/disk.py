"""A small disk of its own, which a test fills or makes read-only.

Limits: Linux, and the right to mount (root); tests that ask for one are skipped elsewhere.
"""

import os
import subprocess
from pathlib import Path

import pytest


class Disk:
    """A tmpfs at `place`."""

    def __init__(self, place: Path, megabytes: int = 64):
        self.place = place
        self._filler = place / "filler"
        place.mkdir()
        self._mount("-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs")

    def _mount(self, *arguments: str) -> None:
        command = ["mount", *arguments, str(self.place)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")

    def fill(self, leave_bytes: int = 0) -> None:
        """Fill it, but for `leave_bytes`."""
        free = os.statvfs(self.place)
        with open(self._filler, "ab", buffering=0) as file:
            os.posix_fallocate(
                file.fileno(), file.tell(), free.f_bavail * free.f_frsize - leave_bytes
            )

    def make_room(self) -> None:
        self._filler.unlink()

    def make_read_only(self, is_read_only: bool = True) -> None:
        self._mount("-o", "remount," + ("ro" if is_read_only else "rw"))

    def unmount(self) -> None:
        subprocess.run(["umount", "-l", str(self.place)], check=True)
