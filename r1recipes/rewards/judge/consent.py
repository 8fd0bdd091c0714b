"""Who may be asked to judge: an endpoint on this machine, or any other that the user allows.

As with wandb nothing leaves this machine unless the recipe names a place and the user allows it,
here with `--allow-judge`. An endpoint on this machine needs no permission, except for a recipe from
elsewhere. Limits: an address is judged by its name, and no name is looked up.
"""

import os
from typing import Literal
from urllib.parse import urlsplit

from r1recipes.errors import RecipeError
from r1recipes.rewards.judge.section import Judge

PRIVATE_SUFFIXES = (".local", ".internal", ".lan", ".home.arpa", ".localdomain", ".test", ".corp")
"""Endings of names that public DNS does not have (RFC 6761, 6762, 8375), or by custom."""
STANDS_FOR = "http://127.0.0.1:8000/v1"
"""What a shared recipe has in place of an address that is private; vLLM's default port."""

Place = Literal["this machine", "private", "public"]


def place_of(url: str) -> Place:
    """Where an endpoint is, by its name. A name without a dot is one of a private network."""
    import ipaddress  # imported late: commands stay quick

    host = (urlsplit(url).hostname or "").rstrip(".")
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        if host == "localhost" or host.endswith(".localhost"):
            return "this machine"
        return "private" if "." not in host or host.endswith(PRIVATE_SUFFIXES) else "public"
    address = getattr(address, "ipv4_mapped", None) or address
    if address.is_loopback:
        return "this machine"
    return "public" if address.is_global else "private"


def refuse_unallowed(
    judge: Judge | None, *, allowed: bool, offline: bool = False, is_foreign: bool = False
) -> None:
    """Raises: RecipeError where this judge may not be asked, or its key is missing.

    `allowed`: the user gave --allow-judge. `is_foreign`: the recipe is from elsewhere, so even an
    endpoint on this machine is the user's to allow.
    """
    if judge is None or judge.url is None:
        return
    place = place_of(judge.url)
    if not allowed and (is_foreign or place != "this machine"):
        raise RecipeError(
            "this recipe sends questions, references and completions to a judge at "
            f"{judge.url}: that needs --allow-judge",
            hint=f"look at [judge], then allow it{_with_key(judge)}",
        )
    if offline and place != "this machine":
        raise RecipeError(
            f"the judge at {judge.url} cannot be asked in a run that is offline",
            hint="serve it on this machine, such as `http://127.0.0.1:8080/v1`",
        )
    api_key(judge)


def sentence(judge: Judge) -> str:
    """What --allow-judge allows, for the screen."""
    return (
        f"--allow-judge sends questions, references and completions to {judge.url}, "
        f"model {judge.model}{_with_key(judge)}"
    )


def _with_key(judge: Judge) -> str:
    return f", with the key in ${judge.api_key_env}" if judge.api_key_env else ""


def api_key(judge: Judge) -> str | None:
    """The key of the endpoint; None where the recipe names none. Raises: RecipeError."""
    name = judge.api_key_env
    if name is None:
        return None
    key = os.environ.get(name, "").strip()
    if not key or not key.isascii() or not key.isprintable():
        fault = "is not set" if not key else "is not a key: it has characters that no key has"
        hint = f"`export {name}=...` in the shell that starts this"
        raise RecipeError(f"`judge.api_key_env` names {name}, which {fault}", hint=hint)
    return key


def warnings(judge: Judge) -> list[str]:
    """What is doubtful about an endpoint, without asking it."""
    if judge.url is None:
        return []
    doubts = []
    if judge.api_key_env and not os.environ.get(judge.api_key_env):
        doubts.append(f"`judge.api_key_env` names {judge.api_key_env}, which is not set here")
    if place_of(judge.url) == "public" and judge.url.startswith("http:"):
        doubts.append(
            f"{judge.url} is not encrypted: anyone on the network path can read what is judged"
        )
    return doubts


def without_private(judge: Judge) -> Judge:
    """The section as it may be shared: a private address stays here."""
    if judge.url is None or place_of(judge.url) != "private":
        return judge
    return judge.model_copy(update={"url": STANDS_FOR})
