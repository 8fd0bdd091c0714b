"""Exports of a trained run: what is written, checked and refused, and what a kill leaves."""

import json
import shutil
import signal
import subprocess
import sys
import time
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from r1recipes.errors import RecipeError, RunError
from r1recipes.machine import files
from r1recipes.publish import export, llama_cpp
from r1recipes.recipe.targets import parse
from r1recipes.runs import trained as trained_runs
from r1recipes.runs.record import Run
from tests.helpers import command, in_process
from tests.hub_server import HubServer

QUESTIONS = ["12 + 34 = ?", "<answer>1</answer></answer", "a <b>  c\n\nd ", "<|end|>x", "~{|}"]


@pytest.fixture(scope="module")
def exported(request, tmp_path_factory):
    """A folder with every form that needs no package other than gguf."""
    run = request.getfixturevalue("finished")
    folder = tmp_path_factory.mktemp("export")
    execute(run, folder, "lora", "merged_16bit", "gguf:f16,q8_0", "ollama")
    return folder


def execute(run, folder, *forms, **options):
    targets, problems = parse(forms)
    assert not problems
    request = export.Request(targets, folder, offline=True, **options)
    return export.execute(finished_of(run), request, lambda line: None)


def test_merged_weights_are_base_plus_adapter_to_rounding(finished, exported):
    base = load_file(finished.base / "model.safetensors")
    adapter = load_file(finished.adapter / "adapter_model.safetensors")
    merged = load_file(exported / "merged_16bit" / "model.safetensors")
    config = json.loads((finished.adapter / "adapter_config.json").read_text())
    scale = config["lora_alpha"] / config["r"]
    assert base.keys() == merged.keys()
    changed = 0
    for name, weight in base.items():
        module = f"base_model.model.{name.removesuffix('.weight')}"
        a, b = (adapter.get(f"{module}.lora_{x}.weight") for x in "AB")
        delta = scale * b @ a if a is not None else torch.zeros(())
        changed += bool(delta.any())
        assert merged[name].dtype == torch.float16
        # Rounded once: within half a step of float16, 2^-11 of the value, or of its smallest.
        error = (merged[name].float() - (weight + delta)).abs()
        assert (error <= weight.add(delta).abs() * 2**-11 + 2**-25 + 1e-7).all(), name
    assert changed == 2 * 7  # layers x target modules


