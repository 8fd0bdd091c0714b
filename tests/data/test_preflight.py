"""Preflight: template, BOS, lengths, rewards and disk, with real tokenizers made on the spot."""

import textwrap
from pathlib import Path
from typing import Any

import datasets
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from r1recipes import rewards
from r1recipes.algorithms.base import Preset
from r1recipes.data import preflight
from r1recipes.data.splits import Splits
from r1recipes.data.tokenizer.chat_template import CHATML, render
from r1recipes.errors import RecipeError
from r1recipes.recipe.schema import Recipe
from r1recipes.rewards.answers import Verifier
from r1recipes.training.backends import builtin

WORDS = "what is 1 2 3 4 plus system user assistant think hello INST".split()
# The shapes of the published templates, cut to what matters here.
LLAMA = (
    "{{ bos_token }}{% for message in messages %}<h> {{ message['role'] }} </h> "
    "{{ message['content'] | trim }} <e> {% endfor %}"
    "{% if add_generation_prompt %}<h> assistant </h> {% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "[INST] {{ message['content'] }} [/INST]{% elif message['role'] == 'assistant' %}"
    " {{ message['content'] }}{{ eos_token }}{% else %}"
    "{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
NO_GENERATION_PROMPT = (
    "{% for message in messages %}<h> {{ message['role'] }} </h> {{ message['content'] }} <e> "
    "{% endfor %}"
)


def tokenizer(template: str | None = LLAMA, *, adds_bos: bool = True) -> PreTrainedTokenizerFast:
    """One token a word; like Llama's, its post-processor puts BOS before every text."""
    special = ["<s>", "<e>", "<pad>", "<unk>", "<h>", "</h>"]
    vocabulary = {word: index for index, word in enumerate(special + WORDS)}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.add_special_tokens(special)
    if adds_bos:
        core.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 0)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<s>",
        eos_token="<e>",
        pad_token="<pad>",
        unk_token="<unk>",
        chat_template=template,
    )


def make(system: str = "think", **model: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "format": 1,
            "model": {"name": "some/model"} | model,
            "data": {"name": "rows.jsonl"},
            "prompt": {"system": system},
            "rewards": {"correctness": 1.0},
            "preset": {"cpu": preset().model_dump()},
        }
    )


def preset(limit: int = 20, prompts_per_step: int = 1) -> Preset:
    return Preset(
        max_seq_length=limit + 40,
        max_completion_length=40,
        lora_rank=8,
        num_generations=4,
        prompts_per_step=prompts_per_step,
    )


def rows(*questions: str, **columns: Any) -> datasets.Dataset:
    made = [
        {"prompt": [{"role": "user", "content": text}], "answer": "3", "question": text} | columns
        for text in questions
    ]
    return datasets.Dataset.from_list(made)


def splits(*questions: str, **columns: Any) -> Splits:
    return Splits(rows(*questions, **columns), rows("what is 2", **columns))


def refused(recipe: Recipe, given: PreTrainedTokenizerFast, folder: Path = Path(".")) -> str:
    with pytest.raises(RecipeError) as caught:
        preflight.set_chat_template(given, recipe, folder)
    return "\n".join(f"{problem.message} {problem.hint}" for problem in caught.value.problems)


# The chat template


@pytest.mark.parametrize("given", [tokenizer(), builtin.build_tokenizer()], ids=["llama", "tiny"])
def test_a_good_template_is_left_as_it_is(given):
    before = given.chat_template
    preflight.set_chat_template(given, make(), Path("."))
    assert given.chat_template == before


def test_the_template_of_the_recipe_is_set_inline_or_from_a_file(tmp_path):
    (tmp_path / "chat.jinja").write_text(CHATML)
    for name in (CHATML, "chat.jinja"):
        given = tokenizer()
        preflight.set_chat_template(given, make(chat_template=name), tmp_path)
        assert given.chat_template == CHATML


