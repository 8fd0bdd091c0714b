"""Broken recipes, made by mutation of the shipped ones: each is refused with a place and a hint.

Limits: a mutation must be invalid. Byte flips are therefore made outside of comments, and those
that leave the data as it was, or change a value into another valid one, are not counted.
"""

import os
import random
import re

import pytest
import tomli
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from r1recipes import recipe
from r1recipes.errors import RecipeError
from r1recipes.recipe.references import is_gym
from r1recipes.recipe.schema import Recipe

# Without comments, so that every byte is structure or a value.
SHIPPED = {
    path.stem: re.sub(r"(?m)^#.*\n|[ ]+#[^\n\"]*$", "", path.read_text())
    for path in recipe.shipped()
    if path.stem != "tiny" and not is_gym(recipe.load(path).recipe.data.name)
}
"""Settings of gym: data have free keys, which reasoning-gym judges: tests/data/gym."""
NUMBERS = {
    "integer": re.compile(r"(?m)^(\w+) = (\d+)$"),
    "number": re.compile(r"(?m)^(\w+) = (\d+\.\d+|\d+e-\d+)$"),
    "text": re.compile(r'(?m)^(\w+) = ("[^"\n]*")$'),
    "truth": re.compile(r"(?m)^(\w+) = (true|false)$"),
}
WRONG = {
    "integer": ["true", '"8"', "3.5", "1e3", "nan", "-inf", "[8]", "{a = 1}", "2020-01-01", "-1"]
    + ["9" * 40, "9" * 5000, "0x" + "f" * 4000, "0.0", '"""\nx\n"""', "[[8]]", "{}", "07:32:00"],
    "number": ["true", '"0.5"', "nan", "inf", "-inf", "[0.5]", "{a = 0.5}", "2020-01-01", "-0.5"]
    + ["1e9", "9" * 400, "1e999", "{}", "[]", "2020-01-01T00:00:00Z", '""'],
    "text": ["true", "3", "0.5", "nan", "[]", '["x"]', "{a = 1}", "2020-01-01", "0", "1e5"],
    "truth": ["1", "0", '"true"', '"yes"', "1.0", "[true]", "{}", "2020-01-01"],
}
NOT_TOML = ["True", "None", "null", "yes", "1_", "0123", ".5", "'", '"', '"""', "[", "{", "=", ""]


def problems_of(path, overrides=None):
    """The problems of a file that must be refused, checked for a place and a message each."""
    with pytest.raises(RecipeError) as caught:
        recipe.load(path, overrides)
    problems = caught.value.problems
    assert problems
    assert all(problem.message and "\n" not in problem.message for problem in problems)
    return problems


def check(path, data: bytes | str):
    """Write a recipe with wrong content; its problems must point at places that exist."""
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    lines = path.read_bytes().decode(errors="replace").split("\n")
    problems = problems_of(path)
    places = []
    for problem in problems:
        file, line, column = problem.where.rsplit(":", 2)
        assert file == str(path)
        assert 1 <= int(line) <= len(lines), problem
        assert 1 <= int(column) <= len(lines[int(line) - 1]) + 1, problem
        assert len(problem.message) < 300 and "Error" not in problem.message, problem
        assert "pydantic" not in problem.message and "Input should" not in problem.message, problem
        places.append((int(line), int(column)))
    assert places == sorted(places)
    assert all(problem.hint for problem in problems), problems
    return problems


def values(kind):
    """Every line of a kind in every shipped recipe: recipe, key, start and end of its value."""
    for stem, text in SHIPPED.items():
        for match in NUMBERS[kind].finditer(text):
            yield stem, match[1], *match.span(2)


def cut(text: str, start: int, end: int, new: str) -> str:
    return text[:start] + new + text[end:]


