"""Push one exported folder to the Hub as one commit: private unless it is said otherwise."""

from pathlib import Path

from r1recipes.errors import Problem, RunError
from r1recipes.machine.hub import explain


def missing(offline: bool) -> list[Problem]:
    """Why a push could not work, before anything is made."""
    from huggingface_hub import get_token

    if offline:
        return [Problem("a push to the Hub needs the network, and this is offline")]
    if not get_token():
        hint = "`hf auth login`, or set HF_TOKEN to a token that may write"
        return [Problem("a push to the Hub needs a token, and there is none", hint=hint)]
    return []


def push(folder: Path, repo: str, message: str, *, public: bool) -> str:
    """Returns the address of the commit. All files arrive in it, or none.

    Raises: RunError with the Hub's reason.
    """
    import httpx
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        # An existing repository keeps its visibility: nothing becomes public by accident.
        api.create_repo(repo, private=not public, exist_ok=True)
        commit = api.upload_folder(repo_id=repo, folder_path=folder, commit_message=message)
    except (httpx.HTTPError, OSError) as error:
        raise RunError(
            f"the push to `{repo}` failed: it {explain(error).predicate}",
            hint=f"what was exported is whole in {folder}; the token must be able to write to "
            f"`{repo}`",
        ) from error
    return commit.commit_url
