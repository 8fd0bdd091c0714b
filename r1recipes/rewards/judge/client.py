"""Asks a model through OpenAI's chat completions API: many questions at a time, each until a limit.

What may pass is tried again with growing pauses, or after the one that the server names. The work
is done in a thread of its own, so that Ctrl-C ends a wait at once. Limits: no redirect is followed,
and an answer of more than a megabyte is not read.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import json
import random
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from r1recipes.rewards.judge import consent, prompts
from r1recipes.rewards.judge.cost import Cost
from r1recipes.rewards.judge.prompts import Answer, Junk, NotJudged, Question, Verdict
from r1recipes.rewards.judge.section import Judge

if TYPE_CHECKING:
    import httpx

MAX_BYTES = 2**20
"""Bytes of a response that are read; assumed."""
JUNK_TRIES = 2
"""Tries for an answer in the right form: another delimiter may bring another answer. Assumed."""
FIRST_PAUSE_S, MAX_PAUSE_S = 0.5, 30.0
"""Pause after the first failure, doubled after each further one up to the second; assumed."""
HOPELESS = 16
"""Questions of a batch that fail, with none answered, after which the others are not asked."""
_AGAIN = (408, 409, 425, 429, 500, 502, 503, 504, 529)
"""Statuses that may pass; 529 is used for an overload."""
_HINTS = {
    401: "; is the key in `judge.api_key_env` right?",
    403: "; is the key in `judge.api_key_env` right?",
    404: "; does `judge.url` end in /v1, and is `judge.model` served there?",
}
T = TypeVar("T")


class _Again(Exception):
    """A failure that may pass; `after_s` is what the server asks to wait."""

    def __init__(self, failed: NotJudged, after_s: float | None = None):
        super().__init__(failed.message)
        self.failed, self.after_s = failed, after_s


class Client:
    """Asks one judge. Nothing is sent before the first question."""

    def __init__(self, judge: Judge, url: str, key: str | None, cost: Cost):
        self.judge, self.url, self.cost = judge, url.rstrip("/"), cost
        self._key = key
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._http: httpx.AsyncClient | None = None
        self._not_before = 0.0
        self._why_wait: NotJudged | None = None

    def ask(
        self, questions: Sequence[Question], keep: Callable[[Question, Verdict], None]
    ) -> list[Answer]:
        """Ask all questions; `keep` gets each verdict when it is there, in another thread."""
        began = time.monotonic()
        try:
            return self._run(self._ask_all(questions, keep))
        finally:
            self.cost.seconds += time.monotonic() - began

    def close(self) -> None:
        """End what is being asked, and close all connections."""
        if self._loop is None or self._thread is None:
            return
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._loop = self._thread = None

    async def _close(self) -> None:
        if self._http is not None:
            await self._http.aclose()
            self._http = None

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine, which runs in the thread of the loop."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            # A daemon: an answer that is waited for keeps no process from ending.
            run = self._loop.run_forever
            self._thread = threading.Thread(target=run, name="judge", daemon=True)
            self._thread.start()
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        finally:
            future.cancel()  # on Ctrl-C; a future that is done stays as it is

    async def _ask_all(
        self, questions: Sequence[Question], keep: Callable[[Question, Verdict], None]
    ) -> list[Answer]:
        slots, outcomes = asyncio.Semaphore(self.judge.concurrency), [0, 0]

        async def one(question: Question) -> Answer:
            async with slots:
                if outcomes[0] == 0 and outcomes[1] >= HOPELESS:
                    message = f"was not asked: the {outcomes[1]} before it all failed"
                    return Answer(None, NotJudged("not_asked", message))
                answer = await self._ask(question)
                outcomes[answer.verdict is None] += 1
                if answer.verdict:
                    keep(question, answer.verdict)
                return answer

        return list(await asyncio.gather(*map(one, questions)))

    async def _ask(self, question: Question) -> Answer:
        """One question with all its tries, within the time limit."""
        limit_s = self.judge.time_limit_s
        failed = NotJudged("timeout", f"did not answer within {limit_s:g} s")
        deadline, num_junk = time.monotonic() + limit_s, 0
        try:
            async with asyncio.timeout(limit_s):
                for attempt in range(self.judge.retries + JUNK_TRIES):
                    try:
                        return Answer(await self._try(question, deadline))
                    except Junk as junk:
                        failed, num_junk = NotJudged(junk.kind, str(junk)), num_junk + 1
                        if num_junk == JUNK_TRIES:
                            return Answer(None, failed)
                    except _Again as again:
                        failed = again.failed
                        if attempt - num_junk >= self.judge.retries:
                            return Answer(None, failed)
                        await self._pause(attempt, again)
        except TimeoutError:
            pass
        except NotJudged as final:
            failed = final
        return Answer(None, failed)

    async def _pause(self, attempt: int, again: _Again) -> None:
        """Wait before another try. Where the server names a time, all questions wait."""
        if again.after_s is not None:
            self._not_before = max(self._not_before, time.monotonic() + again.after_s)
            self._why_wait = again.failed
            return  # the next try waits
        pause_s = min(MAX_PAUSE_S, FIRST_PAUSE_S * 2**attempt)
        await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # not all at the same moment

    async def _try(self, question: Question, deadline: float) -> Verdict:
        """One request. Raises: Junk, _Again, NotJudged."""
        while (wait_s := self._not_before - time.monotonic()) > 0:
            if self._not_before >= deadline and self._why_wait:
                message = f"{self._why_wait.message}, and asks to wait {wait_s:.0f} s"
                raise NotJudged(self._why_wait.kind, message)
            await asyncio.sleep(wait_s)
        self.cost.calls += 1
        status, headers, body = await self._post(self._body(question))
        if status == 200:
            return prompts.reader(self.judge, question)(self._content(body))
        kind = "rate_limit" if status == 429 else "http_error"
        reason = self._without_key(body.decode(errors="replace"))
        shown = " ".join(reason.split())[:200]
        message = f"answered with status {status}" + (f": {shown}" if shown else "")
        failed = NotJudged(kind, message + _HINTS.get(status, ""))
        if status in _AGAIN:
            raise _Again(failed, _seconds(headers.get("retry-after")))
        raise failed

    def _body(self, question: Question) -> dict[str, Any]:
        judge = self.judge
        body: dict[str, Any] = {
            "model": judge.model,
            "messages": [{"role": "user", "content": prompts.compose(judge, question)}],
            "temperature": judge.temperature,
            "max_tokens": judge.max_tokens,
        }
        if judge.response_format == "json_object":
            body["response_format"] = {"type": "json_object"}
        elif judge.response_format == "json_object_schema":
            form = prompts.schema(judge, question)
            form["properties"]["reason"]["maxLength"] = prompts.MAX_REASON  # or it may never end
            body["response_format"] = {"type": "json_object", "schema": form}
        elif judge.response_format == "json_schema":
            form = {"name": "judgement", "schema": prompts.schema(judge, question), "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": form}
        return body

    async def _post(self, body: dict[str, Any]) -> tuple[int, Any, bytes]:
        """Status, headers and the bytes of a response. Raises: Junk, _Again."""
        import httpx

        if self._http is None:
            self._http = self._connect()
        content = b""
        try:
            request = self._http.stream("POST", f"{self.url}/chat/completions", json=body)
            async with request as response:
                async for part in response.aiter_bytes():
                    content += part
                    if len(content) > MAX_BYTES:
                        message = f"sent more than {MAX_BYTES:,} bytes"
                        raise Junk("too_long", message)
            return response.status_code, response.headers, content
        except (httpx.HTTPError, httpx.StreamError) as error:
            reason = str(error) or type(error).__name__
            message = f"cannot be reached at {self.url}: {self._without_key(reason)[:200]}"
            raise _Again(NotJudged("unreachable", message)) from error

    def _connect(self) -> httpx.AsyncClient:
        """Each request is limited as a whole by `_ask`, so httpx limits none of its parts."""
        import httpx

        headers = {"Accept-Encoding": "identity"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        # A proxy is for other machines; httpx would send it requests to this one as well.
        is_here = consent.place_of(self.url) == "this machine"
        limits = httpx.Limits(max_connections=self.judge.concurrency)
        return httpx.AsyncClient(
            headers=headers, timeout=None, limits=limits, trust_env=not is_here
        )

    def _content(self, body: bytes) -> str:
        """The text of the answer, whose tokens are counted. Raises: Junk."""
        try:
            reply = json.loads(body)
            choice = reply["choices"][0]
            text = choice["message"]["content"]
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            shown = self._without_key(" ".join(body[:200].decode(errors="replace").split()))
            message = f"did not speak the chat completions API: `{shown[:80]}`"
            raise Junk("not_json", message) from error
        self._count_tokens(reply.get("usage"))
        if choice.get("finish_reason") == "length":
            message = f"was cut off at `max_tokens` {self.judge.max_tokens}"
            raise Junk("cut_off", message)
        if not isinstance(text, str):
            raise Junk("not_json", "answered without a text")
        return text

    def _count_tokens(self, usage: Any) -> None:
        for name in ("prompt_tokens", "completion_tokens"):
            count = usage.get(name) if isinstance(usage, dict) else None
            if isinstance(count, int) and 0 <= count < 10**9:  # what a server says is not trusted
                setattr(self.cost, name, getattr(self.cost, name) + count)

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text


def _seconds(header: str | None) -> float | None:
    """What Retry-After asks for, in seconds from now; None where it says nothing usable."""
    if header is None:
        return None
    with contextlib.suppress(ValueError, OverflowError):
        return max(0.0, min(float(int(header)), 86_400.0))
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - time.time())
    return None
