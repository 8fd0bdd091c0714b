"""The forms of a run, each a row of a table, and what makes them: as a draft, checked, renamed.

Limits: everything runs on the CPU, except for loading 4 bits again. torch is imported only when a
form is made, since a run looks here at what the forms of its recipe need.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1recipes.errors import Problem
from r1recipes.machine import gpu, packages
from r1recipes.machine.files import now, put
from r1recipes.planning import disk
from r1recipes.planning.plan import Plan
from r1recipes.publish import builtin_gguf, cards, llama_cpp, ollama
from r1recipes.recipe.targets import KINDS, Target
from r1recipes.runs.trained import TrainedRun

if TYPE_CHECKING:
    from r1recipes.training.backends import merge

BYTES = {"f16": 2.0, "q8_0": 1.07, "q6_k": 0.83, "q5_k_m": 0.73, "q4_k_m": 0.62}
"""Bytes of a weight: derived from the blocks of ggml-common.h, the k types rounded up for the
tensors that llama-quantize leaves larger."""
REST_BYTES = 64 * 2**20
"""Bytes of tokenizer, card and other small files; assumed."""


@dataclass(frozen=True)
class Merged:
    """The merged model, which is made and checked once."""

    folder: Path
    check: str
    """The result of its check, a sentence for the card."""
    greedy: list[list[int]]
    """Tokens of its greedy answer to each example."""


class Maker:
    """Makes the forms of one run; the merged model is made once for all that need it."""

    def __init__(
        self,
        finished: TrainedRun,
        examples: list[merge.Example],
        say: Callable[[str], None],
        *,
        by_base: bool,
        targets: list[Target],
        folder: Path,
        base: str | None,
        offline: bool,
        work: Path,
    ):
        """`work`: an empty folder for drafts, on the file system of `folder`."""
        from r1recipes.publish.checks import Reference
        from r1recipes.training.backends import builtin, merge

        self.finished, self.say, self.work = finished, say, work
        self.targets, self.folder, self.base = targets, folder, base
        self.plan = finished.plan
        self.is_builtin = finished.model_name.startswith("builtin:")
        self._merged: Merged | None = None
        self.say(f"Loading base and adapter{f', {finished.note}' if finished.note else ''}")
        self.trained = merge.Trained(
            _with_revision(finished),
            base or finished.base,
            finished.adapter,
            finished.chat_template(),
            offline=offline,
        )
        disk.check(disk.Need(folder, self.needed_bytes()))
        self.own_tokenizer = builtin.is_own(self.trained.tokenizer)
        self.dtype = str(self.trained.dtype()).removeprefix("torch.")
        self.reference = Reference.of(self.trained, examples, by_base=by_base)

    def needed_bytes(self) -> int:
        """Bytes of all forms, and of the files that some are made from."""
        count = self.trained.num_parameters()
        targets = [target for target in self.targets if target.kind in FORMS]
        needed = REST_BYTES + sum(FORMS[t.kind].bytes(self, t) for t in targets)
        if any(FORMS[target.kind].is_merged for target in targets):
            needed += 2 * count
        if any(llama_cpp.is_small(name) for target in targets for name in target.types):
            needed += 2 * count
        return needed

    def make(self, target: Target) -> Path:
        """Make one form and return its folder. The adapter comes before what merges it."""
        return FORMS[target.kind].make(self, target)

    def lora(self, target: Target) -> Path:
        """The adapter; beside it the base, where the Hub does not have it."""
        from r1recipes.training.backends import merge
        from r1recipes.training.backends.weights import resolve_name

        self.say("Writing the adapter")
        draft = self._draft("lora")
        for path in self.finished.adapter_files():
            shutil.copy(path, draft)
        name = self.base or self.finished.model_name
        if self.finished.base:
            shutil.copytree(self.finished.base, draft / "base")
        elif self.is_builtin:
            merge.save_builtin(self.plan, draft / "base")
        has_base = (draft / "base").exists()
        _name_base(draft / "adapter_config.json", "base" if has_base else name)
        self.say("Checking the adapter")
        check = self.reference.check_weights(
            *merge.reload(
                draft,
                str(draft / "base") if has_base else resolve_name(name, self.plan.base_dir),
                own_tokenizer=self.own_tokenizer,
            )
        )
        return self._finish(draft, target, [check])

    def merged_16bit(self, target: Target) -> Path:
        """Base and adapter as one model in 16 bits."""
        merged = self.merged()
        self._merged = replace(merged, folder=self._finish(merged.folder, target, [merged.check]))
        return self._merged.folder

    def merged(self) -> Merged:
        """The merged model: a draft until `merged_16bit` gives it its final folder."""
        from r1recipes.publish.checks import NUM_TOKENS
        from r1recipes.training.backends import merge

        if self._merged is None:
            self.say("Merging")
            folder = self._draft("merged_16bit")
            self.trained.save_merged(folder)
            self.say("Checking the merged model")
            model, tokenizer = merge.reload(folder, own_tokenizer=self.own_tokenizer)
            check = self.reference.check_weights(model, tokenizer)
            greedy = [
                merge.greedy(model, tokenizer, messages, NUM_TOKENS)
                for messages, _ in self.reference.examples
            ]
            self._merged = Merged(folder, check, greedy)
        return self._merged

    def merged_4bit(self, target: Target) -> Path:
        """The merged model in 4 bits, for bitsandbytes."""
        from r1recipes.training.backends import merge

        merged = self.merged().folder
        self.say("Quantising to NF4")
        draft = self.work / target.kind
        merge.save_4bit(merged, draft)
        model, tokenizer = merge.reload(draft, own_tokenizer=self.own_tokenizer, device="cuda")
        check = self.reference.check_weights(model, tokenizer, in_4bit=True)
        return self._finish(draft, target, [check])

    def gguf(self, target: Target) -> Path:
        """The merged model as GGUF, one file for each type."""
        draft = self._draft(target.kind)
        checks = [self._gguf_file(draft, kind)[1] for kind in target.types]
        return self._finish(draft, target, checks)

    def for_ollama(self, target: Target) -> Path:
        """The merged model as GGUF with a Modelfile."""
        draft = self._draft(target.kind)
        file, check = self._gguf_file(draft, target.types[0])
        text, has_template = ollama.modelfile(
            self.reference.tokenizer,
            self.plan.recipe.prompt.system,
            file.name,
            self.plan.preset.max_seq_length,
        )
        (draft / "Modelfile").write_text(text, encoding="utf-8")
        return self._finish(draft, target, [check, ollama.OWN if has_template else ollama.NONE])

    def _gguf_file(self, draft: Path, kind: str) -> tuple[Path, str]:
        """The file of a type, and the result of its check."""
        merged, name = self.merged(), self.finished.run.read()["recipe"]
        self.say(f"Writing GGUF {kind}")
        file = draft / f"{name}-{kind}.gguf"
        if llama_cpp.is_small(kind):
            source = self.work / "source.gguf"
            if not source.exists():  # lossless: in the 16 bits of the merged model
                self._convert(merged.folder, source, "bf16" if self.dtype == "bfloat16" else "f16")
            llama_cpp.quantize(source, file, kind)
        else:
            self._convert(merged.folder, file, kind)
        self.say(f"Checking GGUF {kind}")
        return file, self.reference.check_gguf(file, kind, merged.greedy)

    def _convert(self, merged: Path, file: Path, outtype: str) -> None:
        if self.own_tokenizer:
            builtin_gguf.write(merged, file, outtype)
        else:
            llama_cpp.convert(merged, file, outtype)

    def _draft(self, name: str) -> Path:
        draft = self.work / name
        draft.mkdir()
        return draft

    def _finish(self, draft: Path, target: Target, checks: list[str]) -> Path:
        """Write card and export.json into the draft, and rename it to its final folder."""
        from r1recipes.training.backends.weights import resolve_name

        plan, form = self.plan, FORMS[target.kind]
        base = self.base or self.finished.model_name
        is_local = self.is_builtin or Path(resolve_name(base, plan.base_dir)).is_dir()
        manifest = {
            "form": target.kind,
            "run": self.finished.run.folder.name,
            "fingerprint": self.finished.run.read()["fingerprint"],
            "step": self.finished.step,
            "max_steps": plan.recipe.train.max_steps,
            "base": Path(base).name if is_local else base,
            "base_on_hub": not is_local and self.finished.base is None,
            "base_revision": self.trained.revision,
            "cold_start": plan.recipe.cold_start is not None,
            "starts_from": plan.origin.sentence() if plan.origin else None,
            "own_tokenizer": self.own_tokenizer,
            "dtype": form.dtype(self),
            "trained_in_4bit": plan.preset.weights == "4bit",
            "trained_in_fp8": plan.preset.weights == "fp8",
            "checks": checks,
            "files": _gguf_files(draft),
            "versions": packages.versions(),
            "made": now(),
        }
        card = cards.of_export(self.finished, manifest, form.use)
        (draft / "README.md").write_text(card, encoding="utf-8")
        (draft / "export.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        put(draft, self.folder / target.kind, taken="replace")
        return self.folder / target.kind


def _adapter_dtype(adapter: Path) -> str:
    """The adapter's precision: 32 bits from plain TRL, 16 from Unsloth."""
    from safetensors import safe_open

    with safe_open(adapter / "adapter_model.safetensors", "pt") as tensors:
        return str(tensors.get_tensor(next(iter(tensors.keys()))).dtype).removeprefix("torch.")


