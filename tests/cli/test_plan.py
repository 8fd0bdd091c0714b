"""`plan` as a user meets it: the table, the verdict, a preset to paste, and what is refused."""

import json

import pytest
import tomli

from r1recipes import recipe
from r1recipes.machine import cards
from tests.conftest import SMALL
from tests.helpers import command, in_process


def test_the_table_adds_up_and_says_whether_it_fits():
    code, out, _ = in_process("plan", "phi4", "--gpu", "t4", "--preset", "16GB")
    assert code == 0 and "on T4 16GB" in out and "verdict   fits" in out
    rows = [line for line in out.split("\n\n")[0].splitlines()[2:]]
    columns = [[float(cell.replace("-", "0")) for cell in row[22:].split()] for row in rows]
    for column in zip(*columns, strict=True):
        assert sum(column[:-1]) == pytest.approx(column[-1], abs=0.07)


def test_the_table_says_what_a_filter_generates():
    code, out, _ = in_process("plan", "phi4", "--gpu", "t4", "--set", "data.keep=[0.1,0.9]")
    loaded = recipe.load("phi4")
    preset, steps = loaded.recipe.preset["16GB"], loaded.recipe.train.max_steps
    completions = steps * preset.prompts_per_step * preset.num_generations
    assert code == 0 and f"filter    generates {completions:,} completions or more" in out


def test_json_has_every_part_in_bytes():
    code, out, _ = in_process("plan", "llama3.1-8b", "--vram", "16", "--json")
    prediction = json.loads(out)
    assert code == 0 and prediction["available_bytes"] == 16 * 2**30
    totals = {phase: sum(parts.values()) for phase, parts in prediction["phases"].items()}
    assert max(totals.values()) == prediction["peak_bytes"] == totals[prediction["peak_phase"]]
    assert prediction["headroom_bytes"] == prediction["room_bytes"] - prediction["needed_bytes"]
    assert prediction["needed_bytes"] <= prediction["peak_bytes"]
    assert prediction["verdict"] in ("fits", "tight") and prediction["sequences"] >= 1


def test_what_does_not_fit_ends_with_2_and_ways_that_work():
    command_line = ["plan", "phi4", "--gpu", "t4", "--preset", "16GB"]
    long = ["--set", "preset.max_seq_length=8192", "--set", "preset.max_completion_length=7936"]
    code, out, _ = in_process(*command_line, *long, "--set", "preset.standby=false")
    assert code == 2 and "verdict   does not fit" in out
    way = next(line for line in out.splitlines() if "this fits" in line).split("fits ", 1)[1]
    code, out, _ = in_process(*command_line, *long, *way.split())
    assert code == 0 and "verdict   fits" in out


def test_a_cache_that_unsloth_counts_too_small_is_said_to_hold_no_sequence():
    code, out, _ = in_process("plan", "phi4", "--gpu", "t4", "--preset", "24GB")
    text = " ".join(out.split())
    assert code == 2 and "at once 0 sequences" in text
    assert "a KV cache of 768 tokens as Unsloth counts, and a sequence has 1,536" in text


def test_fit_prints_a_preset_that_fits_when_it_is_pasted(tmp_path):
    code, out, _ = in_process("plan", "qwen2.5-7b", "--gpu", "rtx 4090", "--fit")
    assert code == 0 and out.startswith("# Predicted for RTX 4090 24GB, not measured")
    pasted = tomli.loads(out)["preset"]
    assert list(pasted) == ["24GB"]
    code, text, _ = in_process("show", "qwen2.5-7b")
    (tmp_path / "mine.toml").write_text(text.split("[preset.")[0] + out)
    code, out, err = in_process("plan", tmp_path / "mine.toml", "--gpu", "rtx 4090")
    assert code == 0 and "verdict   fits" in out, err


def test_fit_serves_cards_that_the_recipe_has_no_preset_for():
    code, out, _ = in_process("plan", "qwen2.5-1.5b", "--vram", "6", "--fit")
    assert code == 0 and "[preset.6GB]" in out
    code, out, err = in_process("plan", "phi4", "--vram", "7", "--fit")
    assert code == 2 and not out and "takes" in err


