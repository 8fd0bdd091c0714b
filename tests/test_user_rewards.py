import hashlib
import os
import pickle
import time
from pathlib import Path

import pytest

from r1recipes import rewards
from r1recipes.errors import RecipeError
from r1recipes.rewards import Reward

DOSE = Path(__file__).parents[1] / "docs" / "examples" / "dose_reward.py"

USER_CODE = """
import os, sys, time

CALLS = []

def short(completion, row):
    print("goes to stderr")
    return 1.0 if len(completion) < row["most"] else 0.0

def trl_form(prompts, completions, answer, **kwargs):
    assert "trainer_state" not in kwargs and len(prompts) == len(completions)
    return [float(c[-1]["content"].count(a)) for c, a in zip(completions, answer)]

def without_kwargs(completions, answer):
    return [0.5 * (a == "42") for a in answer]

def calls(completion):
    CALLS.append(completion)
    return len(CALLS)

def raises(completions, **kwargs):
    return [float(c[-1]["content"]) for c in completions]

def hangs(completions, **kwargs):
    while any("hang" in c[-1]["content"] for c in completions):
        pass
    return [1.0] * len(completions)

def hangs_on_empty(completion, row):
    while not completion:
        time.sleep(1)
    return float("wrong" in completion)

def one_for_all(completions, **kwargs):
    return [1.0]

def skips(completions, **kwargs):
    return [1.0 for c in completions if c[-1]["content"]]

def scalar(completions, **kwargs):
    return 1.0

def text(completion, row):
    return "good"

def nan_for_empty(completion, row):
    return 1.0 if completion else float("nan")

def no_opinion(completion, row):
    return None if not completion else 1

def constant(completion, row):
    return 0.25

def likes_nothing(completion, row):
    return 1.0 / (1 + len(completion))

def leaves(completion, row):
    if not completion:
        os._exit(3)
    return 1.0

def leaves_with_0(completion, row):
    if not completion:
        os._exit(0)
    return 1.0

def waits_for_a_fork(completion, row):
    pid = os.fork()
    if not pid:
        os._exit(0)
    return float(os.waitpid(pid, 0)[1] == 0)

def starts_others(completion, row):
    import subprocess
    pids = [subprocess.Popen(["sleep", "60"]).pid, os.fork()]
    while not pids[1]:
        time.sleep(1)
    with open(row["pids"], "w") as file:
        print(*pids, file=file)
    while completion == "hang":
        time.sleep(1)
    if completion == "leave":
        os._exit(0)
    return 1.0

def exits(completion, row):
    sys.exit("bye")

def group(completion, row):
    return os.getpgrp()

def own_column(completion, row):
    return row["self"]

def needs(completions, solution, **kwargs):
    return [1.0] * len(completions)

def odd(text):
    return 1.0
"""


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """Load functions of a user's file; the children live as long as the module."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "mine.py").write_text(USER_CODE)
    loaded = []

    def load(name, time_limit_s=10.0):
        found = rewards.load(
            [f"mine.py:{name}"], base_dir=folder, allow_code=True, time_limit_s=time_limit_s
        )
        loaded.extend(found)
        return found[0]

    load.folder = folder
    yield load
    for reward in loaded:
        reward.close()


def train(reward, *texts, **columns):
    """Call as TRL 1.12 does."""
    n = len(texts)
    return reward(
        prompts=[[{"role": "user", "content": "?"}]] * n,
        completions=[[{"role": "assistant", "content": text}] for text in texts],
        completion_ids=[[1, 2]] * n,
        answer=["42"] * n,
        trainer_state=object(),
        log_extra=lambda column, values: None,
        log_metric=lambda name, value: None,
        **{key: [value] * n for key, value in columns.items()},
    )


ROWS = [
    {"prompt": [{"role": "user", "content": "6 * 7?"}], "answer": "42"},
    {"prompt": [{"role": "user", "content": "1 + 1?"}], "answer": "2"},
]


@pytest.mark.parametrize(
    ("name", "texts", "paid", "failures"),
    [
        ("short", ["abc", "abcdef"], [1, 0], {}),
        ("trl_form", ["42 42", "7"], [2, 0], {}),
        ("without_kwargs", ["a", "b"], [0.5, 0.5], {}),
        ("no_opinion", ["a", ""], [1, None], {}),
        ("raises", ["1", "x", "3"], [1, 0, 3], {"raised": 1}),
        ("skips", ["a", "", "c"], [1, 0, 1], {"wrong_count": 1}),
        ("text", ["a", "b"], [0, 0], {"not_a_number": 2}),
        ("nan_for_empty", ["a", ""], [1, 0], {"not_a_number": 1}),
        ("leaves", ["a", "", "c"], [1, 0, 1], {"raised": 1}),
        ("leaves_with_0", ["a", "", "c"], [1, 0, 1], {"raised": 1}),
        ("waits_for_a_fork", ["a"], [1], {}),
        ("exits", ["a"], [0], {"raised": 1}),
        ("needs", ["a", "b"], [0, 0], {"raised": 2}),
    ],
)
def test_in_training_a_bad_row_is_paid_0_and_counted(name, texts, paid, failures, mine):
    reward = mine(name)
    assert train(reward, *texts, most=5) == paid
    assert reward.failures == failures


def test_a_hang_costs_its_row_and_a_bounded_time(mine):
    reward = mine("hangs", time_limit_s=2.0)
    assert train(reward, "good") == [1.0]  # the child is up
    start = time.perf_counter()
    assert train(reward, "good", "hang", "good") == [1.0, 0.0, 1.0]
    assert time.perf_counter() - start < 8
    assert reward.failures == {"timeout": 1}
    assert "within 0.4 s" in reward.last_failure


def test_when_all_rows_hang_the_time_is_bounded_too(mine):
    reward = mine("hangs", time_limit_s=0.3)
    train(reward, "good")
    start = time.perf_counter()
    assert train(reward, *["hang"] * 100) == [0.0] * 100
    assert time.perf_counter() - start < 8
    assert reward.failures == {"timeout": 100}


def test_the_child_is_kept_between_calls(mine):
    reward = mine("calls")
    assert [train(reward, "a") for _ in range(3)] == [[1], [2], [3]]
    start = time.perf_counter()
    train(reward, *["a"] * 128)
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize("text", ["hang", "leave", "good"])
def test_what_a_reward_started_ends_with_it(text, mine, tmp_path):
    reward = mine("starts_others", time_limit_s=1.0)
    train(reward, text, pids=str(tmp_path / "pids"))
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 2
    if text == "good":
        assert all(is_running(pid) for pid in pids)
        reward.close()
    deadline = time.monotonic() + 3
    while any(is_running(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_running(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"  # dead, but its new parent has not waited for it


def test_a_child_is_not_in_the_terminals_group(mine):
    """Ctrl-C goes to the whole group; the parent alone answers it."""
    reward = mine("group")
    (group,) = train(reward, "a")
    assert group != os.getpgrp()


EDITED = """
from neighbour import WORTH

