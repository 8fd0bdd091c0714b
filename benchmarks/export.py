"""A trained tiny run in llama.cpp, and an export that is killed: `python benchmarks/export.py RUN`.

RUN is a complete run of recipes/tiny.toml; it needs the extra `gguf`. Writes results/export.json:
for each GGUF type how many of 20 held-out problems llama.cpp answers greedily as the merged model
does, token for token, how many of 2,000 texts it splits into the same tokens, and what 20 kills at
random moments left in the export folder.
"""

import hashlib
import json
import os
import random
import signal
import string
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from r1recipes.machine import host, packages
from r1recipes.machine.files import DRAFT, now, read_lines
from r1recipes.publish import export, llama_cpp
from r1recipes.recipe.targets import parse
from r1recipes.rewards import answers
from r1recipes.runs import trained as trained_runs
from r1recipes.training.backends import merge
from r1recipes.training.backends.builtin import TAGS

TYPES = ("f16", "q8_0", "q6_k", "q5_k_m", "q4_k_m")
NUM_PROBLEMS, NUM_TOKENS, NUM_TEXTS, NUM_KILLS = 20, 40, 2000, 20
FORMS = ("lora", "merged_16bit", "gguf")
RESULT = Path(__file__).parent / "results" / "export.json"


def in_llama_cpp(found: trained_runs.TrainedRun, folder: Path) -> dict:
    rows = read_lines(found.run.evaluation("after"))[:NUM_PROBLEMS]
    chats = [[{"role": "user", "content": row["question"]}] for row in rows]
    model, tokenizer = merge.reload(folder / "merged_16bit", own_tokenizer=True)
    merged = [merge.greedy(model, tokenizer, chat, NUM_TOKENS) for chat in chats]
    trained = [tokenizer(row["greedy"]["text"])["input_ids"] for row in rows]
    texts = [
        tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        for chat in chats
    ]
    end = tokenizer.eos_token_id
    result = {
        "merged_16bit_as_base_and_adapter": sum(
            ids[:-1] == other and ids[-1] == end for ids, other in zip(merged, trained, strict=True)
        )
    }
    for kind in TYPES:
        file = folder / "gguf" / f"tiny-{kind}.gguf"
        given = llama_cpp.answers(file, texts, [[end]] * len(texts), NUM_TOKENS, 256)
        answered = [tokenizer.decode(row.greedy, skip_special_tokens=True) for row in given]
        right = [
            answers.equal(answers.extract_answer(text), row["answer"])
            for text, row in zip(answered, rows, strict=True)
        ]
        result[kind] = {
            "same_token_for_token": sum(
                row.greedy == ids for row, ids in zip(given, merged, strict=True)
            ),
            "right": sum(right),
            "of": len(rows),
            "bytes": file.stat().st_size,
        }
    return result


def tokens(folder: Path) -> dict:
    """Texts of what the vocabulary holds, tags whole and torn; then some with what it does not."""
    _, tokenizer = merge.reload(folder / "merged_16bit", own_tokenizer=True)
    rng = random.Random(1)
    pieces = [*(string.printable[:95] + "\n"), *TAGS * 4, *"< > </ answer reasoning".split()]
    texts = ["".join(rng.choices(pieces, k=rng.randint(1, 60))) for _ in range(NUM_TEXTS)]
    odd = ["\u00e9", "caf\u00e9 1", "\u00e9\u00e8", "1\t2", "\U0001f600", "a\u2581b"]
    found = llama_cpp.answers(
        folder / "gguf/tiny-f16.gguf", texts + odd, [[1]] * len(texts + odd), 1, 512
    )
    same = [
        row.prompt == tokenizer(text)["input_ids"]
        for row, text in zip(found, texts + odd, strict=True)
    ]
    return {
        "same": sum(same[:NUM_TEXTS]),
        "of": NUM_TEXTS,
        "outside_the_vocabulary": dict(zip(odd, same[NUM_TEXTS:], strict=True)),
    }


def state(folder: Path) -> str | None:
    """One text for everything in an exported folder. Raises when it is not whole."""
    if not folder.exists():
        return None
    json.loads((folder / "export.json").read_text())
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    digests = [(str(p.relative_to(folder)), hashlib.md5(p.read_bytes()).hexdigest()) for p in files]
    return repr(digests)


def kills(run: Path, folder: Path) -> dict:
    """Kill an export that replaces another, at random moments; what is in its place after each."""
    line = [sys.executable, "-m", "r1recipes", "export", str(run), "--out", str(folder), "--force"]
    line += [part for form in ("lora", "merged_16bit", "gguf:f16,q8_0") for part in ("--to", form)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    began = time.monotonic()
    subprocess.run(line, check=True, **quiet)
    whole_s, rng, outcomes = time.monotonic() - began, random.Random(2), Counter()
    names = {form: files(folder / form) for form in FORMS}
    for _ in range(NUM_KILLS):
        before = {form: state(folder / form) for form in FORMS}
        child = subprocess.Popen(line, **quiet)
        time.sleep(rng.uniform(0.4, 1.0) * whole_s)
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        for form in FORMS:
            after = state(folder / form)
            if after == before[form]:
                outcomes["old"] += 1
            else:
                outcomes["new" if files(folder / form) == names[form] else "torn"] += 1
        outcomes["draft left"] += bool(list(folder.glob(f"{DRAFT}*")))
    subprocess.run(line, check=True, **quiet)
    left = len(list(folder.glob(f"{DRAFT}*")))
    return {"kills": NUM_KILLS, "folders": dict(outcomes), "drafts_after_the_next_export": left}


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def main() -> None:
    run = Path(sys.argv[1])
    found = trained_runs.find(run.parent, str(run))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        targets, _ = parse(["lora", "merged_16bit", "gguf:" + ",".join(TYPES)])
        began = time.monotonic()
        export.execute(found, export.Request(targets, folder, offline=True), lambda line: None)
        result = {
            "date": now(),
            "machine": host.describe(),
            "versions": packages.versions() | versions(),
            "fingerprint": found.run.read()["fingerprint"],
            "export_s": round(time.monotonic() - began, 1),
            "llama_cpp": in_llama_cpp(found, folder),
            "tokens": tokens(folder),
            "checks": {
                form: json.loads((folder / form / "export.json").read_text())["checks"]
                for form in FORMS
            },
            "kills": kills(run, folder),
        }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("gguf", "llama-cpp-python")}


if __name__ == "__main__":
    main()
