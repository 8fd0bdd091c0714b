"""The wheel works from an empty folder, in an environment that does not see the clone.

Limits: packages that r1recipes needs come from the environment of the tests, so that torch is not
downloaded again; that they are all named as requirements is not seen here.
"""

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

pytest.importorskip("build")
pytest.importorskip("hatchling")
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SHORT = ["train.max_steps=2", "cold_start.steps=20", "data.eval_size=20", "eval.samples=2"]
"""What makes a run of `tiny` take seconds."""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of an environment with the wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder)]
    subprocess.run([*build, str(ROOT)], check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "venv", with_pip=False)
    python = folder / "venv" / "bin" / "python"
    (packages,) = (folder / "venv" / "lib").glob("python*/site-packages")
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--quiet"]
    subprocess.run([*pip, str(wheel)], check=True)
    others = {sysconfig.get_path("purelib"), *(p for p in sys.path if "site-packages" in p)}
    # Without the .pth files of those folders, one of which may lead to the clone.
    (packages / "others.pth").write_text("\n".join(sorted(others)))
    return python.parent


def program(installed: Path, folder: Path, *words: str) -> str:
    """The output of the installed program, run in a folder."""
    hidden = {"PYTHONPATH", "VIRTUAL_ENV"}
    environment = {key: value for key, value in os.environ.items() if key not in hidden}
    done = subprocess.run(
        [str(installed / words[0]), *words[1:]],
        cwd=folder,
        env=environment
        | {"CUDA_VISIBLE_DEVICES": "", "R1RECIPES_CACHE_DIR": str(folder / "cache")},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, f"{words}: {done.stdout[-2000:]}{done.stderr}"
    return done.stdout


def test_the_program_is_the_one_of_the_wheel(installed, tmp_path):
    where = program(installed, tmp_path, "python", "-c", "import r1recipes as r; print(r.__file__)")
    assert Path(where).is_relative_to(installed.parent)


def test_it_has_recipes_and_studies(installed, tmp_path):
    assert "phi4" in program(installed, tmp_path, "r1recipes", "list")
    assert "tiny" in program(installed, tmp_path, "r1recipes", "check", "tiny")
    assert "max_steps" in program(installed, tmp_path, "r1recipes", "show", "tiny")
    assert "GiB" in program(installed, tmp_path, "r1recipes", "plan", "phi4", "--gpu", "t4")


def test_it_writes_a_recipe_and_a_schema(installed, tmp_path):
    model = "unsloth/Qwen2.5-1.5B-Instruct"
    program(installed, tmp_path, "r1recipes", "new", "mine.toml", "--model", model)
    program(installed, tmp_path, "r1recipes", "check", "mine.toml")
    program(installed, tmp_path, "r1recipes", "schema", "recipe.schema.json")
    shipped = (ROOT / "recipes" / "recipe.schema.json").read_text()
    assert (tmp_path / "recipe.schema.json").read_text() == shipped


def test_it_trains_and_reports(installed, tmp_path):
    flags = [text for value in SHORT for text in ("--set", value)]
    program(installed, tmp_path, "r1recipes", "run", "tiny", "--force", *flags)
    (report,) = (tmp_path / "runs").glob("tiny/*/report.html")
    assert str(report.relative_to(tmp_path)) in program(installed, tmp_path, "r1recipes", "report")
