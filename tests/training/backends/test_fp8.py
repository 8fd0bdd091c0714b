"""FP8 weights: what is written, that other libraries read it, and what is checked after loading."""

import json
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors import safe_open
from torch import nn
from transformers.integrations.fbgemm_fp8 import FbgemmFp8Linear
from transformers.integrations.finegrained_fp8 import FP8Linear

from r1recipes import planning, recipe
from r1recipes.errors import RecipeError, RunError
from r1recipes.machine.gpu import Gpu
from r1recipes.machine.units import GIB
from r1recipes.planning import models
from r1recipes.runs import trained
from r1recipes.training.backends import _trl_serves, builtin, quantised
from r1recipes.training.backends.quantised import fp8, nf4
from r1recipes.training.backends.unsloth import differences, patches, random_weights

CARD = Gpu(0, "NVIDIA L4", 22 * GIB, 22 * GIB, 8.9, "580.1")
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def planned(load_in: str = "fp8") -> planning.Plan:
    loaded = recipe.load("llama3.1-8b", [f"preset.load_in={load_in}"])
    target = planning.Target.elsewhere(CARD)
    return planning.make(loaded.recipe, target, base_dir=loaded.path.parent)


def stored(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    (name, values), (scale_name, scale) = fp8.linear("a.weight", weight)
    assert (name, scale_name) == ("a.weight", "a.weight_scale")
    return values, scale


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    builtin.build_model(1).bfloat16().save_pretrained(folder)
    builtin.build_tokenizer().save_pretrained(folder)
    return folder


def test_each_output_channel_has_a_scale_of_its_own():
    torch.manual_seed(0)
    weight = torch.randn(64, 256) * torch.logspace(-6, 3, 64)[:, None]
    values, scale = stored(weight.bfloat16())
    assert values.dtype == torch.float8_e4m3fn and values.shape == weight.shape
    assert scale.dtype == torch.float32 and scale.shape == (64, 1)
    assert (values.float().abs().amax(1) == fp8.LARGEST).all()
    relative = (values.float() * scale - weight).std(1) / weight.std(1)
    assert 0.01 < relative.min() and relative.max() < 0.04  # 3 bits of mantissa: about 2.6 %


def test_channels_of_zeros_and_of_the_largest_numbers_stay_numbers():
    weight = torch.zeros(3, 16)
    weight[1] = torch.finfo(torch.bfloat16).max
    weight[2, 0] = 1e-30
    values, scale = stored(weight.bfloat16())
    restored = values.float() * scale
    assert torch.isfinite(restored).all() and (restored[0] == 0).all()
    assert torch.allclose(restored[1], weight[1], rtol=0.01)


def test_a_16_bit_folder_is_converted_once_and_again_when_it_changes(source, tmp_path):
    folder = quantised.cached(source, tmp_path / "fp8", torch.bfloat16, fp8.FORM)
    assert "fp8" in str(folder).lower()  # by which Unsloth sizes the engine (load_vllm)
    assert quantised.cached(source, tmp_path / "fp8", torch.bfloat16, fp8.FORM) == folder
    assert quantised.is_quantised(folder) and (folder / "tokenizer.json").exists()
    assert quantised.cached(source, tmp_path / "nf4", torch.bfloat16, fp8.FORM) != folder
    with safe_open(folder / "model-00001.safetensors", "pt") as tensors:
        kinds = {name: tensors.get_tensor(name).dtype for name in tensors.keys()}
    scaled = {name.removesuffix("_scale") for name in kinds if name.endswith("_scale")}
    linear = {name for name in kinds if name.split(".")[-2] in PROJECTIONS}
    weights = {name for name in linear if name.endswith(".weight")}
    assert scaled == weights == {n for n, kind in kinds.items() if kind == torch.float8_e4m3fn}
    others = kinds.keys() - weights - {f"{name}_scale" for name in weights}
    assert {kinds[name] for name in others} == {torch.bfloat16}


def test_compressed_tensors_reads_what_is_written(source, tmp_path):
    """The package that vLLM and transformers read such checkpoints with."""
    pytest.importorskip("compressed_tensors")
    from transformers import AutoModelForCausalLM

    folder = quantised.cached(source, tmp_path / "fp8", torch.bfloat16, fp8.FORM)
    exact = AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16)
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    ids = torch.arange(1, 33)[None]
    with torch.no_grad():
        p, q = (model(input_ids=ids).logits.float().log_softmax(-1) for model in (exact, loaded))
    assert 0 < float((p.exp() * (p - q)).sum(-1).mean()) < 0.01


