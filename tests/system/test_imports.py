"""Packages in one order, no circles, heavy libraries in backends alone, no long files."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "r1recipes"
ORDER = """
    errors config machine rewards algorithms recipe data planning
    runs training study publish report cli __main__
""".split()
"""A package imports only from those before it."""
HEAVY = {"torch", "transformers", "trl", "peft", "unsloth", "vllm"}
MAX_LINES, MAX_FILES, MAX_ENTRIES = 350, 12, 14


def all_modules() -> dict[str, ast.Module]:
    """Dotted name -> tree of every module, packages under their own name."""
    trees = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        trees[".".join(parts).removesuffix(".__init__")] = ast.parse(path.read_text())
    return trees


def imported(tree: ast.Module, modules: set[str]) -> set[str]:
    """Modules of the package that are imported anywhere in a module, also inside functions."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names} & modules
        elif isinstance(node, ast.ImportFrom) and node.module in modules:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= inner & modules
            if not inner <= modules:
                names.add(node.module)
    return names


def test_a_package_imports_only_from_those_before_it():
    trees = all_modules()
    for name, tree in trees.items():
        for other in imported(tree, set(trees)):
            ours, theirs = name.split(".")[1:2], other.split(".")[1:2]
            if ours and theirs and ours != theirs:
                assert ORDER.index(theirs[0]) < ORDER.index(ours[0]), f"{name} imports {other}"


def test_no_modules_import_one_another_in_a_circle():
    trees = all_modules()
    graph = {
        name: {
            other
            for other in imported(tree, set(trees)) - {name}
            if not name.startswith(f"{other}.") and not other.startswith(f"{name}.")
        }
        for name, tree in trees.items()
    }
    TopologicalSorter(graph).prepare()  # raises CycleError


def top_level_packages(tree: ast.Module) -> set[str]:
    names = set()
    for node in tree.body:
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


def test_the_heavy_libraries_are_imported_by_backends_alone():
    for name, tree in all_modules().items():
        heavy = top_level_packages(tree) & HEAVY
        assert not heavy or name.startswith("r1recipes.training.backends."), f"{name}: {heavy}"


def test_every_module_has_a_docstring():
    for name, tree in all_modules().items():
        assert ast.get_docstring(tree), name


def test_no_file_is_long_and_no_package_is_crowded():
    for path in PACKAGE.rglob("*.py"):
        assert len(path.read_text().splitlines()) <= MAX_LINES, path
    for folder in {path.parent for path in PACKAGE.rglob("*.py")}:
        entries = [p.name for p in folder.iterdir() if p.name not in ("__pycache__", "_data")]
        limit = MAX_ENTRIES + 2 if folder == PACKAGE else MAX_FILES  # and __init__, __main__
        assert len(entries) <= limit, f"{folder}: {len(entries)}"
