"""Measure how long each hostile input takes to be answered, and how much memory.

    python -m benchmarks.reliability.hostile

Runs the hostile cases of tests/system and tests/data; each asserts one clear line, exit code 2,
nothing written outside and no code run. The time of a case is that of its whole test, so of up to
four commands: CPU time, here and in the processes that it started, and wall time, which others at
work on the machine make longer.
Its memory is what `r1recipes check tiny` takes alone, plus by how much the resident set of this
process grew at most, which the kernel counts anew for each case, plus the highest of the children
that there are at the same time, looked at every 20 ms. What `run` always loads, such as torch, is
loaded before. Writes benchmarks/reliability/results/hostile.json. The files of tests run in
processes of their own, two at a time (`--jobs`). Limits: Linux; the cases of a file are in one
process, in which memory that an earlier case has freed may be taken again without growth.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from benchmarks import about
from r1recipes.data.sources import limits
from r1recipes.data.tokenizer import rendering
from r1recipes.training.backends import builtin

RESULT = Path(__file__).parent / "results" / "hostile.json"
KINDS = {
    "test_a_hostile_bundle_is_refused": "bundle",
    "test_a_hostile_recipe_is_refused": "shared recipe",
    "test_a_hostile_lock_is_refused": "lock",
    "test_a_hostile_folder_is_refused": "folder of a recipe",
    "test_a_hostile_reference_is_refused": "reference",
    "test_a_hostile_server_is_refused": "server",
    "test_a_hostile_data_file_is_refused": "data file",
    "test_no_page_of_a_hostile_run": "run folder, report and list",
    "test_the_name_of_a_folder_reaches_no_terminal": "run folder, report and list",
    "test_no_weights_of_a_hostile_run_are_loaded": "run folder, share and export",
    "test_a_hostile_template_is_refused": "chat template",
    "test_a_hostile_template_in_the_folder_of_a_model_is_refused": "chat template of a model",
    "test_a_hostile_database_is_refused": "database of a study",
    "test_a_url_of_no_database_is_refused": "URL of a database",
    "test_a_hostile_cache_of_a_judge_is_refused": "cache of a judge",
    "test_hostile_weights_are_refused": "weights of a run",
    "test_a_hostile_configuration_is_refused": "configuration of a run",
    "test_a_hostile_model_of_a_recipe_is_refused": "model of a recipe",
    "test_a_parameter_of_another_name_is_refused_before_a_table_is_printed": "database of a study",
    "test_a_template_that_bides_its_time_is_stopped_by_the_prompt_that_it_waits_for": (
        "chat template"
    ),
    "test_a_name_that_is_too_long_is_one_line": "long name",
    "test_a_special_file_anywhere_in_a_run_is_refused": "special file in a run",
    "test_a_file_in_place_of_a_folder_of_a_run_is_refused": "special file in a run",
    "test_no_link_in_the_cache_is_followed_and_those_to_it_are": "cache folder",
    "test_a_note_in_the_cache_that_is_no_plain_file_is_not_read": "cache folder",
    "test_of_nine_thousand_presets_ten_get_a_line": "long list",
    "test_long_answers_are_counted_and_not_read": "long list",
    "test_many_long_answers_are_read_in_time": "long list",
    "test_equal_rows_are_refused_at_once": "long list",
    "test_a_long_system_message_is_refused_and_one_in_many_prompts_too": "long list",
    "test_a_template_that_is_no_plain_file_is_refused": "special file, impossible name",
    "test_a_folder_of_a_model_with_such_a_file_is_refused": "special file, impossible name",
    "test_a_plain_size_is_that_of_a_plain_file_alone": "special file, impossible name",
    "test_a_name_that_no_file_can_have_is_one_line": "special file, impossible name",
    "test_a_table_whose_lines_end_with_cr_alone_is_one_line": "special file, impossible name",
    "test_twenty_thousand_unknown_keys_are_counted": "20,000 unknown keys",
}
"""Test -> kind of its cases."""
FILES = (
    *(f"tests/system/test_hostile{name}.py" for name in (
        "_templates", "", "_data", "_runs", "_names", "_studies", "_weights", "_models",
    )),
    "tests/data/test_special_files.py",
    "tests/recipe/test_loading.py",
)  # fmt: skip
"""The slowest first."""
MAX_S, MAX_BYTES = 10.0, 1e9


def resident_bytes(pid: int | str, key: str = "VmHWM") -> int:
    """The highest resident set of a process, or with VmRSS that of now; 0 where it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    match = re.search(rf"{key}:\s+(\d+) kB", status)
    return int(match[1]) * 1024 if match else 0


