"""Texts of errors from threads and sources, each with what it is about."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from r1recipes.errors import RunError
from r1recipes.machine import host
from r1recipes.planning.doctor import failures, files, software, stack, texts
from tests.planning.test_failures import FOLDER, LOG, PLAN, failure

FIXTURE = Path(__file__).parents[1] / "fixtures" / "error_texts.jsonl"
FIELDS = [
    *(software.FIRST, software.PATTERNS, software.LAST),
    *(stack.KNOWN_FAULTS, stack.PATTERNS, stack.LAST, files.PATTERNS, files.LAST),
]
KINDS = {"card": "oom", "numbers": "nan", "disk": "disk", None: "crash"}


def cases() -> list[dict[str, Any]]:
    return [json.loads(line) for line in FIXTURE.read_text().splitlines()]


@pytest.mark.parametrize("case", cases(), ids=lambda case: case["text"][:60])
def test_a_text_is_told_by_its_cause_with_a_mend(case):
    made = failure(RuntimeError(case["text"]))
    subject, hint = case["about"], made.problems[0].hint or ""
    kind = "memory" if subject in texts.OF_MAIN_MEMORY else KINDS.get(subject, "crash")
    assert made.kind == kind and case["source"]
    assert subject == "card" or texts.subject_of(case["text"]) == subject
    assert hint.startswith("the traceback") == (subject is None)
    assert all(word in f"{made} {hint}" for word in case.get("words", []))


def test_every_subject_has_a_case_and_every_cause_a_mend():
    subjects = {case["about"] for case in cases()}
    for subject, _, words in (pattern for field in FIELDS for pattern in field):
        sentence, mend = words()
        assert subject in subjects and sentence and mend
        assert sentence[-1] not in ".;:" and sentence[0] != "`"


def of_log(log: Path) -> RunError:
    error = RuntimeError("Engine core initialization failed. See root cause above.")
    made = failures.classify(error, lambda: PLAN, "load", folder=FOLDER, log=log)
    assert isinstance(made, RunError)
    return made


@pytest.mark.parametrize(
    ("line", "kind", "words"),
    [
        ("ERROR [core.py:396] RuntimeError: PassManager::run failed", "crash", "Triton"),
        ("(EngineCore pid=7) torch.OutOfMemoryError: CUDA out of memory. Tried", "oom", "loaded"),
        ("ValueError: No available memory for the cache blocks. Try", "oom", "no KV cache"),
        ("INFO 10-01 12:00:00 [core.py:1] all is well", "crash", "a process of its own"),
    ],
)
def test_the_cause_of_an_engine_that_ended_is_read_from_the_log(line, kind, words, tmp_path):
    log = tmp_path / "train.log"
    end = "RuntimeError: Engine core initialization failed. See root cause above."
    log.write_text(f"INFO start\nTraceback (most recent call last):\n{line}\n{end}\n")
    made = of_log(log)
    assert made.kind == kind and words in str(made)


def test_an_engine_that_ended_without_a_log_is_told_as_such():
    assert "a process of its own" in str(of_log(LOG))


def test_a_full_shared_memory_is_no_full_disk():
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/dev/shm/sem.mp-7")
    assert "/dev/shm" in str(failure(full)) and failure(full).kind == "memory"
    denied = PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/.triton")
    assert "TRITON_CACHE_DIR=" in (failure(denied).problems[0].hint or "")


def test_mends_are_for_the_place(monkeypatch):
    monkeypatch.setattr(host, "place", lambda: "kaggle")
    offline = texts.cause_of("[Errno -3] Temporary failure in name resolution")
    assert offline is not None and "internet" in offline.mend
    monkeypatch.setattr(host, "place", lambda: "container")
    lost = texts.cause_of("Failed to initialize NVML: Unknown Error")
    assert lost is not None and lost.mend.startswith("docker restart")
    group = texts.cause_of("NCCL error: unhandled system error")
    assert group is not None and "--shm-size" in group.mend
