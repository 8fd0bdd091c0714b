"""The process that llama-cpp-python runs in: one JSON request on stdin, the answer on stdout.

{"do": "answer", "file", "prompts", "judged", "folder", "num_tokens", "context"}
    -> [{"prompt": ids, "answer": ids}], and in `folder` the logits as 0.npy, 1.npy ...
{"do": "quantize", "source", "file", "type"} -> 0
"""

import ctypes
import json
import sys
from pathlib import Path
from typing import Any


def answer(
    file: str,
    prompts: list[str],
    judged: list[list[int]],
    folder: str,
    num_tokens: int,
    context: int,
) -> list[dict[str, Any]]:
    """Tokens of each prompt and of its greedy answer, with the end token if there is one; and in
    `folder` the logits at each position of a judged answer, (tokens + 1, vocabulary)."""
    import numpy
    from llama_cpp import Llama

    model = Llama(file, n_ctx=context, n_batch=context, seed=0, logits_all=True, verbose=False)
    rows = []
    for number, text in enumerate(prompts):
        # The text begins with the template's beginning-of-sequence token, if any; none is added.
        ids = model.tokenize(text.encode(), add_bos=False, special=True)
        greedy: list[int] = []
        model.reset()
        for token in model.generate(ids, temp=0.0, repeat_penalty=1.0):
            greedy.append(token)
            if token == model.token_eos() or len(greedy) == num_tokens:
                break
        rows.append({"prompt": ids, "answer": greedy})
        with_answer = ids + judged[number]
        model.reset()
        model.eval(with_answer)
        numpy.save(Path(folder, f"{number}.npy"), model.scores[len(ids) - 1 : len(with_answer)])
    return rows


def quantize(source: str, file: str, kind: int) -> int:
    """Write `source` as a GGUF file of the type `kind`, a llama_ftype. Returns 0."""
    import llama_cpp

    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = kind
    code = llama_cpp.llama_model_quantize(source.encode(), file.encode(), ctypes.byref(params))
    if code:
        raise SystemExit(f"llama_model_quantize returned {code}")
    return code


def main() -> None:
    """Answer the request on stdin."""
    request = json.load(sys.stdin)
    if request.pop("do") == "answer":
        result: Any = answer(**request)
    else:
        result = quantize(request["source"], request["file"], request["type"])
    print(json.dumps(result))


if __name__ == "__main__":
    main()