def mutations():
    """At least one of every kind of mistake, for every shipped recipe: (id, text)."""
    for kind in NUMBERS:
        for number, (stem, key, start, end) in enumerate(values(kind)):
            wrong = WRONG[kind][number % len(WRONG[kind])]
            yield f"{stem}-{key}-{wrong[:12]!r}", cut(SHIPPED[stem], start, end, wrong)
    for stem, text in SHIPPED.items():
        for number, match in enumerate(re.finditer(r"(?m)^(\w+) = .*$", text)):
            if match[1] in ("system", "description"):
                continue
            key, (start, end) = match[1], match.span()
            yield f"{stem}-{key}-misspelt", cut(text, start, start + len(key), key[:-1] + "_x")
            yield f"{stem}-{key}-twice", cut(text, end, end, "\n" + match[0])
            broken = NOT_TOML[number % len(NOT_TOML)]
            yield f"{stem}-{key}-{broken!r}", cut(text, start, end, f"{key} = {broken}")
        for key in ("format", "name", "max_seq_length", "lora_rank", "num_generations"):
            yield f"{stem}-no-{key}", re.sub(rf"(?m)^{key} = .*\n", "", text, count=1)
        for header in re.findall(r"(?m)^\[[\w.]+\]$", text):
            yield f"{stem}-{header}-misspelt", text.replace(header, header[:-1] + "_x]")
            yield f"{stem}-{header}-twice", text + f"\n{header}\n"
            yield f"{stem}-{header}-list", text.replace(header, f"[{header}]")
            yield f"{stem}-{header}-open", text.replace(header, header[:-1])
        for section in ("model", "data", "rewards"):
            yield f"{stem}-no-{section}", re.sub(rf"(?ms)^\[{section}\]\n.*?(?=^\[)", "", text)
            scalar = re.sub(rf"(?ms)^\[{section}\]\n.*?(?=^\[)", "", text)
            yield f"{stem}-{section}-scalar", f"{section} = 5\n" + scalar
    yield from named_mutations()


def named_mutations():
    """Mistakes of meaning, one each."""
    text = SHIPPED["qwen2.5-1.5b"]
    for name, old, new in (
        ("batch", "num_generations = 8", "num_generations = 8\nper_device_train_batch_size = 7"),
        ("batch-huge", "lora_rank = 32", "lora_rank = 32\nper_device_train_batch_size = 65536"),
        ("no-room", "max_completion_length = 768", "max_completion_length = 1024"),
        ("reward", "correctness", "corectness"),
        ("weights-0", "correctness = 1.0", "correctness = -0.1"),
        ("data", "openai/gsm8k", "builtin:arithmetics"),
        ("data-keys", "openai/gsm8k", "builtin:arithmetic"),
        ("model", "unsloth/Qwen2.5-1.5B-Instruct", "builtin:tiny"),
        ("model-line", "unsloth/Qwen2.5-1.5B-Instruct", "a\\nb"),
        ("model-nul", "unsloth/Qwen2.5-1.5B-Instruct", "a\\u0000b"),
        ("loss", '"dapo"', '"ppo"'),
        ("split", 'eval_split = "test"', 'eval_split = "train"'),
        ("column", 'answer = "answer"', 'answer = "question"'),
        ("clip", "epsilon_high = 0.28", "epsilon_high = 0.1"),
        ("warmup", '"cosine"', '"constant"'),
        ("preset-8gb", "[preset.8GB]", "[preset.8gb]"),
        ("preset-8-GB", "[preset.8GB]", '[preset."8 GB"]'),
        ("preset-0", "[preset.8GB]", "[preset.0GB]"),
        ("preset-none", "[preset.8GB]", "[preset]"),
        ("preset-cpu", "[preset.8GB]", "[preset.cpu]"),
        ("wrong-section", "[train]", "[train]\nlora_rank = 32"),
        ("wrong-place", "seed = 3407", "learning_rate = 1e-5"),
        ("cold-start", "[lora]", "[cold_start]\nsteps = 3\n[lora]"),
        ("problems", "[lora]", "[data.problems]\ndigits = 1\n[lora]"),
        ("control", "seed = 3407", "seed = 34\x0107"),
        ("control-text", 'config = "main"', 'config = "ma\x00in"'),
        ("old-mac", "seed = 3407", "seed = 3407\rformat = 1"),
        ("lists", "seed = 3407", "seed = " + "[" * 300 + "]" * 300),
        ("tables", "seed = 3407", "seed = " + "{a = " * 300 + "1" + "}" * 300),
        ("dots", "seed = 3407", ".".join("a" * 60) + " = 1"),
        ("dots-many", "seed = 3407", ".".join("a" * 50_000) + " = 1"),
        ("yaml", "seed = 3407", "seed: 3407"),
    ):
        assert old in text, name
        yield name, text.replace(old, new, 1)


MUTATIONS = list(mutations())


def test_there_are_many_mutations():
    assert len({text for _, text in MUTATIONS}) >= 1000


