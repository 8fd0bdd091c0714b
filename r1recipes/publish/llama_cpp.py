"""llama.cpp as it is installed on this machine: its converter, its quantiser, its runtime.

The converter is `convert_hf_to_gguf.py` of a llama.cpp folder (LLAMA_CPP_DIR) or on the PATH. The
quantiser is `llama-quantize` from there, or llama-cpp-python's binding. The runtime is
llama-cpp-python. Each runs in its own process, since C++ may abort. Nothing is downloaded.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1recipes.errors import Problem, RunError
from r1recipes.machine import packages

GET_CONVERTER = (
    "`git clone --depth 1 https://github.com/ggml-org/llama.cpp`, then set LLAMA_CPP_DIR to it"
)
ANOTHER = (
    "a newer llama.cpp may know this model: update the folder of LLAMA_CPP_DIR and "
    "llama-cpp-python; or export `--to merged_16bit`, which needs neither"
)
"""Hint where llama.cpp does not do what it is asked for."""
FTYPES = {"f16": 1, "q8_0": 7, "q4_k_m": 15, "q5_k_m": 17, "q6_k": 18}
"""llama_ftype of llama.h."""
LIMIT_S = 4 * 3600.0
"""Seconds for one conversion; assumed, far above what a 14B model takes."""


def source_folder() -> Path | None:
    """The llama.cpp folder that LLAMA_CPP_DIR names."""
    name = os.environ.get("LLAMA_CPP_DIR")
    return Path(name).expanduser() if name else None


def converter() -> Path | None:
    """The script that turns a Hugging Face folder into GGUF."""
    return _find("convert_hf_to_gguf.py", ("",))


def quantizer() -> Path | None:
    """The program that makes types below 8 bits."""
    return _find("llama-quantize", ("", "build/bin", "bin"))


def _find(name: str, subfolders: tuple[str, ...]) -> Path | None:
    if source := source_folder():
        for subfolder in subfolders:
            if (source / subfolder / name).is_file():
                return source / subfolder / name
    on_path = shutil.which(name)
    return Path(on_path) if on_path else None


def has_runtime() -> bool:
    """Whether llama-cpp-python is installed."""
    return importlib.util.find_spec("llama_cpp") is not None


def missing(types: tuple[str, ...], *, builtin: bool) -> list[Problem]:
    """What these types need and this machine does not have; `builtin` is for a built-in model."""
    problems = []
    # The converter imports sentencepiece for every model, also for one that does not use it.
    for name in ("gguf",) if builtin else ("gguf", "sentencepiece"):
        if importlib.util.find_spec(name) is None:
            problems.append(
                Problem(f"GGUF needs the package `{name}`", hint=f"`{packages.extra('gguf')}`")
            )
    if not builtin and converter() is None:
        message = "GGUF needs llama.cpp's converter, and it was not found"
        problems.append(Problem(message, hint=GET_CONVERTER))
    small = [name for name in types if is_small(name)]
    if small and quantizer() is None and not has_runtime():
        message = f"`{small[0]}` needs llama.cpp's quantiser, and it was not found"
        hint = f"`{packages.extra('gguf')}`; it compiles llama.cpp, some minutes"
        problems.append(Problem(message, hint=hint))
    return problems


def is_small(kind: str) -> bool:
    """Whether a type is made by the quantiser; the converter writes the others."""
    return kind not in ("f16", "q8_0")


def convert(merged: Path, file: Path, outtype: str) -> None:
    """Hugging Face folder -> GGUF with weights in f16, bf16 or q8_0. Raises: RunError."""
    script = converter()
    assert script is not None, "`missing` reports this first"
    command = [sys.executable, script, merged, "--outfile", file, "--outtype", outtype]
    _run(command, "llama.cpp's converter")


def quantize(source: Path, file: Path, kind: str) -> None:
    """16-bit GGUF -> GGUF of a smaller type. Raises: RunError."""
    binary = quantizer()
    if binary:
        _run([binary, source, file, kind.upper()], "llama-quantize")
    else:
        _child({"do": "quantize", "source": str(source), "file": str(file), "type": FTYPES[kind]})


@dataclass(frozen=True)
class Answer:
    """The runtime's tokens for one prompt."""

    prompt: list[int]
    """Tokens of the prompt."""
    greedy: list[int]
    """Tokens of the greedy answer."""
    logits: Any
    """Logits at each position of the judged answer, a numpy array (tokens + 1, vocabulary)."""


def answers(
    file: Path, prompts: list[str], judged: list[list[int]], num_tokens: int, context: int
) -> list[Answer]:
    """The runtime's greedy answers of up to `num_tokens` tokens to rendered prompts, and its logits
    along other answers, `judged`, as tokens. `context` is its size in tokens.

    Raises: RunError when the file does not load.
    """
    import numpy

    with tempfile.TemporaryDirectory() as folder:
        request = {"do": "answer", "file": str(file), "prompts": prompts, "judged": judged}
        limits = {"folder": folder, "num_tokens": num_tokens, "context": context}
        rows = _child(request | limits)
        return [
            Answer(row["prompt"], row["answer"], numpy.load(Path(folder, f"{number}.npy")))
            for number, row in enumerate(rows)
        ]


def _child(request: dict[str, Any]) -> Any:
    command = [sys.executable, "-m", "r1recipes.publish.llama_cpp_child"]
    return json.loads(_run(command, "llama.cpp", json.dumps(request)).splitlines()[-1])


def _run(command: list[Any], name: str, stdin: str = "") -> str:
    """Standard output of a command. Raises: RunError with its last line when it fails."""
    try:
        process = subprocess.run(
            [str(part) for part in command],
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=LIMIT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RunError(f"{name} did not run: {error}", hint=ANOTHER) from error
    if process.returncode:
        print(process.stdout, process.stderr, sep="\n")  # goes to the log
        lines = [line for line in (process.stdout + process.stderr).splitlines() if line.strip()]
        last = lines[-1].strip() if lines else f"exit code {process.returncode}"
        raise RunError(f"{name} failed: {last}", hint=ANOTHER)
    return process.stdout
