"""The order of the modules: each imports only from those before it, and torch stays in backends."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "r1recipes"
ORDER = """
    errors settings machine meter installed catalog hub
    calibration vram_case vram_engine vram_training vram speed shapes
    scales charts drawing page
    answer_text answer_units answer_numbers answer_forms expressions answer_kinds answer_judge
    child answers user_rewards reward_functions rewards generators
    consistency section targets json_schema track preset schema sources hints positions explain
    syntax overrides companions bundle remote fetch recipe proofs scaffold
    fitting memory plan disk oom lock data chat_template preflight
    evaluate health record progress terminal reading curves samples report
    backends backends.tiny backends.grpo backends.trl backends.cold_start
    backends.differences backends.nf4 backends.unsloth backends.random_weights
    backends.chat backends.merge
    cache finished export.place export.hub export.llama export.llama_child export.ollama
    export.builtin_gguf export.card export.checks export.forms export
    study_schema cell study search database trials leaderboard matrix results study_report sweep
    ray_launcher warm stages run retest worker rehearsal rehearse doctor redact card share
    cli.common cli.plan cli.export cli.run cli.sweep cli.evaluate cli.chat cli.report cli.runs
    cli.rehearse cli.recipes cli.share cli.doctor cli __main__
""".split()
HEAVY = {"torch", "transformers", "trl", "peft", "unsloth", "vllm"}


def modules() -> dict[str, ast.Module]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts).removesuffix(".__init__")
        found[name] = ast.parse(path.read_text())
    return found


def imported(tree: ast.Module) -> set[str]:
    """Modules of the package that are imported anywhere in a module, also inside functions."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "r1recipes":
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("r1recipes."):
            package = node.module.removeprefix("r1recipes.")
            inner = {f"{package}.{alias.name}" for alias in node.names} & set(ORDER)
            names |= inner or {package}
    return names


def test_a_module_imports_only_from_those_before_it():
    trees = modules()
    assert set(trees) - {"__init__"} == set(ORDER), "a module is missing in ORDER, or gone"
    for name, tree in trees.items():
        for other in imported(tree) & set(ORDER):
            if name == "backends":  # it names the others, inside a function
                continue
            assert ORDER.index(other) < ORDER.index(name), f"{name} imports {other}"


def top_level_packages(tree: ast.Module) -> set[str]:
    names = set()
    for node in tree.body:
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


def test_the_heavy_libraries_are_imported_by_backends_alone():
    for name, tree in modules().items():
        heavy = top_level_packages(tree) & HEAVY
        assert not heavy or name.startswith("backends."), f"{name} imports {heavy}"


def test_every_module_says_what_it_is_for():
    for name, tree in modules().items():
        assert ast.get_docstring(tree), name