def f(completion, row):
    while completion == "hang":
        pass
    assert completion != "old", __file__
    return WORTH
"""


@pytest.mark.parametrize("after", ["hang", "close", "before the first call"])
def test_an_edited_file_does_not_pay_in_a_run(after, tmp_path):
    path = tmp_path / "edited.py"
    path.write_text(EDITED)
    (tmp_path / "neighbour.py").write_text("WORTH = 0.75\n")
    (reward,) = rewards.load(["edited.py:f"], base_dir=tmp_path, allow_code=True, time_limit_s=1.0)
    try:
        if after != "before the first call":
            assert train(reward, "a") == [0.75]
        path.write_text("# edited\n\ndef f(completion, row):\n    return 100.0\n")
        if after == "hang":
            assert train(reward, "hang") == [0.0]
        elif after == "close":
            reward.close()
        assert train(reward, "a") == [0.75]
        assert reward.code_sha256 == hashlib.sha256(EDITED.encode()).hexdigest()
        assert rewards.code_sha256("edited.py:f", tmp_path) != reward.code_sha256
        assert train(reward, "old") == [0.0]
        assert reward.last_failure == (
            f"raised AssertionError: {path} "
            '(edited.py line 7: `assert completion != "old", __file__`)'
        )
    finally:
        reward.close()


def test_a_column_may_be_called_self(mine):
    assert train(mine("own_column"), "a", self=0.5) == [0.5]


@pytest.mark.parametrize(
    ("name", "kind", "parts"),
    [
        ("raises", "raised", ["`mine.py:raises` raised ValueError", "mine.py line 22: `return ["]),
        ("hangs_on_empty", "timeout", ["did not return within 0.5 s"]),
        ("one_for_all", "wrong_count", ["1 value for 10 completions: it must return one number"]),
        ("scalar", "wrong_count", ["returned 1 value for 10 completions"]),
        ("text", "not_a_number", ["returned 'good' (str): it must return a finite number"]),
        ("nan_for_empty", "not_a_number", ["returned nan (float)", "[completion: empty]"]),
        ("leaves", "raised", ["ended its process"]),
        ("leaves_with_0", "raised", ["ended its process"]),
        ("exits", "raised", ["raised SystemExit: bye"]),
        ("needs", "raised", ["needs the columns `solution`, which the data does not have"]),
        ("odd", "raised", ["takes (text): it must take (completion, row)"]),
        ("constant", "constant", ["pays 0.25 for everything"]),
        ("likes_nothing", "gameable", ["pays more for a completion that is empty"]),
    ],
)
def test_check_says_what_is_wrong(name, kind, parts, mine):
    reward = mine(name, time_limit_s=0.5 if kind == "timeout" else 10.0)
    (problem,) = rewards.check(reward, ROWS)
    assert problem.kind == kind
    assert problem.is_warning == (kind in ("constant", "gameable"))
    for part in parts:
        assert part in str(problem)
    assert not reward.failures, "a check is not training"


def test_any_function_can_be_made_safe():
    assert Reward("mine", len).code_sha256 is None

    def half_broken(prompts, completions, **columns):
        return [1 / len(text) for text in completions]

    reward = Reward("mine", half_broken)
    assert reward(["?"] * 3, ["a", "", "bb"]) == [1.0, 0.0, 0.5]
    assert reward.failures == {"raised": 1}
    assert reward.last_failure.startswith("raised ZeroDivisionError")


# Names


@pytest.mark.parametrize(
    ("name", "is_code"),
    [
        ("mine.py:f", True),
        ("../a folder/mine.py:_f2", True),
        ("correctness", False),
        ("mine.py", False),
        ("mine.py:", False),
        ("mine.py:2f", False),
        ("mine:f", False),
        ("", False),
    ],
)
def test_user_code_is_known_by_its_name(name, is_code):
    assert rewards.is_user_code(name) is is_code


def test_code_is_found_from_the_recipes_folder_and_hashed(mine):
    path, function = rewards.user_code_path("mine.py:short", mine.folder)
    assert (path, function) == (mine.folder / "mine.py", "short")
    expected = hashlib.sha256(path.read_bytes()).hexdigest()
    assert rewards.file_hash(path) == rewards.code_sha256("mine.py:short", mine.folder) == expected


@pytest.mark.parametrize(
    ("name", "allow", "parts"),
    [
        ("corectness", True, ["no reward `corectness`", "did you mean `correctness`?"]),
        ("zzz", True, ["no reward `zzz`"]),
        ("mine.py:short", False, ["--allow-code", "sha256", "mine.py"]),
        ("gone.py:short", True, ["gone.py", "cannot be read"]),
        ("mine.py:shorty", True, ["no function `shorty`"]),
        ("broken.py:f", True, ["not valid Python", "line 1"]),
    ],
)
def test_load_refuses_with_a_reason(name, allow, parts, mine):
    (mine.folder / "broken.py").write_text("def f(:\n")
    with pytest.raises(RecipeError) as caught:
        rewards.load([name], base_dir=mine.folder, allow_code=allow)
    assert isinstance(caught.value, ValueError)
    for part in parts:
        assert part in str(caught.value)
    hint = caught.value.problems[0].hint
    expected = {"zzz": "xml_tags", "mine.py:shorty": "did you mean `short`?"}.get(name)
    assert expected is None or expected in hint


def test_a_failure_crosses_processes():
    failed = pickle.loads(pickle.dumps(rewards.Failed("raised", "raised ValueError: x")))
    assert (failed.kind, failed.message) == ("raised", "raised ValueError: x")


def test_a_file_is_imported_with_its_neighbours_and_under_a_name_of_its_own(tmp_path):
    (tmp_path / "neighbour.py").write_text("WORTH = 0.75\n")
    (tmp_path / "json.py").write_text(
        "from neighbour import WORTH\n\ndef f(completion, row):\n    return WORTH\n"
    )
    (reward,) = rewards.load(["json.py:f"], base_dir=tmp_path, allow_code=True)
    try:
        assert train(reward, "a") == [0.75] and not reward.failures
    finally:
        reward.close()


# The example of the documentation


@pytest.fixture(scope="module")
def dose():
    (reward,) = rewards.load([f"{DOSE.name}:dose"], base_dir=DOSE.parent, allow_code=True)
    yield reward
    reward.close()


@pytest.mark.parametrize(
    ("answer", "paid"),
    [
        ("500 mg", 1),
        ("0.5 g", 1),
        ("500,000 mcg", 1),
        ("500000\u00b5g", 1),
        ("0.0005 kg.", 1),
        ("500 mcg", 0.2),
        ("5 g", 0.2),
        ("500 ml", 0),
        ("500", 0),
        ("500 mg or 5 g", 0),
        ("-500 mg", 0),
        ("mg", 0),
        ("((((", 0),
        ("", 0),
    ],
)
def test_dose_example(answer, paid, dose):
    completions = [f"<reasoning>\nx\n</reasoning>\n<answer>\n{answer}\n</answer>"] * 2
    columns = {"prompts": ["?"] * 2, "completions": completions}
    assert dose(**columns, answer=["500 mg", "yes"]) == [paid, None]
    assert not dose.failures


def test_dose_example_passes_its_check(dose):
    assert rewards.check(dose, [{"prompt": "How much?", "answer": "500 mg"}]) == []
