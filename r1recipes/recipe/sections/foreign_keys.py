"""Words about the keys of a recipe for error messages: what users of other tools write, examples.

The key of each table is what stands in the file; the value goes into a hint.
"""

from r1recipes.config.section import NamedSections
from r1recipes.errors import command

FOREIGN_KEYS = {
    "api_base": "it is called `judge.url`",
    "api_key": 'name a variable of the environment: `api_key_env = "OPENAI_API_KEY"`',
    "base_url": "it is called `judge.url`",
    "bf16": "remove it: the card decides",
    "fp16": "remove it: the card decides",
    "gradient_accumulation_steps": "remove it: it follows from `per_device_train_batch_size`",
    "kl_coef": "it is called `train.beta`",
    "load_in_fp8": 'write `load_in = "fp8"` in each preset',
    "logging_steps": "remove it: every step is logged",
    "lora_r": "it is called `lora_rank` and belongs in each preset",
    "lr": "it is called `train.learning_rate`",
    "max_prompt_length": "remove it: a prompt gets `max_seq_length` - `max_completion_length`",
    "num_train_epochs": "set `train.max_steps`",
    "r": "it is called `lora_rank` and belongs in each preset",
    "report_to": 'write a section [track], such as `wandb = { project = "r1" }`',
    "reward_funcs": "write `name = weight` lines in [rewards]",
    "reward_weights": "write `name = weight` lines in [rewards]",
    "use_vllm": "remove it: vLLM is used wherever there is a GPU",
}
"""Keys of TRL, PEFT and others."""

FOREIGN_VALUES = {"all-linear": "remove this line: all linear layers are the default"}
"""Values of PEFT where a recipe has a list."""


def section_examples(preset: str) -> dict[str, str]:
    """Section that must be there -> how it begins, with a preset of this name."""
    shown = "tiny" if preset == "cpu" else "phi4"
    return {
        "model": '`[model]` with `name = "unsloth/Qwen2.5-1.5B-Instruct"`',
        "data": '`[data]` with `name = "openai/gsm8k"`',
        "rewards": "`[rewards]` with `correctness = 2.0`",
        "preset": f"`[preset.{preset}]` with `lora_rank = 32` and the rest, "
        f"see `{command('show', shown)}`",
    }


def named_sections(preset: str) -> dict[str, NamedSections]:
    """Words about the sections with free names; `preset` is a name that one may have."""
    return {
        "preset": NamedSections(
            example=preset,
            meaning="a section for the CPU and for each size of card",
            naming="for the CPU" if preset == "cpu" else "by the memory of the card",
        )
    }


EXAMPLE = f"`{command('show', 'phi4')}` prints a valid recipe"
