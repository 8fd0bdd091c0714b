"""A trained tiny run in llama.cpp, and an export that is killed at random moments.

    python -m benchmarks.reliability.export RUN [--kills 20]

Writes benchmarks/reliability/results/export.json: for each GGUF type how many of 20 held-out
problems llama.cpp answers greedily as the merged model does, token for token, how many of 2,000
texts it splits into the same tokens, and what the kills left in the export folder. Limits: RUN is a
complete run of recipes/tiny.toml; needs the extra `gguf`.
"""

import argparse
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
from typing import Any

from benchmarks import about
from r1recipes.machine.files import DRAFT, read_lines
from r1recipes.publish import export, llama_cpp
from r1recipes.recipe.targets import parse
from r1recipes.rewards import answers
from r1recipes.runs import trained
from r1recipes.training.backends import merge
from r1recipes.training.backends.builtin import TAGS

TYPES = ("f16", "q8_0", "q6_k", "q5_k_m", "q4_k_m")
NUM_PROBLEMS, NUM_TOKENS, NUM_TEXTS = 20, 40, 2000
FORMS = ("lora", "merged_16bit", "gguf")
RESULT = Path(__file__).parent / "results" / "export.json"


def in_llama_cpp(finished: trained.TrainedRun, folder: Path) -> dict[str, Any]:
    """Answers of each GGUF type beside those of the merged model and of the run itself."""
    rows = read_lines(finished.run.evaluation("after"))[:NUM_PROBLEMS]
    chats = [[{"role": "user", "content": row["question"]}] for row in rows]
    model, tokenizer = merge.reload(folder / "merged_16bit", own_tokenizer=True)
    merged = [merge.greedy(model, tokenizer, chat, NUM_TOKENS) for chat in chats]
    recorded = [tokenizer(row["greedy"]["text"])["input_ids"] for row in rows]
    texts = [
        tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        for chat in chats
    ]
    end = tokenizer.eos_token_id
    pairs = list(zip(merged, recorded, strict=True))
    same = sum(ids[:-1] == other and ids[-1] == end for ids, other in pairs)
    result: dict[str, Any] = {"merged_16bit_as_base_and_adapter": same}
    for kind in TYPES:
        file = folder / "gguf" / f"tiny-{kind}.gguf"
        replies = llama_cpp.answers(file, texts, [[end]] * len(texts), NUM_TOKENS, 256)
        words = [tokenizer.decode(reply.greedy, skip_special_tokens=True) for reply in replies]
        right = [
            answers.equal(answers.extract_answer(text), row["answer"])
            for text, row in zip(words, rows, strict=True)
        ]
        result[kind] = {
            "same_token_for_token": sum(
                reply.greedy == ids for reply, ids in zip(replies, merged, strict=True)
            ),
            "right": sum(right),
            "of": len(rows),
            "bytes": file.stat().st_size,
        }
    return result


def tokens(folder: Path) -> dict[str, Any]:
    """How many texts llama.cpp splits as the tokenizer does.

    Texts of what the vocabulary holds, tags whole and torn; then some with what it does not.
    """
    _, tokenizer = merge.reload(folder / "merged_16bit", own_tokenizer=True)
    rng = random.Random(1)
    pieces = [*(string.printable[:95] + "\n"), *TAGS * 4, *"< > </ answer reasoning".split()]
    odd = ["\u00e9", "caf\u00e9 1", "\u00e9\u00e8", "1\t2", "\U0001f600", "a\u2581b"]
    texts = ["".join(rng.choices(pieces, k=rng.randint(1, 60))) for _ in range(NUM_TEXTS)] + odd
    file = folder / "gguf/tiny-f16.gguf"
    replies = llama_cpp.answers(file, texts, [[1]] * len(texts), 1, 512)
    same = [
        reply.prompt == tokenizer(text)["input_ids"]
        for reply, text in zip(replies, texts, strict=True)
    ]
    return {
        "same": sum(same[:NUM_TEXTS]),
        "of": NUM_TEXTS,
        "outside_the_vocabulary": dict(zip(odd, same[NUM_TEXTS:], strict=True)),
    }


def state(folder: Path) -> str | None:
    """One text for everything in an exported folder. Raises: OSError, ValueError if it is torn."""
    if not folder.exists():
        return None
    json.loads((folder / "export.json").read_text())
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    digests = [(str(p.relative_to(folder)), hashlib.md5(p.read_bytes()).hexdigest()) for p in files]
    return repr(digests)


def kills(run: Path, folder: Path, count: int) -> dict[str, Any]:
    """Kill an export that replaces another, at random moments; what is in its place after each."""
    line = [sys.executable, "-m", "r1recipes", "export", str(run), "--out", str(folder), "--force"]
    line += [part for form in ("lora", "merged_16bit", "gguf:f16,q8_0") for part in ("--to", form)]
    began = time.monotonic()
    quietly(line)
    whole_s, rng = time.monotonic() - began, random.Random(2)
    outcomes: Counter[str] = Counter()
    names = {form: names_in(folder / form) for form in FORMS}
    for _ in range(count):
        before = {form: state(folder / form) for form in FORMS}
        child = subprocess.Popen(
            line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        time.sleep(rng.uniform(0.4, 1.0) * whole_s)
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        for form in FORMS:
            if state(folder / form) == before[form]:
                outcomes["old"] += 1
            else:
                outcomes["new" if names_in(folder / form) == names[form] else "torn"] += 1
        outcomes["draft left"] += bool(list(folder.glob(f"{DRAFT}*")))
    quietly(line)
    drafts = len(list(folder.glob(f"{DRAFT}*")))
    return {"kills": count, "folders": dict(outcomes), "drafts_after_the_next_export": drafts}


def quietly(line: list[str]) -> None:
    """Run a command without its output. Raises: CalledProcessError."""
    subprocess.run(line, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def names_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    args = parser.parse_args()
    finished = trained.find(args.run.parent, str(args.run))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        targets, _ = parse(["lora", "merged_16bit", "gguf:" + ",".join(TYPES)])
        began = time.monotonic()
        export.execute(finished, export.Request(targets, folder, offline=True), lambda line: None)
        result = {
            "fingerprint": finished.run.read()["fingerprint"],
            "export_s": round(time.monotonic() - began, 1),
            "llama_cpp": in_llama_cpp(finished, folder),
            "tokens": tokens(folder),
            "checks": {
                form: json.loads((folder / form / "export.json").read_text())["checks"]
                for form in FORMS
            },
            "kills": kills(args.run, folder, args.kills),
        }
    about.write(RESULT, result, "gguf", "llama-cpp-python")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
