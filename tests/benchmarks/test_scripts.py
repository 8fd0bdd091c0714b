"""Every benchmark is listed, starts, and stands without the tests."""

import ast
import importlib
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
FOLDERS = ("learning", "memory", "speed", "studies", "reliability", "readme")
SCRIPTS = [
    path
    for folder in FOLDERS
    for path in sorted((BENCHMARKS / folder).glob("*.py"))
    if 'if __name__ == "__main__":' in path.read_text()
]
NEEDS = {"ray_cluster": "ray", "export_converter": "gguf"}
"""Scripts that import a package of an extra."""


def module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def test_every_folder_lists_its_scripts_with_their_commands():
    for path in SCRIPTS:
        assert f"`{path.name}`" in (path.parent / "README.md").read_text(), path
        assert f"python -m {module(path)}" in (ast.get_docstring(tree(path)) or ""), path


def test_every_command_of_a_readme_is_a_script():
    for folder in FOLDERS:
        text = (BENCHMARKS / folder / "README.md").read_text()
        names = re.findall(r"python -m (benchmarks[\w.]+)", text)
        assert names and set(names) <= {module(path) for path in SCRIPTS}, folder


def test_nothing_imports_the_tests():
    for path in BENCHMARKS.rglob("*.py"):
        for node in ast.walk(tree(path)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.split(".")[0] == "tests" for name in names), path


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@pytest.mark.parametrize("path", SCRIPTS, ids=module)
def test_a_script_prints_its_usage(path, monkeypatch, capsys):
    if path.stem in NEEDS:
        pytest.importorskip(NEEDS[path.stem])
    monkeypatch.setattr(sys, "argv", [path.name, "--help"])
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(module(path)).main()
    assert ended.value.code == 0 and capsys.readouterr().out.startswith(f"usage: {path.name}")