def test_a_missing_template_file_names_the_nearest(tmp_path):
    (tmp_path / "chat.jinja").write_text(CHATML)
    text = refused(make(chat_template="chta.jinja"), tokenizer(), tmp_path)
    assert "No such file" in text and "did you mean `chat.jinja`" in text
    (tmp_path / "chat.jinja").write_text("hello")
    text = refused(make(chat_template="chat.jinja"), tokenizer(), tmp_path)
    assert "not a Jinja template" in text


def test_a_base_model_needs_a_template_and_the_offered_one_works():
    text = refused(make(), tokenizer(None))
    assert "no chat template: it is a base model" in text and "Instruct variant" in text
    offered = text.partition("such as ChatML: ")[2]
    given = tokenizer(None)
    preflight.set_chat_template(given, make(chat_template=offered), Path("."))
    _, report = preflight.check_prompts(splits("what is 1"), given, preset(), "drop")
    assert report.bos.startswith("one `<s>`")


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{% for m in messages %}{{ m.content }}", "not valid Jinja"),
        ("{{ messages[0]['content'] + 1 }}", "does not take a user message"),
        ("{{ 'x' }}{% if add_generation_prompt %}!{% endif %}", "leaves out the user's message"),
        (NO_GENERATION_PROMPT, "ignores `add_generation_prompt`"),
        (
            MISTRAL.replace(
                "[INST] {{ message['content'] }}", "[INST] {{ message['content'][-28:] }}"
            ),
            "leaves out the system message",
        ),
        (
            "{{ messages[-1]['content'] }}{% if add_generation_prompt %}!{% endif %}",
            "leaves out the system message",
        ),
        (
            "{{ messages[0]['content'] }}{% if add_generation_prompt %}!{% endif %}",
            "leaves out the user's message after a system message",
        ),
    ],
)
def test_templates_that_are_refused(template, words):
    assert words in refused(make(), tokenizer(template))


def test_hints_name_a_change_that_works():
    text = refused(make(), tokenizer("{{ messages[-1]['content'] }}{{ add_generation_prompt }}"))
    assert 'prompt.system = ""' in text
    text = refused(make(), tokenizer(NO_GENERATION_PROMPT))
    addition = text.partition("with this at the end: ")[2]
    assert addition == "{% if add_generation_prompt %}{{ '<h> assistant </h> ' }}{% endif %}"
    preflight.set_chat_template(tokenizer(NO_GENERATION_PROMPT + addition), make(), Path("."))


def test_mistral_needs_no_generation_prompt():
    """Its prompt ends where the answer begins, whatever `add_generation_prompt` says."""
    preflight.set_chat_template(tokenizer(MISTRAL), make(system=""), Path("."))


GEMMA = (  # Gemma 2; that of Gemma 3 puts the system message before the first user message itself
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/...') }}{% endif %}"
    "{{ '<h> ' + (message['role'] if message['role'] == 'user' else 'model') + ' ' "
    "+ message['content'] | trim + ' <e> ' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<h> model ' }}{% endif %}"
)


@pytest.mark.parametrize(
    ("template", "prompt", "answered"),
    [
        (GEMMA, "<s><h> user S\n\nwhat is 1 <e> <h> model ", "<h> model 3 <e> <h> user 2 <e> "),
        (MISTRAL, "<s>[INST] S\n\nwhat is 1 [/INST]", " 3<e>[INST] 2 [/INST]"),
    ],
    ids=["gemma 2", "mistral"],
)
def test_a_system_message_that_a_template_refuses_begins_the_first_user_message(
    template, prompt, answered
):
    given = tokenizer(template)
    (note,) = preflight.set_chat_template(given, make("S"), Path("."))
    assert "takes no system message" in note and "first user message" in note
    messages = [{"role": "system", "content": "S"}, {"role": "user", "content": "what is 1"}]
    assert render(given, messages, "it") == prompt
    longer = [*messages, {"role": "assistant", "content": "3"}, {"role": "user", "content": "2"}]
    assert answered in render(given, longer, "it") and render(given, longer, "it").count("S\n") == 1
    alone = render(given, messages[1:], "it")
    assert alone == prompt.replace("S\n\n", "")  # without a system message nothing changes
    changed = given.chat_template
    assert preflight.set_chat_template(given, make("S"), Path(".")) == []  # of a run's folder
    assert given.chat_template == changed