def _with_revision(finished: TrainedRun) -> Plan:
    """The plan with the commit of the 16-bit base."""
    plan = finished.plan
    model = plan.recipe.model.model_copy(update={"revision": finished.base_revision})
    return plan.model_copy(update={"recipe": plan.recipe.model_copy(update={"model": model})})


def _name_base(config: Path, base: str) -> None:
    """Replace the base's folder on the machine that trained, which the adapter's config has."""
    content = json.loads(config.read_text()) | {"base_model_name_or_path": base}
    config.write_text(json.dumps(content, indent=2) + "\n")


def _gguf_files(draft: Path) -> dict[str, Any]:
    """Bytes and types of tensors of each GGUF file, read from the file itself."""
    described = {}
    for path in sorted(draft.glob("*.gguf")):
        from gguf import GGUFReader

        types = Counter(tensor.tensor_type.name for tensor in GGUFReader(path).tensors)
        described[path.name] = {"bytes": path.stat().st_size, "tensors": dict(types.most_common())}
    return described


@dataclass(frozen=True)
class Form:
    """One form: what it needs, how large it is, how it is made and how it is used."""

    make: Callable[[Maker, Target], Path]
    """Writes it as a draft, checks it, and returns the folder that `_finish` gives it."""
    use: cards.Use
    bytes: Callable[[Maker, Target], int] = lambda maker, target: 0
    """Its bytes beside those of the merged model in 16 bits."""
    is_merged: bool = True
    """Whether it is, or is made from, the merged model in 16 bits."""
    missing: Callable[[Target, str], list[Problem]] = lambda target, model: []
    """What it needs, for the model of this name, and this machine does not have."""
    dtype: Callable[[Maker], str] = lambda maker: maker.dtype
    """The precision of the weights that it has, or is made from."""


