"""Push to the Hub: an exported folder, or the files of a shared recipe, each as one commit.

An existing repository keeps its visibility, so that nothing becomes public by accident.
"""

from pathlib import Path

from r1recipes.errors import Problem, RecipeError, RunError
from r1recipes.machine.hub import explain, hub_errors
from r1recipes.publish import cards
from r1recipes.recipe import bundle
from r1recipes.recipe.bundle import Files
from r1recipes.recipe.download import parse_hub


def missing(offline: bool) -> list[Problem]:
    """Why a push would fail, found before anything is made."""
    from huggingface_hub import get_token

    if offline:
        hint = "leave out `--offline`, or `unset HF_HUB_OFFLINE R1RECIPES_OFFLINE`"
        return [Problem("a push to the Hub needs the network, and this is offline", hint=hint)]
    if not get_token():
        hint = "`hf auth login`, or set HF_TOKEN to a token that may write"
        return [Problem("a push to the Hub needs a token, and there is none", hint=hint)]
    return []


def push_folder(folder: Path, repo: str, message: str, *, public: bool) -> str:
    """Push an exported folder; returns the address of the commit. All files arrive, or none.

    Raises: RunError with the Hub's reason.
    """
    import httpx
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        api.create_repo(repo, private=not public, exist_ok=True)
        commit = api.upload_folder(repo_id=repo, folder_path=folder, commit_message=message)
    except (httpx.HTTPError, OSError) as error:
        raise RunError(
            f"the push to `{repo}` failed: it {explain(error).predicate}",
            hint=f"the whole export is in {folder}; the token must be able to write to `{repo}`",
        ) from error
    return commit.commit_url


def push_recipe(files: Files, reference: str, *, private: bool) -> str:
    """Push the files of a shared recipe to hub:user/name[/folder]; returns the new reference.

    A card that somebody else wrote, such as that of a model, stays as it is.

    Raises: RecipeError with the Hub's reason, or when the reference names a revision.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    target = parse_hub(reference)
    if target.revision:
        raise RecipeError.at(reference, "names a revision", "a push goes to the main branch")
    api, repo, folder = HfApi(), target.repo, f"{target.path}/" if target.path else ""
    with hub_errors(reference):
        api.create_repo(repo, private=private, exist_ok=True)
        present = set(api.list_repo_files(repo))
        readme = f"{folder}README.md"
        if readme in present:
            card = Path(api.hf_hub_download(repo, readme)).read_text(errors="replace")
            if cards.MARK not in card:
                files = {name: content for name, content in files.items() if name != "README.md"}
        stale = [n for n in bundle.PROOF if n not in files and n != "README.md"]
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            *(CommitOperationAdd(folder + name, content) for name, content in files.items()),
            *(CommitOperationDelete(folder + n) for n in stale if folder + n in present),
        ]
        message = "A recipe with its proof, by `r1recipes share`"
        commit = api.create_commit(repo, operations, commit_message=message)
    return f"hub:{repo}@{commit.oid}" + (f"/{target.path}" if target.path else "")
