"""The process that a judge in a folder runs in: it answers OpenAI's chat completions API on a port
of this machine, with transformers on the CPU.

    python -m r1recipes.rewards.judge.local_child FOLDER PARENT

It prints its base URL once the model is loaded, or why it cannot be, and ends with its parent.
Limits: one answer at a time; of a request it reads messages, temperature and max_tokens.
"""

import hmac
import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from r1recipes.errors import first_line
from r1recipes.machine.processes import die_with
from r1recipes.rewards.judge.local import KEY_VARIABLE


class Model:
    """A model and its tokenizer, loaded on construction. Raises: OSError, ValueError."""

    def __init__(self, folder: str):
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.torch = torch
        # Any: the methods of a tokenizer return unions of types.
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.model: Any = AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, dtype=torch.float32
        ).eval()
        if not self.tokenizer.chat_template:
            raise ValueError("it has no chat template")
        self.lock = threading.Lock()

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """The response to a request of the chat completions API."""
        inputs = self.tokenizer.apply_chat_template(
            request["messages"],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
        temperature, num_prompt = request.get("temperature", 0), inputs["input_ids"].shape[1]
        sampling = {"temperature": temperature, "top_k": 0} if temperature > 0 else {}
        with self.lock, self.torch.no_grad():
            output = self.model.generate(
                **inputs,
                max_new_tokens=request["max_tokens"],
                do_sample=temperature > 0,
                pad_token_id=self.tokenizer.pad_token_id or self.tokenizer.eos_token_id,
                **sampling,
            )
        ids = output[0, num_prompt:].tolist()
        is_cut = len(ids) >= request["max_tokens"]
        text = self.tokenizer.decode(ids, skip_special_tokens=True)
        message = {"role": "assistant", "content": text}
        return {
            "choices": [{"message": message, "finish_reason": "length" if is_cut else "stop"}],
            "usage": {"prompt_tokens": num_prompt, "completion_tokens": len(ids)},
        }


def handler(model: Model, key: str) -> type[BaseHTTPRequestHandler]:
    """Answers requests that have the key."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if not hmac.compare_digest(self.headers.get("Authorization", ""), f"Bearer {key}"):
                return self.send(401, {"error": "the key is another one"})
            try:
                self.send(200, model.answer(json.loads(body)))
            except (ValueError, LookupError, TypeError, RuntimeError) as error:
                self.send(400, {"error": first_line(error)[:300]})

        def send(self, status: int, data: dict[str, Any]) -> None:
            content = json.dumps(data).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    return Handler


def main(folder: str, parent: int) -> None:
    """Serve the model until the parent ends."""
    die_with(parent)
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is not the URL
    try:
        model = Model(folder)
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        print(first_line(error)[:300], file=out, flush=True)
        sys.exit(1)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(model, os.environ.pop(KEY_VARIABLE)))
    print(f"http://127.0.0.1:{server.server_port}/v1", file=out, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