def test_the_texts_that_are_mutated_are_valid():
    assert len(SHIPPED) >= 5
    for text in SHIPPED.values():
        Recipe.model_validate(tomli.loads(text))


@pytest.mark.parametrize("part", range(8))
def test_every_mutation_is_refused_with_a_place(tmp_path, part):
    for name, text in MUTATIONS[part::8]:
        try:
            check(tmp_path / "broken.toml", text)
        except BaseException as error:
            error.add_note(f"mutation {name}")
            raise


def apply_hint(text: str, problem) -> str | None:
    """The text after the change that a hint proposes, or None where it is not one of these."""
    _, line, column = problem.where.rsplit(":", 2)
    lines, row, at = text.split("\n"), int(line) - 1, int(column) - 1
    hint = problem.hint
    if match := re.fullmatch(r"(?:such as|set) `(\w+ = .*?)`(?: or .*)?", hint, re.DOTALL):
        key = match[1].split(" = ")[0]
        if not lines[row].startswith(f"{key} = "):  # `set max_seq_length` of the same section
            row = max(n for n in range(row) if lines[n].startswith(f"{key} = "))
        lines[row] = match[1]
    elif match := re.fullmatch(r"(?:write|remove the quotes:) `([^`\[]*)`", hint):
        lines[row] = lines[row][:at] + match[1]
    elif match := re.fullmatch(r'did you mean (?:"(.*)"|`(?:.*\.)?([^`.\]]*)`)\?', hint):
        if match[1]:
            lines[row] = lines[row][:at] + f'"{match[1]}"'
        else:
            lines[row] = lines[row][:at] + match[2] + lines[row][lines[row].index(" =") :]
    elif match := re.fullmatch(r"did you mean `(\[.*\])`\?", hint):
        lines[row] = match[1]
    elif hint.startswith("remove this line") or hint == "keep one":
        del lines[row]
    elif match := re.match(r"add `(\w+ = [^`]*)`", hint):
        lines.insert(row + (lines[row].startswith("[")), match[1])
    else:
        return None
    return "\n".join(lines)


def test_the_hints_work(tmp_path):
    """Doing what the hints say, two times at most, makes a recipe with one mistake valid."""
    path, tried = tmp_path / "hint.toml", 0
    for name, text in MUTATIONS[::3] + list(named_mutations()):
        path.write_text(text)
        problems = problems_of(path)
        one_line = '\nx\n"""' not in text and "[[8]]" not in text
        changed = apply_hint(text, problems[0])
        if len(problems) > 1 or not one_line or changed is None:
            continue
        # These hints correct a name, after which other keys of the recipe no longer apply.
        if name in ("data", "cold-start") or "`data.name`" in problems[0].message:
            continue
        path.write_text(changed)
        try:
            recipe.load(path)
        except RecipeError as error:
            path.write_text(apply_hint(path.read_text(), error.problems[0]) or text)
            try:
                recipe.load(path)
            except RecipeError:
                pytest.fail(f"{name}: {problems[0]}\nthen {error.problems}")
        tried += 1
    assert tried > 250


def test_a_truncated_recipe_is_refused(tmp_path):
    """A cut before the first preset is complete leaves out a required key."""
    text = SHIPPED["phi4"]
    complete = text.index("gpu_memory_utilization") + len("gpu_memory_utilization = 0.")
    rng = random.Random(0)
    for end in sorted(rng.sample(range(1, complete), 120)):
        if text[:end].strip():
            check(tmp_path / "cut.toml", text[:end])


def test_flipped_bytes_are_refused_or_harmless(tmp_path):
    """With one bit flipped, the file is another valid recipe or is refused."""
    rng = random.Random(1)
    refused = 0
    for _ in range(400):
        raw = bytearray(SHIPPED[rng.choice(sorted(SHIPPED))].encode())
        raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
        try:
            Recipe.model_validate(tomli.loads(raw.decode()))
        except ValueError:  # not UTF-8, not TOML, not a recipe
            refused += 1
            check(tmp_path / "flip.toml", bytes(raw))
    assert refused > 200


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    stem=st.sampled_from(sorted(SHIPPED)),
    at=st.integers(0, 4000),
    junk=st.text(min_size=1, max_size=30) | st.sampled_from(["[", "]", "=", '"""', "\\", "\x85"]),
)
def test_junk_anywhere_gives_nothing_but_problems(tmp_path_factory, stem, at, junk):
    text = SHIPPED[stem]
    broken = text[: at % len(text)] + junk + text[at % len(text) :]
    path = tmp_path_factory.getbasetemp() / "junk.toml"
    try:
        Recipe.model_validate(tomli.loads(broken.removeprefix("\ufeff")))
    except ValueError:
        check(path, broken)


