"""Every kind of data file that a recipe may name is read, whole and by its first rows."""

import datasets
import pytest

from r1recipes.data import sources
from r1recipes.data.local import rows
from r1recipes.recipe.references import FILE_SUFFIXES, OTHER_SUFFIXES

ROWS = [{"question": f"{number} + 1 = ?", "answer": str(number + 1)} for number in range(9)]


def test_a_recipe_knows_the_kinds_of_files_that_are_read():
    assert set(sources.FILES) == set(FILE_SUFFIXES)
    assert not set(FILE_SUFFIXES) & set(OTHER_SUFFIXES)


@pytest.mark.parametrize("first_rows", ["its own", "whole"])
@pytest.mark.parametrize("suffix", FILE_SUFFIXES)
def test_the_first_rows_are_those_of_the_file(suffix, first_rows, tmp_path, monkeypatch):
    path = tmp_path / f"rows{suffix}"
    data = datasets.Dataset.from_list(ROWS)
    write = {".jsonl": data.to_json, ".csv": data.to_csv, ".parquet": data.to_parquet}[suffix]
    write(path)
    if first_rows == "whole":
        kind = sources.FileKind(sources.FILES[suffix].read)
        monkeypatch.setitem(sources.FILES, suffix, kind)
    texts = ("question", "answer")
    columns, sample = rows.sample(path, "data.name", texts)
    assert columns == ["question", "answer"] and sample.rows == ROWS and sample.is_whole
    assert list(sources.read_file(path, "data.name", texts)) == ROWS
    monkeypatch.setattr(rows, "SAMPLE_ROWS", 4)
    if first_rows == "whole":
        _, sample = rows.sample(path, "data.name", texts)
        assert sample.rows == ROWS[:4] and not sample.is_whole