def command_of(pid: str) -> bytes:
    """The command line of a process; empty where it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def descendants() -> list[str]:
    """Ids of all processes below this one."""
    pids, index = ["self"], 0
    while index < len(pids):
        for path in Path(f"/proc/{pids[index]}/task").glob("*/children"):
            try:
                pids += path.read_text().split()
            except OSError:  # it has ended
                continue
        index += 1
    return pids[1:]


class Watch(threading.Thread):
    """Notes the highest sum of the children's highest resident sets until it is stopped."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.children_bytes = 0
        self.is_over = threading.Event()
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM, see proc(5)
        self.before = resident_bytes("self", "VmRSS")
        self.start()

    def run(self) -> None:
        while not self.is_over.wait(0.02):
            # Between fork and exec a child shows the memory of its parent as its own.
            started = [pid for pid in descendants() if command_of(pid) != command_of("self")]
            self.children_bytes = max(self.children_bytes, sum(map(resident_bytes, started)))

    def total(self) -> int:
        """End the watch. Returns by how many bytes this process and its children grew at most."""
        self.is_over.set()
        self.join()
        return resident_bytes("self") - self.before + self.children_bytes


def command_bytes() -> int:
    """The highest resident set of a command that refuses nothing. It is started by a small process,
    since a child of this one begins with its memory."""
    script = (
        "import resource, subprocess, sys\n"
        "words = [sys.executable, '-m', 'r1recipes', 'check', 'tiny']\n"
        "subprocess.run(words, stdout=subprocess.DEVNULL, check=True)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    return int(subprocess.check_output([sys.executable, "-c", script])) * 1024


class Plugin:
    """Measures each case while pytest runs it."""

    def __init__(self) -> None:
        self.cases: list[dict[str, Any]] = []
        self.alone = command_bytes()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Function) -> Iterator[None]:
        watch, began, is_good = Watch(), time.monotonic(), False
        cpu_began = sum(os.times()[:4])
        try:
            yield
            is_good = True
        finally:
            rendering.close()  # the time of a process counts when it has ended
            limits.close()
            row = {
                "kind": KINDS[item.originalname],
                "case": item.callspec.id if hasattr(item, "callspec") else item.name,
                "is_answered_well": is_good,
                "cpu_seconds": round(sum(os.times()[:4]) - cpu_began, 2),
                "wall_seconds": round(time.monotonic() - began, 2),
                "bytes": self.alone + watch.total(),
            }
            self.cases.append(row)

    @staticmethod
    def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
        items[:] = [item for item in items if item.originalname in KINDS]


def summary(cases: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts and maxima of some cases."""
    slowest = max(cases, key=lambda case: case["cpu_seconds"])
    largest = max(cases, key=lambda case: case["bytes"])
    return {
        "num_cases": len(cases),
        "num_answered_well": sum(case["is_answered_well"] for case in cases),
        "max_cpu_seconds": slowest["cpu_seconds"],
        "max_wall_seconds": max(case["wall_seconds"] for case in cases),
        "slowest": slowest["case"],
        "max_bytes": largest["bytes"],
        "largest": largest["case"],
    }


def measure(path: str) -> list[dict[str, Any]]:
    """The cases of one file of tests, in a process of its own."""
    with tempfile.NamedTemporaryFile("r") as file:
        words = [sys.executable, "-m", "benchmarks.reliability.hostile", "--of", path, file.name]
        subprocess.run(words, check=True)
        return list(json.load(file))


def measure_here(path: str, target: str) -> None:
    """Run the cases of one file, and write their rows to `target`."""
    builtin.build_model(1, "builtin:tiny")
    plugin = Plugin()
    pytest.main(["-q", "-p", "no:cacheprovider", path], [plugin])
    Path(target).write_text(json.dumps(plugin.cases))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--jobs", type=int, default=2, help="files at a time (default: 2)")
    parser.add_argument("--of", nargs=2, metavar=("FILE", "TARGET"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.of:
        return measure_here(*args.of)
    with ThreadPoolExecutor(args.jobs) as pool:
        cases = [case for rows in pool.map(measure, FILES) for case in rows]
    kinds = {kind: [case for case in cases if case["kind"] == kind] for kind in KINDS.values()}
    whole = summary(cases)
    result = {"all": whole} | {kind: summary(rows) for kind, rows in kinds.items()}
    result["all"]["sum_cpu_seconds"] = round(sum(case["cpu_seconds"] for case in cases))
    result["all"]["sum_wall_seconds"] = round(sum(case["wall_seconds"] for case in cases))
    result["all"]["jobs"] = args.jobs
    about.write(RESULT, {"limits": {"cpu_seconds": MAX_S, "bytes": MAX_BYTES}, "kinds": result})
    is_good = whole["num_answered_well"] == whole["num_cases"] >= 150
    sys.exit(
        not (is_good and whole["max_cpu_seconds"] <= MAX_S and whole["max_bytes"] <= MAX_BYTES)
    )


if __name__ == "__main__":
    main()