def test_memory_is_given_with_its_unit_or_without():
    plain, with_unit = (in_process("plan", "phi4", "--vram", text) for text in ("16", "16 GiB"))
    assert plain == with_unit and plain[0] == 0
    assert "cards sold as 16GB have 14.7 to 15.6 GiB" in plain[1]
    assert "note" not in in_process("plan", "phi4", "--vram", "17")[1]


def test_that_a_card_shares_the_main_memory_is_said():
    note = "note      this is main memory"
    assert note in in_process("plan", "phi4", "--gpu", "dgx spark")[1]
    assert note not in in_process("plan", "phi4", "--gpu", "t4x2")[1]


def test_a_step_has_more_sequences_than_the_engine_takes_at_once():
    more = ("--set", "preset.8GB.prompts_per_step=40")
    code, out, _ = in_process("plan", "small", "--vram", "8", *more)
    assert code == 0 and "at once   272 sequences" in out and "of 320 in a step" in out
    code, out, _ = in_process("plan", "small", "--vram", "8")
    assert code == 0 and "at once   256 sequences" in out and "of 256 in a step" in out
    assert "needed" not in out.split("peak", 1)[1].split("headroom")[0]  # all of the peak is
    assert "cards sold as 8GB have 7.6 to 7.8 GiB" in out


def test_what_is_short_is_said_within_80_columns_with_changes_that_fit():
    arguments = ["plan", "phi4", "--gpu", "t4", "--preset", "24GB"]
    code, out, _ = in_process(*arguments)
    assert code == 2 and "\x1b" not in out
    lines = out.splitlines()
    assert all(len(line) <= 80 for line in lines if not line.startswith("this fits"))
    ways = [line.removeprefix("this fits ") for line in lines if line.startswith("this fits")]
    assert ways
    for way in ways:
        code, out, _ = in_process(*arguments, *way.split())
        assert code == 0 and "verdict   fits" in out, way


@pytest.mark.parametrize("length", [9000, 60000])
def test_where_only_shorter_sequences_fit_that_is_said(length):
    arguments = ["plan", "phi4", "--gpu", "t4", "--fit", "--set", f"preset.max_seq_length={length}"]
    completion = f"preset.max_completion_length={length - 1000}"
    code, _, err = in_process(*arguments, "--set", completion)
    assert code == 2 and "nothing fits for sure with these lengths and this rank" in err
    assert "for each choice that is open" in err
    way = err.split("with --fit this does: ", 1)[1].split("; or")[0].split()
    code, out, err = in_process(*arguments, "--set", completion, *way)
    assert code == 0 and out.startswith("# Predicted"), err


def test_what_is_tight_is_not_called_the_least():
    sizes = (f"{tenths / 10}" for tenths in range(105, 130))
    shown = [in_process("plan", "phi4", "--vram", size, "--fit")[1] for size in sizes]
    tight = [text for text in shown if "nearer than the prediction is exact" in text]
    assert tight and not any("least" in text for text in tight)


def test_where_nothing_fits_both_shortages_are_said():
    code, _, err = in_process("plan", "phi4", "--vram", "8", "--fit")
    assert code == 2 and err.count("GiB short") == 2 and "may have 7.6 of this card" in err
    assert "hint: take a smaller model or a larger card" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plan", "phi4", "--gpu", "voodoo"], "no NVIDIA card `voodoo` is known"),
        (["plan", "phi4", "--gpu", "t5"], "`--gpu 'T4'`; or give"),
        (["plan", "phi4", "--gpu", "a100"], "`--gpu 'A100 40GB'` or `--gpu 'A100 80GB'`"),
        (["plan", "phi4", "--gpu", ""], "no NVIDIA card `` is known"),
        (["plan", "phi4", "--gpu", "v100"], "`v100` has compute capability 7.0"),
        (["plan", "phi4", "--gpu", "24"], "`--vram 24`"),
        (["plan", "phi4", "--vram", "4090"], "`--gpu 4090`"),
        (["plan", "phi4", "--vram", "t4"], "`--gpu t4`"),
        (["plan", "phi4", "--vram", "V100"], "`--gpu V100`"),
        (["rehearse", "phi4", "--vram", "3090"], "`--gpu 3090`"),
        (["plan", "phi4", "--vram", "0"], "--vram 0"),
        (["plan", "phi4", "--vram=-16"], "--vram -16"),
        (["plan", "phi4", "--vram", "nan"], "--vram nan"),
        (["plan", "phi4", "--vram", "1e9"], "--vram 1e9"),
        (["plan", "phi4", "--vram", "16MB"], "--vram 16MB"),
        (["plan", "phi4", "--vram", "11", "--fit"], "nothing fits for sure"),
        (["plan", "phi4", "--vram", "8"], "smallest preset is 16GB"),
        (["plan", "phi4", "--gpu", "t4", "--preset", "9GB"], "no preset `9GB`"),
        (["plan", "tiny", "--gpu", "t4"], "for the CPU"),
        (["plan", "nothing", "--gpu", "t4"], "nothing"),
        (["plan", "phi4", "--gpu", "t4", "--set", "model.name=./gone"], "./gone"),
    ],
)
def test_what_cannot_be_planned_is_said(arguments, message):
    code, out, err = in_process(*arguments)
    assert code == 2 and not out and message in err and "hint" in err