def _adapter_bytes(maker: Maker, target: Target) -> int:
    base = maker.finished.base
    paths = [*maker.finished.adapter_files(), *(base.iterdir() if base else ())]
    return sum(path.stat().st_size for path in paths)


def _gguf_bytes(maker: Maker, target: Target) -> int:
    count = maker.trained.num_parameters()
    return sum(round(BYTES[name] * count) for name in target.types)


def _missing_llama_cpp(target: Target, model: str) -> list[Problem]:
    return llama_cpp.missing(target.types, builtin=model.startswith("builtin:"))


def _missing_4bit(target: Target, model: str) -> list[Problem]:
    hint = "`--to gguf:q4_k_m` has 4 bits and needs no GPU"
    if gpu.current() is None:
        return [Problem("merged_4bit needs an NVIDIA GPU, and there is none here", hint=hint)]
    if importlib.util.find_spec("bitsandbytes") is None:
        return [Problem("merged_4bit needs the package `bitsandbytes`", hint=hint)]
    return []


_ROWS = {
    "lora": Form(
        Maker.lora,
        cards.ADAPTER,
        _adapter_bytes,
        is_merged=False,
        dtype=lambda maker: _adapter_dtype(maker.finished.adapter),
    ),
    "merged_16bit": Form(Maker.merged_16bit, cards.MERGED),
    "merged_4bit": Form(
        Maker.merged_4bit,
        cards.QUANTIZED,
        lambda maker, target: maker.trained.num_parameters(),
        missing=_missing_4bit,
        dtype=lambda maker: "NF4",
    ),
    "gguf": Form(Maker.gguf, cards.GGUF, _gguf_bytes, missing=_missing_llama_cpp),
    "ollama": Form(Maker.for_ollama, cards.OLLAMA, _gguf_bytes, missing=_missing_llama_cpp),
}
FORMS = {name: _ROWS[name] for name in KINDS if name != "hub"}
"""Every form, in the order in which they are made. A push to the Hub is no form of its own."""