QWEN3 = (  # the published template, cut to what matters here
    "{% for message in messages %}"
    "{{ '<h> ' + message['role'] + ' ' + message['content'] + ' <e> ' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<h> assistant ' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}"
    "{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}{% endif %}"
)


@pytest.mark.parametrize(
    ("thinking", "end"),
    [(None, "assistant "), (True, "assistant "), (False, "assistant <think>\n\n</think>\n\n")],
)
def test_thinking_is_that_of_the_recipe(thinking, end):
    recipe = make()
    recipe = recipe.model_copy(
        update={"prompt": recipe.prompt.model_copy(update={"thinking": thinking})}
    )
    for given in (tokenizer(QWEN3), tokenizer(GEMMA + QWEN3[QWEN3.index("{% if add") :])):
        preflight.set_chat_template(given, recipe, Path("."))
        messages = [{"role": "system", "content": "S"}, {"role": "user", "content": "what is 1"}]
        assert render(given, messages, "it").endswith(end)
        size = len(given.chat_template)
        preflight.set_chat_template(given, recipe, Path("."))  # of a run's folder
        assert render(given, messages, "it").endswith(end) and len(given.chat_template) == size


def test_thinking_that_changes_nothing_is_refused():
    recipe = make()
    prompt = recipe.prompt.model_copy(update={"thinking": False})
    text = refused(recipe.model_copy(update={"prompt": prompt}), tokenizer())
    assert "`prompt.thinking = false` changes nothing" in text and "enable_thinking" in text


# Prompts


def test_prompts_are_tokenised_as_the_trainer_does(monkeypatch):
    """The real method of TRL, on an object that has only what it reads."""
    from trl.trainer.grpo_trainer import GRPOTrainer

    trainer = GRPOTrainer.__new__(GRPOTrainer)
    given = tokenizer()
    attributes: dict[str, Any] = {
        "processing_class": given,
        "chat_template": None,
        "chat_template_kwargs": {},
        "tools": [],
        "environment_factories": None,
        "_is_vlm": False,
    }
    for name, value in attributes.items():
        monkeypatch.setattr(trainer, name, value, raising=False)
    made = splits("what is 1", "hello what is 1 plus 2")
    theirs, *_ = trainer._tokenize_prompts(made.train["prompt"][:])
    assert list(preflight._prompt_ids(made.train["prompt"], given)) == theirs


def test_the_report():
    made, report = preflight.check_prompts(
        splits("what is 1", "hello what is 1 plus 2"), tokenizer(), preset(), "drop"
    )
    assert len(made.train) == report.num_train == 2 and report.num_held_out == 1
    # BOS, 3 of the header, the question, end, 3 of the generation prompt.
    assert report.longest == 14 and report.mean == pytest.approx((11 + 14 + 11) / 3)
    assert report.example == "<s><h> user </h> what is 1 <e> <h> assistant </h> "
    assert report.lines() == [
        "2 training and 1 held-out prompts, 12 tokens on average, 14 at most (limit 20)",
        "BOS: one `<s>`, from the chat template; the tokenizer would add a second to a text",
    ]


def test_long_prompts_are_dropped_and_counted():
    long = "what is " + "1 plus " * 20
    made, report = preflight.check_prompts(
        splits("what is 1", long, "what is 2", long), tokenizer(), preset(), "drop"
    )
    assert made.train["question"][:] == ["what is 1", "what is 2"]
    assert report.num_dropped == {"train": 2, "held_out": 0} and report.longest == 11
    line = "2 of 4 training prompts have more than 20 tokens (longest 50): dropped"
    assert line in report.lines() and line in report.warnings


