"""A server on this machine that speaks OpenAI's chat completions API, and misbehaves as asked.

    with JudgeServer(lambda text, number: {"score": 7}) as server: ...

The function gets the message and the number of the request, from 0, and returns an object for the
answer, a text in its place, or a `Reply`. Limits: one message a request, one choice an answer.
"""

import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from r1recipes.rewards.judge.judge import ModelJudge
from r1recipes.rewards.judge.section import Judge
from tests.hub_server import Handler, _Server

BLOCK = re.compile(r"\[\[([0-9a-f]{16}) ([^\n]+)\n(.*?)\n\1\]\]", re.DOTALL)
USAGE = {"prompt_tokens": 100, "completion_tokens": 10}
RUBRIC = "Is it right?"


@dataclass(frozen=True)
class Reply:
    """A response that is no plain answer."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    before_s: float = 0.0
    """Seconds before anything is sent."""
    dripping: bool = False
    """Send a byte every tenth of a second, without an end."""


Answering = Callable[[str, int], Any]


class JudgeServer(_Server):
    """Keeps the bodies and the headers of all requests."""

    def __init__(self, answering: Answering):
        super().__init__()
        self.url += "/v1"
        self.answering = answering
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.num_open = self.most_open = 0
        self.lock = threading.Lock()

    def handle(self, *connection: Any) -> BaseHTTPRequestHandler:
        return _Chat(self, *connection)

    @property
    def texts(self) -> list[str]:
        """The messages, in the order in which they came."""
        return [body["messages"][0]["content"] for body in self.bodies]


class _Chat(Handler):
    def __init__(self, server: JudgeServer, *connection: Any):
        self.judge = server
        super().__init__(*connection)

    def do_POST(self) -> None:
        judge, body = self.judge, json.loads(self.body())
        with judge.lock:
            number = len(judge.bodies)
            judge.bodies.append(body)
            judge.headers.append({name.lower(): value for name, value in self.headers.items()})
            judge.paths.append(self.path)
            judge.num_open += 1
            judge.most_open = max(judge.most_open, judge.num_open)
        try:
            reply = judge.answering(body["messages"][0]["content"], number)
            self.reply(reply if isinstance(reply, Reply) else answered(reply))
        finally:
            with judge.lock:
                judge.num_open -= 1

    def reply(self, reply: Reply) -> None:
        time.sleep(reply.before_s)
        if not reply.dripping:
            return self.answer(reply.status, reply.body, **reply.headers)
        self.send_response(200)
        self.send_header("Content-Length", "1000000")
        self.end_headers()
        for _ in range(100):
            self.wfile.write(b" ")
            time.sleep(0.1)


def answered(answer: Any, finish_reason: str = "stop", usage: Any = USAGE) -> Reply:
    """The response with an answer: an object, or a text as it is."""
    text = answer if isinstance(answer, str) else json.dumps(answer)
    choice = {"message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}
    return Reply(body=json.dumps({"choices": [choice], "usage": usage}).encode())


def blocks(text: str) -> dict[str, str]:
    """The material in a message, by the titles of its blocks."""
    return {title: inner for _, title, inner in BLOCK.findall(text)}


def to_judge(server: JudgeServer | str, folder: Path, **keys: Any) -> ModelJudge:
    """A judge that asks a server, with its cache in `folder`."""
    url = server if isinstance(server, str) else server.url
    section = {"url": url, "model": "stub", "rubric": RUBRIC} | keys
    judge = Judge.model_validate(section)
    return ModelJudge(judge, base_dir=folder, cache_dir=folder / "cache")


def ask(judge: ModelJudge, *texts: str, question: str = "1 + 1?", answer: Any = "2") -> list[Any]:
    """What completions of one question are paid; the kind of the failure where there is none."""
    prompts = [[{"role": "user", "content": question}] for _ in texts]
    columns = {"question": [question] * len(texts), "answer": [answer] * len(texts)}
    paid = judge.pay(prompts, list(texts), columns)
    return [getattr(value, "kind", value) for value in paid]
