"""Make the forms of one run, each in a draft folder, checked, and then put in its place."""

import json
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

from safetensors import safe_open

from r1recipes.machine import packages
from r1recipes.machine.files import DRAFT, now, put
from r1recipes.planning import disk
from r1recipes.publish import builtin_gguf, llama_cpp, ollama, run_card
from r1recipes.publish.checks import NUM_TOKENS, Reference
from r1recipes.recipe.targets import Target
from r1recipes.runs.trained import TrainedRun
from r1recipes.training.backends import builtin, merge, weights

BYTES = {"f16": 2.0, "q8_0": 1.07, "q6_k": 0.83, "q5_k_m": 0.73, "q4_k_m": 0.62}
"""Bytes of a weight: derived from the blocks of ggml-common.h, the k types rounded up for the
tensors that llama-quantize keeps larger."""
REST_BYTES = 64 * 2**20
"""Tokenizer, card and the like; assumed."""


class Forms:
    """The forms of one run; the merged model is made once for all that need it."""

    def __init__(self, finished: TrainedRun, wanted: Any, examples: list[merge.Example], say: Any):
        self.finished, self.wanted, self.say = finished, wanted, say
        self.plan = finished.plan
        self.is_builtin = self.plan.recipe.model.name.startswith("builtin:")
        self.work = wanted.folder / f"{DRAFT}{os.getpid()}"
        self.merged: Path | None = None
        self.say("Loading base and adapter")
        self.trained = merge.Trained(
            _with_revision(finished),
            wanted.base or finished.base,
            finished.run.adapter,
            finished.chat_template(),
            offline=wanted.offline,
        )
        disk.check(disk.Need(wanted.folder, self.needed_bytes()))
        self.own_tokenizer = builtin.is_own(self.trained.tokenizer)
        self.dtype = str(self.trained.dtype()).removeprefix("torch.")
        self.reference = Reference.of(self.trained, examples)

    def needed_bytes(self) -> int:
        """Of all forms, and of the files that some are made from."""
        count, targets = self.trained.num_parameters(), self.wanted.targets
        kinds, types = {t.kind for t in targets}, [n for t in targets for n in t.types]
        files = [*self.finished.run.adapter.iterdir()]
        if "lora" in kinds and self.finished.base:
            files += self.finished.base.iterdir()
        needed = sum(path.stat().st_size for path in files) + REST_BYTES
        if kinds - {"lora", "hub"}:
            needed += 2 * count
        if "merged_4bit" in kinds:
            needed += count
        if any(llama_cpp.is_small(name) for name in types):
            needed += 2 * count
        return needed + sum(round(BYTES[name] * count) for name in types)

    def make(self, target: Target) -> Path:
        """Make one form and return its folder. The adapter comes before what merges it."""
        self.work.mkdir(exist_ok=True)
        return {
            "lora": self.lora,
            "merged_16bit": self.merged_16bit,
            "merged_4bit": self.merged_4bit,
            "gguf": self.gguf,
            "ollama": self.ollama,
        }[target.kind](target)

    def lora(self, target: Target) -> Path:
        """The adapter; beside it its base, where that is on no Hub."""
        self.say("Writing the adapter")
        draft = self._draft("lora")
        for path in self.finished.run.adapter.iterdir():
            if path.name != "README.md":
                shutil.copy(path, draft)
        name = self.wanted.base or self.plan.recipe.model.name
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
                str(draft / "base") if has_base else weights.resolve_name(name, self.plan.base_dir),
                own_tokenizer=self.own_tokenizer,
            )
        )
        return self._finish(draft, target, [check])

    def merged_16bit(self, target: Target) -> Path:
        draft = self._merged()
        self.merged = self._finish(draft, target, [self.merged_check])
        return self.merged

    def _merged(self) -> Path:
        """The merged folder, made and checked once."""
        if self.merged is None:
            self.say("Merging")
            self.merged = self._draft("merged_16bit")
            self.trained.save_merged(self.merged)
            self.say("Checking the merged model")
            model, tokenizer = merge.reload(self.merged, own_tokenizer=self.own_tokenizer)
            self.merged_check = self.reference.check_weights(model, tokenizer)
            self.greedy = [
                merge.greedy(model, tokenizer, messages, NUM_TOKENS)
                for messages, _ in self.reference.examples
            ]
        return self.merged

    def merged_4bit(self, target: Target) -> Path:
        merged = self._merged()
        self.say("Quantising to NF4")
        draft = self.work / target.kind
        merge.save_4bit(merged, draft)
        model, tokenizer = merge.reload(draft, own_tokenizer=self.own_tokenizer, device="cuda")
        check = self.reference.check_weights(model, tokenizer, in_4bit=True)
        return self._finish(draft, target, [check])

    def gguf(self, target: Target) -> Path:
        draft = self._draft(target.kind)
        checks = [self._gguf_file(draft, kind)[1] for kind in target.types]
        return self._finish(draft, target, checks)

    def ollama(self, target: Target) -> Path:
        draft = self._draft(target.kind)
        file, check = self._gguf_file(draft, target.types[0])
        text, own = ollama.modelfile(
            self.reference.tokenizer,
            self.plan.recipe.prompt.system,
            file.name,
            self.plan.preset.max_seq_length,
        )
        (draft / "Modelfile").write_text(text, encoding="utf-8")
        return self._finish(draft, target, [check, ollama.OWN if own else ollama.NONE])

    def _gguf_file(self, draft: Path, kind: str) -> tuple[Path, str]:
        """The file of a type, and what llama.cpp made of it."""
        merged, name = self._merged(), self.finished.run.read()["recipe"]
        self.say(f"Writing GGUF {kind}")
        file = draft / f"{name}-{kind}.gguf"
        if llama_cpp.is_small(kind):
            source = self.work / "source.gguf"
            if not source.exists():  # lossless: the 16 bits that the merged model has
                self._convert(merged, source, "bf16" if self.dtype == "bfloat16" else "f16")
            llama_cpp.quantize(source, file, kind)
        else:
            self._convert(merged, file, kind)
        self.say(f"Checking GGUF {kind}")
        return file, self.reference.check_gguf(file, kind, self.greedy)

    def _convert(self, merged: Path, file: Path, outtype: str) -> None:
        if self.own_tokenizer:
            builtin_gguf.write(merged, file, outtype)
        else:
            llama_cpp.convert(merged, file, outtype)

    def _dtype(self, target: Target) -> str:
        if target.kind == "lora":
            return _adapter_dtype(self.finished.run.adapter)
        return "NF4" if target.kind == "merged_4bit" else self.dtype

    def _draft(self, name: str) -> Path:
        draft = self.work / name
        draft.mkdir()
        return draft

    def _finish(self, draft: Path, target: Target, checks: list[str]) -> Path:
        """Card and proof into the draft, then the draft into its place."""
        model, plan = self.plan.recipe.model, self.plan
        base = self.wanted.base or model.name
        local = self.is_builtin or Path(weights.resolve_name(base, plan.base_dir)).is_dir()
        made = {
            "form": target.kind,
            "run": self.finished.run.folder.name,
            "fingerprint": self.finished.run.read()["fingerprint"],
            "base": Path(base).name if local else base,
            "base_on_hub": not local and self.finished.base is None,
            "base_revision": self.trained.revision,
            "cold_start": self.finished.base is not None,
            "own_tokenizer": self.own_tokenizer,
            "dtype": self._dtype(target),
            "trained_in_4bit": plan.preset.load_in_4bit,
            "checks": checks,
            "files": _gguf_files(draft),
            "versions": packages.versions(),
            "made": now(),
        }
        (draft / "README.md").write_text(run_card.text(self.finished, made), encoding="utf-8")
        (draft / "export.json").write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
        put(draft, self.wanted.folder / target.kind)
        return self.wanted.folder / target.kind