def test_a_prompt_of_exactly_the_limit_stays():
    made, _ = preflight.check_prompts(splits("what is 1"), tokenizer(), preset(11), "refuse")
    assert len(made.train) == 1
    with pytest.raises(RecipeError, match="1 of 1 training prompts have more than 10 tokens"):
        preflight.check_prompts(splits("what is 1"), tokenizer(), preset(10), "drop")


def test_long_prompts_are_refused_with_a_length_that_works():
    made = splits("what is 1", "what is " + "1 plus " * 20)
    with pytest.raises(RecipeError) as caught:
        preflight.check_prompts(made, tokenizer(), preset(), "refuse")
    problem = caught.value.problems[0]
    assert problem.message.endswith("1 of 2 training prompts have more than 20 tokens (longest 50)")
    hint = str(problem.hint)
    assert "`max_seq_length = 90`" in hint and 'data.overlong = "drop"' in hint
    preflight.check_prompts(made, tokenizer(), preset(90 - 40), "refuse")


def test_a_step_must_be_filled():
    """The trainer leaves out an incomplete step; with nothing else it would train on nothing."""
    with pytest.raises(RecipeError) as caught:
        preflight.check_prompts(splits("what is 1"), tokenizer(), preset(20, 2), "drop")
    assert "1 training prompts do not fill a step of 2" in caught.value.problems[0].message
    assert "`prompts_per_step = 1`" in str(caught.value.problems[0].hint)


def test_two_bos_tokens_are_refused():
    double = "{{ bos_token }}" + LLAMA
    with pytest.raises(RecipeError, match="2 of 2 prompts begin with two BOS tokens `<s>`"):
        preflight.check_prompts(splits("what is 1"), tokenizer(double), preset(), "drop")
    with pytest.raises(RecipeError) as caught:
        preflight.check_prompts(splits("<s> what is 1"), tokenizer(), preset(), "drop")
    assert "remove the text `<s>` from these questions" in str(caught.value.problems[0].hint)


def test_template_and_tokenizer_may_both_have_bos_since_ids_are_passed():
    """The case of Llama 3: as a text the prompt would get two, as the trainer's ids it has one."""
    given = tokenizer()
    made = splits("what is 1")
    text = render(given, made.train[0]["prompt"], "")
    assert given(text)["input_ids"][:2] == [given.bos_token_id] * 2
    ids = next(preflight._prompt_ids(made.train["prompt"], given))
    assert ids.count(given.bos_token_id) == 1 and ids[0] == given.bos_token_id


def test_a_missing_bos_is_explained():
    template = LLAMA.removeprefix("{{ bos_token }}")
    _, report = preflight.check_prompts(splits("hello"), tokenizer(template), preset(), "drop")
    assert "begin `model.chat_template` with {{ bos_token }}" in report.warnings[0]
    given = tokenizer(template, adds_bos=False)
    _, report = preflight.check_prompts(splits("hello"), given, preset(), "drop")
    assert report.bos.startswith("none, neither") and not report.warnings
    given = builtin.build_tokenizer()
    _, report = preflight.check_prompts(splits("hello"), given, preset(90), "drop")
    assert report.bos == "none, this tokenizer has no such token" and not report.warnings


def test_characters_that_the_tokenizer_does_not_know_and_dates():
    _, report = preflight.check_prompts(
        splits("hello", "h\u00e9llo"), builtin.build_tokenizer(), preset(90), "drop"
    )
    assert report.warnings[0].startswith("1 of 3 prompts have characters that the tokenizer")
    dated = LLAMA.replace("{{ bos_token }}", "{{ bos_token }}{{ strftime_now('%Y') }} ")
    _, report = preflight.check_prompts(splits("hello"), tokenizer(dated), preset(), "drop")
    assert any("other prompts tomorrow" in line for line in report.warnings)


