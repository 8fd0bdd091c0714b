"""A folder with everything that a recipe can name."""

from pathlib import Path

import pytest

from tests.rows import numbered, write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with data, demonstrations, a reward and a model."""
    write(tmp_path / "rows.jsonl", numbered(20))
    write(tmp_path / "shown.jsonl", [{"question": "q", "completion": "c"}] * 3)
    (tmp_path / "mine.py").write_text("def dose(completion, row):\n    return 1.0\n")
    qwen = tmp_path / "qwen"
    qwen.mkdir()
    (qwen / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    for name in ("config.json", "tokenizer.json"):
        (qwen / name).write_text("{}")
    return tmp_path
