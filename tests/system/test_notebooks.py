"""The notebooks run from their first cell to their last on a CPU, in few steps, and show a report.

Limits: the installation is skipped, as the package is installed; a GPU and the services are not
tried.
"""

import os
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
FEW_STEPS = " ".join(
    f"--set {key}={value}"
    for key, value in {
        "train.max_steps": 2,
        "cold_start.steps": 20,
        "data.eval_size": 20,
        "eval.samples": 2,
        "preset.cpu.prompts_per_step": 8,
    }.items()
)
CELL_LIMIT_S = 300
"""Seconds for a cell; the run takes 20 on two idle cores, the rest is for busy ones."""


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_kept_without_outputs(path):
    notebook = read(path)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert not cell.get("outputs") and cell.get("execution_count") is None


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_runs_on_a_cpu(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = read(path)
    (parameters,) = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", ())]
    parameters.source += f'\nOPTIONS = "{FEW_STEPS} --force"'
    client = nbclient.NotebookClient(
        notebook, timeout=CELL_LIMIT_S, kernel_name="python3", resources={"metadata": {"path": "."}}
    )
    client.execute(env=os.environ.copy())
    texts = "\n".join(outputs(notebook, "text"))
    assert "Accuracy " in texts and "Traceback" not in texts and "error:" not in texts, texts
    (page,) = outputs(notebook, "text/html")
    assert page.startswith("<iframe srcdoc=") and "held-out problems" in page
    if path.stem == "r1recipes":
        assert "trained:" in texts
        assert list(tmp_path.glob("runs/tiny/*/export/merged_16bit/model.safetensors"))


def outputs(notebook: Any, kind: str) -> list[str]:
    """What the cells printed (`text`), or displayed in a format such as text/html."""
    every = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    shown = [output.get("data", {}).get(kind) or output.get(kind) for output in every]
    return [text for text in shown if text]