def _adapter_dtype(adapter: Path) -> str:
    """32 bits from plain TRL, 16 from Unsloth."""
    with safe_open(adapter / "adapter_model.safetensors", "pt") as tensors:
        return str(tensors.get_tensor(next(iter(tensors.keys()))).dtype).removeprefix("torch.")


def _with_revision(finished: TrainedRun) -> Any:
    """Where the base was loaded in 4 bits, the recorded commit may be of another repository: then
    only a commit that the recipe itself names holds for the 16-bit weights."""
    plan = finished.plan
    if not plan.preset.load_in_4bit:
        return plan
    revision = finished.run.plan().recipe.model.revision
    model = plan.recipe.model.model_copy(update={"revision": revision})
    return plan.model_copy(update={"recipe": plan.recipe.model_copy(update={"model": model})})


def _name_base(config: Path, base: str) -> None:
    """Training wrote where the base was on that machine."""
    found = json.loads(config.read_text()) | {"base_model_name_or_path": base}
    config.write_text(json.dumps(found, indent=2) + "\n")


def _gguf_files(draft: Path) -> dict[str, Any]:
    """Size and types of the tensors of each GGUF file, read back."""
    found = {}
    for path in sorted(draft.glob("*.gguf")):
        from gguf import GGUFReader

        types = Counter(tensor.tensor_type.name for tensor in GGUFReader(path).tensors)
        found[path.name] = {"bytes": path.stat().st_size, "tensors": dict(types.most_common())}
    return found