def test_the_form_is_that_of_published_checkpoints():
    entry = fp8.quantization_config(torch.bfloat16)["quantization_config"]
    assert entry["quant_method"] == "compressed-tensors" and entry["format"] == "float-quantized"
    group = entry["config_groups"]["group_0"]
    assert (group["weights"]["strategy"], group["weights"]["dynamic"]) == ("channel", False)
    assert group["input_activations"] | {"symmetric": True} == group["input_activations"]
    assert (group["input_activations"]["strategy"], entry["ignore"]) == ("token", ["lm_head"])


def test_random_weights_have_the_shape_and_the_form(tmp_path):
    shape = models.BUILTIN["builtin:tiny"]
    folder = tmp_path / "tiny-fp8"
    random_weights.write(shape, folder, load_in="fp8", dtype=torch.bfloat16)
    assert quantised.is_quantised(folder)
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    assert size == pytest.approx(models.weights_bytes(shape, "fp8"), rel=0.02)


class Decoder(nn.Module):
    """Layers as Unsloth makes them of a checkpoint of compressed-tensors, with the engine's tensors
    in the class for scales of blocks."""

    def __init__(self, kind: str = "rows"):
        super().__init__()
        block = nn.ModuleDict({name: self._linear(kind) for name in PROJECTIONS})
        layers = nn.ModuleList([nn.ModuleDict({"mlp": block})])
        self.model = nn.ModuleDict({"embed_tokens": nn.Embedding(8, 256), "layers": layers})
        self.lm_head = nn.Linear(256, 8, bias=False)

    @property
    def block(self) -> Any:
        """The layers by their names."""
        return self.get_submodule("model.layers.0.mlp")

    @staticmethod
    def _linear(kind: str) -> nn.Module:
        with torch.inference_mode():
            layer: Any = FP8Linear(0, 0, block_size=(128, 128), has_bias=True)
            values, scale = stored(torch.randn(384, 256))
            layer.weight = nn.Parameter(values, requires_grad=False)
            layer.bias = nn.Parameter(torch.randn(384), requires_grad=False)
            scale = scale if kind == "rows" else torch.ones(3, 2)
            layer.weight_scale_inv = nn.Parameter(scale, requires_grad=False)
            layer.out_features, layer.in_features = values.shape
            layer.quant_method = "fp8"
        return layer


def test_layers_with_scales_of_rows_get_the_class_for_them_and_keep_their_tensors():
    """As Unsloth makes them where vLLM quantises while loading."""
    model = Decoder()
    layer: Any = model.block["q_proj"]
    weight, scale, bias = layer.weight, layer.weight_scale_inv, layer.bias
    patches.take_rows_of_fp8(model)
    assert layer.weight is weight and layer.bias is bias and layer.input_scale_ub is None
    assert type(layer) is FbgemmFp8Linear and layer.quant_method == "fbgemm_fp8"
    assert layer.weight_scale is scale  # shared with the engine
    assert not hasattr(layer, "weight_scale_inv") and not layer.weight_scale.requires_grad
    assert "model.layers.0.mlp.q_proj.weight_scale" in model.state_dict()
    patches.take_rows_of_fp8(model)  # nothing is left to do
    assert differences.other_than_fp8(model) is None


def test_an_adapter_on_fp8_is_drawn_in_32_bits():
    model = Decoder()
    patches.take_rows_of_fp8(model)
    config = LoraConfig(r=16, target_modules=list(PROJECTIONS))
    adapted: Any = get_peft_model(model, config)

    def drawn() -> list[torch.Tensor]:
        return [p.detach() for n, p in adapted.named_parameters() if "lora_A" in n]

    assert {weight.dtype for weight in drawn()} == {torch.float32}
    assert all(len(weight.unique()) < 100 for weight in drawn())  # of 4096 numbers
    plan, rounded = planned(), [weight.clone() for weight in drawn()]
    patches.draw_on_fp8(adapted, planned("4bit"))
    assert all(torch.equal(old, new) for old, new in zip(rounded, drawn(), strict=True))
    patches.draw_on_fp8(adapted, plan)
    first = [weight.clone() for weight in drawn()]
    assert all(len(weight.unique()) > 4000 for weight in first)
    assert all(0 < weight.abs().max() <= 1 / 16 for weight in first)  # 1 / sqrt(inputs)
    assert not any(p.any() for n, p in adapted.named_parameters() if "lora_B" in n)
    patches.draw_on_fp8(adapted, plan)
    assert all(torch.equal(old, new) for old, new in zip(first, drawn(), strict=True))
    recipe_of_other_seed = plan.recipe.model_copy(update={"seed": 8})
    patches.draw_on_fp8(adapted, plan.model_copy(update={"recipe": recipe_of_other_seed}))
    assert not torch.equal(first[0], drawn()[0])