@pytest.mark.parametrize("raw", [b"\xff\xfef\x00o\x00", b"format = 1\n# caf\xe9\n", b"a = '\xc3'"])
def test_a_file_that_is_not_utf8_is_refused_with_the_byte(tmp_path, raw):
    problems = check(tmp_path / "latin.toml", raw)
    assert "is not UTF-8 text (byte 0x" in problems[0].message


def test_a_byte_order_mark_and_windows_line_ends_are_fine(tmp_path):
    path = tmp_path / "windows.toml"
    text = SHIPPED["phi4"]
    path.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    plain = tmp_path / "plain.toml"
    plain.write_text(text)
    same = recipe.fingerprint(recipe.load(plain).recipe)
    assert recipe.fingerprint(recipe.load(path).recipe) == same


@pytest.mark.parametrize("content", [b"", b"\n \n\t\n", b"\xef\xbb\xbf"])
def test_an_empty_file_says_so(tmp_path, content):
    path = tmp_path / "empty.toml"
    path.write_bytes(content)
    (problem,) = problems_of(path)
    assert (problem.message, problem.where) == ("is empty", str(path))


def test_paths_that_are_not_recipes(tmp_path):
    (problem,) = problems_of(tmp_path)
    assert "has no recipe.toml" in problem.message
    (problem,) = problems_of(tmp_path / "missing.toml")
    assert "there is no file" in problem.message
    (problem,) = problems_of("x" * 5000)
    assert "is not a file name" in problem.message or "there is no recipe" in problem.message
    (problem,) = problems_of("a\0b")
    assert "there is no recipe" in problem.message
    big = tmp_path / "big.toml"
    big.write_bytes(b"#" * 10_000_000)
    (problem,) = problems_of(big)
    assert "has 10.0 MB" in problem.message
    link = tmp_path / "link.toml"
    link.symlink_to(tmp_path / "nowhere.toml")
    (problem,) = problems_of(link)
    assert "is not a regular file" in problem.message
    os.mkfifo(tmp_path / "pipe.toml")
    (problem,) = problems_of(tmp_path / "pipe.toml")
    assert "is not a regular file" in problem.message


@pytest.mark.parametrize("section", ["study", "search", "matrix"])
def test_a_study_is_named_as_one(tmp_path, section):
    path = tmp_path / "study.toml"
    path.write_text(f'format = 1\nrecipe = "../recipes/phi4.toml"\n[{section}]\n')
    (problem,) = problems_of(path)
    assert "it is a study, not a recipe" in problem.message
    assert "../recipes/phi4.toml" in problem.hint


OVERRIDES = (
    ["x", "=", "=1", " = 1", "a b=1", "train.=1", ".train=1", "train..beta=1", "a\nb=1", "'=1"]
    + ["train.max_steps=0", "train.max_steps=nan", "train.max_step=5", "trian.beta=1", "train=5"]
    + ["train.beta.x=1", "format.x=1", "rewards.foo=1", "rewards.correctness=x", "model.name="]
    + ["preset.lora_rank=0", "preset.lora_rnk=3", "preset.8gb.lora_rank=8", "preset=3", "seed=[1"]
    + ["preset.8GB.max_seq_length=256", "preset.8GB=1", "lora.target_modules=[]", "seed=1\nx=2"]
    + [
        ".".join("a" * 500) + "=1",
        "seed=" + "[" * 500,
        "seed=" + "9" * 5000,
        "data.problems={x = 1}",
    ]
    + ["format=true", "cold_start.steps=3", "rewards={correctness=nan}", "train.epsilon_high=0.1"]
)


@pytest.mark.parametrize("override", OVERRIDES, ids=range(len(OVERRIDES)))
def test_a_wrong_override_is_refused_and_the_flag_is_named(override):
    flag = "--set " + override.replace("\n", "\\n")
    problems = problems_of("qwen2.5-1.5b", [override])
    assert [problem.where for problem in problems] == [flag] * len(problems)
    assert all(problem.hint for problem in problems)
