"""Rehearse every case of a list, one at a time on each GPU of this machine.

    python benchmarks/rehearse_all.py CASES.toml FOLDER [--seconds N] [--only NAME...] [--gpus N...]

Writes FOLDER/<case>.json, the proof or the list of proofs, and FOLDER/<case>.log. A case that is
there already is skipped, so that the same command goes on. With --seconds no case is begun that
would not end in time.
"""

import argparse
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import tomli

CASE_S = 150
"""Seconds of a usual case, for --seconds."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("cases", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--gpus", nargs="+", help="indices; default: all")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    cases = [case for case in tomli.loads(args.cases.read_text())["case"] if wanted(case, args)]
    lock, end = threading.Lock(), time.monotonic() + args.seconds

    def work(gpu: str) -> None:
        while True:
            with lock:
                left = end - time.monotonic()
                index = next(
                    (i for i, c in enumerate(cases) if c.get("seconds", CASE_S) < left), None
                )
                if index is None:
                    return
                case = cases.pop(index)
            rehearse(case, gpu, args.folder, left - 5)

    threads = [threading.Thread(target=work, args=(gpu,)) for gpu in args.gpus or gpus()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(len(cases), "cases left")


def wanted(case: dict, args: argparse.Namespace) -> bool:
    if args.only and case["name"] not in args.only:
        return False
    return not (args.folder / f"{case['name']}.json").exists()


def gpus() -> list[str]:
    query = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    return subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()


def rehearse(case: dict, gpu: str, folder: Path, limit_s: float) -> None:
    proof = folder / f"{case['name']}.json"
    command = [sys.executable, "-m", "r1recipes", "rehearse", case["recipe"], "--proof", str(proof)]
    for flag in ("vram", "preset", "steps"):
        if flag in case:
            command += [f"--{flag}", str(case[flag])]
    for override in case.get("set", []):
        command += ["--set", override]
    if "batches" in case:
        command += ["--batches", *map(str, case["batches"])]
    cache = Path("~/.cache/r1recipes").expanduser() / f"unsloth-{gpu}"
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": gpu, "UNSLOTH_COMPILE_LOCATION": str(cache)}
    began = time.monotonic()
    with open(folder / f"{case['name']}.log", "w") as log:
        process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            code = process.wait(timeout=limit_s)
        except subprocess.TimeoutExpired:
            code = "timeout"
        finally:
            kill_group(process.pid)
    print(f"{case['name']} on GPU {gpu}: {code}, {time.monotonic() - began:.0f} s", flush=True)


def kill_group(group: int) -> None:
    """End what a case may have left, so that the card is free for the next one."""
    try:
        os.killpg(group, 9)
    except ProcessLookupError:
        pass


if __name__ == "__main__":
    main()
