"""Ctrl-C while r1recipes is being imported: one word, and no traceback."""

import subprocess
import sys
from pathlib import Path

import pytest
import tomli

ROOT = Path(__file__).parents[2]
INTERRUPTED = "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(30)\n"
"""Stands in for a module that the command line imports first."""
SCRIPT = tomli.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]["r1recipes"]
MODULE, FUNCTION = SCRIPT.split(":")
STARTS = (
    ["-m", "r1recipes"],
    ["-c", f"import sys; from {MODULE} import {FUNCTION}; sys.exit({FUNCTION}())"],
)


@pytest.mark.parametrize("start", STARTS, ids=["module", "script"])
def test_ctrl_c_during_the_imports_says_stopped(start, tmp_path):
    (tmp_path / "argparse.py").write_text(INTERRUPTED)
    environment = {"PYTHONPATH": f"{tmp_path}:{ROOT}", "PATH": "/usr/bin:/bin"}
    line = [sys.executable, *start, "--version"]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "stopped\n")
    environment["PYTHONPATH"] = str(ROOT)
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout.startswith("r1recipes ")