def test_without_a_card_a_preset_names_one(monkeypatch):
    monkeypatch.setattr("r1recipes.machine.gpu.current", lambda: None)
    code, out, _ = in_process("plan", "phi4", "--preset", "24GB")
    smallest = min(c.usable_bytes for c in cards.GPUS.values() if c.sold_gb == 24)
    assert code == 0 and f"the card has {smallest / 2**30:.2f}" in out
    code, _, err = in_process("plan", "phi4")
    assert code == 2 and "--gpu t4" in err


@pytest.mark.parametrize("fit", [[], ["--fit"]])
def test_a_cpu_preset_needs_no_gpu_memory(fit, tmp_path, monkeypatch):
    monkeypatch.setattr("r1recipes.machine.gpu.current", lambda: None)
    path = tmp_path / "both.toml"
    cpu = SMALL[SMALL.index("[preset.cpu]") :]
    path.write_text((recipe.loading.shipped_folder() / "small.toml").read_text() + "\n" + cpu)
    code, out, err = in_process("plan", path, "--preset", "cpu", *fit)
    assert code == 2 and not out and "preset `cpu` runs on a CPU" in err and "hint" in err


def test_plan_never_imports_torch(tmp_path):
    done = command("plan", "phi4", "--gpu", "t4", "--fit", cwd=tmp_path, PYTHONVERBOSE="1")
    assert done.returncode == 0
    imported = [line for line in done.stderr.splitlines() if line.startswith("import ")]
    assert imported and not any("'torch'" in line for line in imported)


def test_without_a_recipe_each_shipped_one_has_a_line():
    code, out, err = in_process("plan", "--gpu", "rtx 4090")
    assert (code, err) == (0, "")
    title, header, *rows = out.splitlines()
    assert title.startswith("RTX 4090 24GB: ") and header.split()[:3] == [
        "RECIPE",
        "PRESET",
        "NEEDED",
    ]
    assert [row.split()[0] for row in rows] == [path.stem for path in recipe.shipped()]
    by_name = {row.split()[0]: row for row in rows}
    assert "24GB" in by_name["phi4"] and " GiB " in by_name["phi4"]
    assert "the smallest preset is 80GB" in by_name["llama3.3-70b"]
    assert by_name["tiny"].endswith("for the CPU")
    code, out, _ = in_process("plan", "--vram", "16", "--json")
    recipes = {row["recipe"]: row for row in json.loads(out)["recipes"]}
    assert code == 0 and recipes["phi4"]["needed_bytes"] < 16 * 2**30
    alone = json.loads(in_process("plan", "phi4", "--vram", "16", "--json")[1])
    assert recipes["phi4"]["needed_bytes"] == alone["needed_bytes"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "`plan` needs a recipe or a GPU"),
        (["--gpu", "t4", "--fit"], "--preset, --fit and --set need a recipe"),
        (["--gpu", "t4", "--preset", "16GB"], "need a recipe"),
        (["--gpu", "foo"], "no NVIDIA card `foo` is known"),
    ],
)
def test_what_cannot_be_planned_without_a_recipe_is_said(arguments, message):
    code, _, err = in_process("plan", *arguments)
    assert code == 2 and message in err and "hint: " in err