def test_layers_that_are_not_fp8_by_rows_are_found():
    blocks = Decoder("blocks")
    patches.take_rows_of_fp8(blocks)
    assert differences.other_than_fp8(blocks) == "model.layers.0.mlp.q_proj with no scales"
    one = Decoder()
    patches.take_rows_of_fp8(one)
    one.block["up_proj"] = nn.Linear(256, 384).bfloat16()
    assert differences.other_than_fp8(one) == "model.layers.0.mlp.up_proj in bfloat16"
    scale = nn.Parameter(torch.ones(1, 1), requires_grad=False)
    one.block["up_proj"] = Decoder("blocks").block["up_proj"]
    vars(one.block["up_proj"])["_parameters"]["weight_scale"] = scale
    assert differences.other_than_fp8(one) == "model.layers.0.mlp.up_proj with scales (1, 1)"
    assert differences.other_than_fp8(nn.Linear(2, 2)) == "no linear layer"


def engine(plan: planning.Plan, quantization: str | None, model: nn.Module) -> Any:
    """A loaded model with an engine that is as planned, but for its quantisation."""
    config = SimpleNamespace(
        cache_config=SimpleNamespace(
            gpu_memory_utilization=plan.preset.gpu_memory_utilization,
            num_gpu_blocks=1000,
            block_size=16,
            cache_dtype="auto",
        ),
        model_config=SimpleNamespace(
            max_model_len=plan.preset.max_seq_length,
            dtype="torch.bfloat16",
            quantization=quantization,
        ),
        scheduler_config=SimpleNamespace(max_num_seqs=plan.max_num_seqs),
        lora_config=SimpleNamespace(max_lora_rank=plan.preset.lora_rank),
    )
    vars(model)["vllm_engine"] = SimpleNamespace(llm_engine=SimpleNamespace(vllm_config=config))
    return model


def test_what_was_loaded_is_compared_with_the_plan(monkeypatch):
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda: (CARD.total_bytes, CARD.total_bytes))
    plan, model = planned(), Decoder()
    rows = differences.engine_differences(engine(plan, "compressed-tensors", model), plan)
    assert [name for name, *_ in rows] == ["quantisation"]  # the class for blocks
    patches.take_rows_of_fp8(model)
    assert not differences.engine_differences(engine(plan, "compressed-tensors", model), plan)
    for loaded, expected in ((None, "16bit"), ("bitsandbytes", "4bit"), ("torchao", "torchao")):
        rows = differences.engine_differences(engine(plan, loaded, model), plan)
        assert rows == [("load_in", "fp8", expected)]
    with pytest.raises(RunError, match="load_in: asked fp8, got 16bit"):
        differences.refuse_differences([("load_in", "fp8", "16bit")])
    other = planned("16bit").model_copy(update={"preset": plan.preset.with_weights("16bit")})
    rows = differences.engine_differences(engine(other, "compressed-tensors", model), other)
    assert rows == [("load_in", "16bit", "fp8")]


def test_plain_trl_does_not_train_on_16_bits_instead():
    plan = planned().model_copy(update={"backend": "trl"})
    assert 'load_in = "fp8"` needs Unsloth' in (_trl_serves(plan) or "")
    assert _trl_serves(planned("4bit").model_copy(update={"backend": "trl"})) is None


def test_single_answers_are_those_of_16_bits():
    """Through transformers, on any card and on a CPU."""
    plan = planned()
    for card, dtype in ((CARD, "bfloat16"), (None, "float32")):
        answering = trained.for_answers(plan, card)
        assert (answering.preset.weights, answering.dtype) == ("16bit", dtype)
        assert _trl_serves(answering) is None
    assert trained.for_answers(planned("4bit"), CARD).preset.weights == "4bit"


@pytest.mark.parametrize(("load_in", "revision"), [("fp8", "of the run"), ("4bit", None)])
def test_the_base_in_16_bits_is_at_the_commit_that_was_made_fp8(load_in, revision, tmp_path):
    """The 4-bit form is of another repository, whose commit says nothing."""
    plan = planned(load_in)
    model = plan.recipe.model.model_copy(update={"revision": "of the run"})
    pinned = plan.model_copy(update={"recipe": plan.recipe.model_copy(update={"model": model})})
    run: Any = SimpleNamespace(plan=lambda: plan)
    assert trained.TrainedRun(run, pinned, tmp_path, 3).base_revision == revision


def test_a_folder_without_weights_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({}))
    with pytest.raises(RecipeError, match="has no model\\*.safetensors files"):
        quantised.cached(tmp_path, tmp_path / "cache", torch.bfloat16, fp8.FORM)


def test_forms_have_folders_of_their_own():
    assert (nf4.FORM.name, fp8.FORM.name) == ("nf4", "fp8")