def test_the_adapter_comes_with_a_base_that_is_on_no_hub(finished, exported):
    config = json.loads((exported / "lora" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "base"
    copied = load_file(exported / "lora" / "adapter_model.safetensors")
    trained = load_file(finished.adapter / "adapter_model.safetensors")
    assert all(torch.equal(copied[name], weight) for name, weight in trained.items())
    assert (exported / "lora" / "base" / "model.safetensors").exists()


@pytest.mark.parametrize("form", ["lora", "merged_16bit", "gguf", "ollama"])
def test_the_card_says_what_was_measured_and_nothing_of_this_machine(finished, exported, form):
    card = (exported / form / "README.md").read_text()
    record = finished.read()
    for when in ("before", "after"):
        assert f"| {when} | {record['evaluation'][when]['accuracy']:.1%} |" in card
    assert record["fingerprint"] in card and "digits = 2" in card
    manifest = json.loads((exported / form / "export.json").read_text())
    assert manifest["dtype"] == ("float32" if form == "lora" else "float16")
    assert manifest["form"] == form and all(check in card for check in manifest["checks"])
    folder = str(finished.folder.parent)
    assert folder not in card and folder not in json.dumps(manifest)


def test_the_code_on_the_card_runs(exported):
    folder = exported / "lora"
    card = (folder / "README.md").read_text()
    code = card.split("```python\n")[1].split("```")[0].replace("THIS_FOLDER", str(folder))
    scope: dict[str, Any] = {}
    exec(code, scope)
    ids = scope["tokenizer"]("1 2", return_tensors="pt")
    assert scope["model"](**ids).logits.shape[1] == 3


def test_a_gguf_file_holds_the_merged_weights(exported):
    import gguf

    merged = load_file(exported / "merged_16bit" / "model.safetensors")
    reader = gguf.GGUFReader(exported / "gguf" / "small-f16.gguf")
    tensors = {tensor.name: torch.tensor(tensor.data) for tensor in reader.tensors}
    assert len(tensors) == len(merged)
    assert torch.equal(tensors["token_embd.weight"], merged["model.embed_tokens.weight"])
    down = merged["model.layers.1.mlp.down_proj.weight"]
    assert torch.equal(tensors["blk.1.ffn_down.weight"], down)
    bias = merged["model.layers.0.self_attn.q_proj.bias"]
    assert torch.equal(tensors["blk.0.attn_q.bias"], bias.float())


@pytest.mark.slow
def test_llama_cpp_splits_text_and_answers_as_the_merged_model(exported):
    pytest.importorskip("llama_cpp")
    from r1recipes.training.backends import merge

    model, tokenizer = merge.reload(exported / "merged_16bit", own_tokenizer=True)
    chats = [[{"role": "user", "content": question}] for question in QUESTIONS]
    texts = [
        tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        for chat in chats
    ]
    file, judged = exported / "gguf" / "small-f16.gguf", [[10]] * len(chats)
    answers = llama_cpp.answers(file, texts, judged, 32, 256)
    for chat, answer in zip(chats, answers, strict=True):
        assert answer.prompt == merge.prompt_ids(tokenizer, chat)
        assert answer.greedy == merge.greedy(model, tokenizer, chat, 32)
        assert answer.logits.shape == (2, len(tokenizer))


def test_what_is_there_is_replaced_only_when_asked(finished, exported, tmp_path):
    shutil.copytree(exported / "lora", tmp_path / "lora")
    (tmp_path / "lora" / "mine.txt").write_text("x")
    with pytest.raises(RecipeError, match="lora` exists"):
        execute(finished, tmp_path, "lora")
    assert (tmp_path / "lora" / "mine.txt").exists()
    execute(finished, tmp_path, "lora", replace=True)
    assert not (tmp_path / "lora" / "mine.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["lora"]


def test_a_link_in_a_run_folder_takes_no_other_file_along(finished, tmp_path):
    copy = Run(shutil.copytree(finished.folder, tmp_path / "run", symlinks=True))
    (tmp_path / "secret").write_text("x")
    (copy.adapter / "more.txt").symlink_to(tmp_path / "secret")
    with pytest.raises(RecipeError, match="is a link, or below one"):
        execute(copy, tmp_path / "out", "lora")
    assert not (tmp_path / "out").exists()


def test_another_base_than_the_trained_one_is_refused(finished, tmp_path):
    shutil.copytree(finished.base, tmp_path / "other")
    weights = load_file(finished.base / "model.safetensors")
    weights["model.norm.weight"] *= -1
    save_file(weights, tmp_path / "other" / "model.safetensors", {"format": "pt"})
    with pytest.raises(RunError, match="not the model that was trained"):
        execute(finished, tmp_path / "out", "merged_16bit", base=str(tmp_path / "other"))
    assert list((tmp_path / "out").iterdir()) == []


def test_weights_that_are_not_the_trained_ones_are_refused(finished, exported):
    """What a merge that forgets the adapter would write."""
    from r1recipes.publish.checks import Reference
    from r1recipes.training.backends import merge

    run = finished_of(finished)
    trained = merge.Trained(run.plan, run.base, finished.adapter, run.chat_template(), offline=True)
    reference = Reference.of(trained, export._examples(run)[0])
    model, tokenizer = merge.reload(exported / "merged_16bit", own_tokenizer=True)
    assert "loaded again" in reference.check_weights(model, tokenizer)
    base, _ = merge.reload(finished.base, own_tokenizer=True)
    with pytest.raises(RunError, match="does not answer as the trained model does"):
        reference.check_weights(base, tokenizer)
    base.lm_head.weight.data.neg_()
    with pytest.raises(RunError, match="does not answer as the trained model does"):
        reference.check_weights(base, tokenizer, in_4bit=True)
    blur(model, 0.3)  # moves it further than half the way that training did
    with pytest.raises(RunError, match="does not answer as the trained model does"):
        reference.check_weights(model, tokenizer)
    assert "loaded again" in reference.check_weights(model, tokenizer, in_4bit=True)
    model, tokenizer = merge.reload(exported / "merged_16bit", own_tokenizer=True)
    # AutoTokenizer splits text as Qwen2 does.
    _, auto_tokenizer = merge.reload(exported / "merged_16bit")
    with pytest.raises(RunError, match="splits text into other tokens"):
        reference.check_weights(model, auto_tokenizer)


def blur(model, scale):
    generator = torch.Generator().manual_seed(1)
    for weight in model.parameters():
        noise = torch.randn(weight.shape, generator=generator) * scale * weight.float().std()
        weight.data += noise.to(weight.dtype)


def finished_of(run):
    return trained_runs.find(run.folder, str(run.folder))


def test_the_disk_is_looked_at_first(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 10**6))
    with pytest.raises(RunError, match="needs .* MB, its disk has 1.0 MB free"):
        execute(finished, tmp_path, "gguf:f16,q8_0")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "merged_4bit"], "needs an NVIDIA GPU"),
        (["--to", "hub:me/x", "--offline"], "needs the network"),
        (["--to", "lora", "--to", "gguf", "--to", "hub:me/x"], "holds one form"),
        (["--to", "nothing", "--to", "hub:x"], "unknown form `nothing`"),
        (["--to", "lora", "--out", "/proc/no/x"], "`/proc/no/x` cannot be written"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_loaded(
    finished, tmp_path, arguments, message
):
    code, out, err = in_process("export", finished.folder, "--out", tmp_path / "o", *arguments)
    assert code == 2 and message in err and "Loading" not in out
    assert not (tmp_path / "o").exists()


def test_a_converter_that_is_not_there_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("LLAMA_CPP_DIR", raising=False)
    messages = [problem.message for problem in llama_cpp.missing(("q8_0",), builtin=False)]
    assert "GGUF needs llama.cpp's converter, and it was not found" in messages
    assert llama_cpp.missing(("f16", "q8_0"), builtin=True) == []
    (tmp_path / "convert_hf_to_gguf.py").write_text("raise SystemExit('no such architecture')")
    monkeypatch.setenv("LLAMA_CPP_DIR", str(tmp_path))
    assert llama_cpp.converter() == tmp_path / "convert_hf_to_gguf.py"
    with pytest.raises(RunError, match="converter failed: no such architecture"):
        llama_cpp.convert(tmp_path, tmp_path / "x.gguf", "f16")


@pytest.mark.slow
def test_a_kill_leaves_the_old_state_or_the_new_one(finished, exported, tmp_path):
    """benchmarks/reliability/export.py does this many times."""
    shutil.copytree(exported / "lora", tmp_path / "out" / "lora")
    before = (tmp_path / "out" / "lora" / "export.json").read_text()
    words = [sys.executable, "-m", "r1recipes", "export", str(finished.folder)]
    words += ["--out", str(tmp_path / "out"), "--to", "lora", "--to", "merged_16bit", "--force"]
    child = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    for line in child.stdout:
        if line.startswith("Writing the adapter"):
            time.sleep(0.02)
            child.send_signal(signal.SIGKILL)
    child.wait()
    assert (tmp_path / "out" / "lora" / "export.json").read_text() == before
    assert list((tmp_path / "out").glob(f"{files.DRAFT}*"))
    assert not (tmp_path / "out" / "merged_16bit").exists()
    (tmp_path / "out" / f".draft-{2**22 + 1}").mkdir()  # the name that an older version gave
    execute(finished, tmp_path / "out", "lora", replace=True)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["lora"]


@pytest.mark.slow
def test_a_push_is_one_commit(finished, tmp_path):
    with HubServer() as hub:
        arguments = ["--out", tmp_path / "out", "--to", "hub:me/adder"]
        environment = hub.environment(tmp_path)
        done = command("export", finished.folder, *arguments, cwd=tmp_path, **environment)
        assert done.returncode == 0, done.stderr
        (pushed,) = [files for _, files in hub.repos["models/me/adder"] if "README.md" in files]
        again = command("export", finished.folder, *arguments, cwd=tmp_path, **environment)
        assert again.returncode == 0 and "Loading" not in again.stdout, again.stderr
        assert again.stdout.splitlines()[-1].startswith("pushed http")
    assert {"adapter_model.safetensors", "export.json", "base/model.safetensors"} <= pushed.keys()
    assert "pushed http" in done.stdout


@pytest.mark.parametrize("lost", ["recipe.toml", "base"])
def test_a_run_that_lost_a_part_is_refused_before_anything_is_loaded(request, tmp_path, lost):
    folder = tmp_path / "run"
    shutil.copytree(request.getfixturevalue("finished").folder, folder)
    (folder / lost).rename(folder / "elsewhere")
    code, _, err = in_process("export", folder, "--to", "lora", "--out", tmp_path / "out")
    assert code == 2 and f"has lost `{lost}`" in err
    assert not (tmp_path / "out").exists()