def test_columns_that_are_variables_of_the_template_are_refused():
    thinking = LLAMA + "{% if enable_thinking %}think{% endif %}{% generation %}{% endgeneration %}"
    made = splits("hello", enable_thinking="no", role="x", level="y")
    with pytest.raises(RecipeError) as caught:
        preflight.check_prompts(made, tokenizer(thinking), preset(), "drop")
    assert len(caught.value.problems) == 1
    assert "column `enable_thinking`" in caught.value.problems[0].message
    assert "rename_column" in str(caught.value.problems[0].hint)
    preflight.check_prompts(made, tokenizer(), preset(), "drop")


def test_8000_prompts_take_seconds():
    made = Splits(rows(*(f"what is {i} plus 1" for i in range(8000))), rows("hello"))
    _, report = preflight.check_prompts(made, tokenizer(), preset(), "drop")
    assert report.num_train == 8000


# Rewards and disk


def test_rewards_that_work_give_no_warning():
    loaded = rewards.load(["strict_format", "integer"], base_dir=Path("."))
    assert preflight.check_rewards(loaded, splits("hello", "what is 1")) == []


def with_answers(*answers: Any) -> datasets.Dataset:
    made = rows(*(f"what is {index}" for index in range(len(answers))))
    return made.remove_columns("answer").add_column("answer", list(answers))


def test_the_references_of_both_splits_are_one_column():
    made = Splits(with_answers("5/1/2024", "6/1/2024"), with_answers("25/12/2023"))
    column = preflight.answer_column(made)
    assert column.summary == "3 references: dates"
    verifier = Verifier(column=column)
    (reward,) = rewards.load(["correctness"], base_dir=Path("."), verifier=verifier)
    completions = [f"<answer>{text}</answer>" for text in ("5 January 2024", "May 1, 2024")]
    assert reward(prompts=["?"] * 2, completions=completions, answer=["5/1/2024"] * 2) == [1.0, 0.0]
    assert preflight.answer_column(made, kind="text").summary == "3 references: texts"


def test_lists_of_accepted_answers_are_checked_and_paid():
    made = Splits(with_answers(["Paris", "Lutetia"], ["Rome"]), with_answers(["Oslo"]))
    verifier = Verifier(column=preflight.answer_column(made))
    names = ["correctness", "notebook_correctness"]
    loaded = rewards.load(names, base_dir=Path("."), verifier=verifier)
    assert preflight.check_rewards(loaded, made) == []
    completions = [f"<answer>{text}</answer>" for text in ("Lutetia", "Rome")]
    for reward, most in zip(loaded, (1.0, 2.0), strict=True):
        paid = reward(prompts=["?"] * 2, completions=completions, answer=[["Paris", "Lutetia"]] * 2)
        assert paid == [most, 0.0]


@pytest.mark.slow
def test_problems_of_all_rewards_are_told_at_once(tmp_path):
    code = """\
        def broken(completions, **kwargs):
            raise KeyError("level")

        def one(completions, **kwargs):
            return [1.0]

        def flat(completions, **kwargs):
            return [0.5] * len(completions)
        """
    (tmp_path / "mine.py").write_text(textwrap.dedent(code))
    names = [f"mine.py:{name}" for name in ("broken", "one", "flat")]
    loaded = rewards.load(names, base_dir=tmp_path, allow_code=True)
    made = splits("hello", "what is 1")
    try:
        with pytest.raises(RecipeError) as caught:
            preflight.check_rewards(loaded, made)
        warnings = preflight.check_rewards(loaded[2:], made)
    finally:
        for reward in loaded:
            reward.close()
    messages = [problem.message for problem in caught.value.problems]
    assert len(messages) == 2 and "KeyError" in messages[0] and "mine.py:one" in messages[1]
    assert len(warnings) == 1 and "pays 0.5 for everything" in warnings[0]
