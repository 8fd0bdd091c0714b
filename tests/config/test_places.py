"""Line and column of keys and values, as an editor counts them."""

import pytest

from r1recipes.config.places import Place, Positions

TEXT = """\
format = 1
model.name = "x"
"two words" = 'y'

[data]
  size = 3   # not 4
é = 1

[preset.8GB]
lora_rank = 8
inner = { beta = 1, deep = { "a.b" = 2 } }
list = [
  1,  # one
  2, [3],
]
text = \"\"\"
[train]
beta = 5
\"\"\"

[train]
beta = "ä" 
[[many]]
x = 1
[[many]]
x = 2
[many.below]
y = 3
"""


@pytest.mark.parametrize(
    ("path", "key", "value"),
    [
        (("format",), (1, 1), (1, 10)),
        (("model", "name"), (2, 1), (2, 14)),
        (("model",), (2, 1), (2, 14)),
        (("two words",), (3, 1), (3, 15)),
        (("data",), (5, 2), (5, 2)),
        (("data", "size"), (6, 3), (6, 10)),
        (("preset", "8GB"), (9, 2), (9, 2)),
        (("preset",), (9, 2), (9, 2)),
        (("preset", "8GB", "lora_rank"), (10, 1), (10, 13)),
        (("preset", "8GB", "inner", "beta"), (11, 11), (11, 18)),
        (("preset", "8GB", "inner", "deep", "a.b"), (11, 30), (11, 38)),
        (("preset", "8GB", "list", 1), (14, 3), (14, 3)),
        (("preset", "8GB", "list", 2, 0), (14, 7), (14, 7)),
        (("train",), (21, 2), (21, 2)),
        (("train", "beta"), (22, 1), (22, 8)),
        (("many", 0, "x"), (24, 1), (24, 5)),
        (("many", 1, "x"), (26, 1), (26, 5)),
        (("many", 1, "below", "y"), (28, 1), (28, 5)),
    ],
)
def test_places(path, key, value):
    assert Positions(TEXT).exact(path) == Place(key, value)


def test_the_nearest_enclosing_place_is_found():
    positions = Positions(TEXT)
    assert positions.find(("preset", "8GB", "max_seq_length")) == Place((9, 2), (9, 2))
    assert positions.find(("preset", "24GB", "lora_rank")) == Place((9, 2), (9, 2))
    assert positions.find(("nothing", "here")) is None
    assert positions.exact(("preset", "8GB", "max_seq_length")) is None


def test_columns_count_characters_and_lines_survive_windows():
    positions = Positions('a = { "é" = "ä", b = 2 }\r\nc = 3\r\n')
    assert positions.exact(("a", "b")) == Place((1, 18), (1, 22))
    assert positions.exact(("c",)) == Place((2, 1), (2, 5))


def test_escapes_in_keys():
    positions = Positions("\"\\U0001F600 \\t\" = 1\n'\\n' = 2\n")
    assert positions.exact(("\U0001f600 \t",)) == Place((1, 1), (1, 19))
    assert positions.exact(("\\n",)) == Place((2, 1), (2, 8))


def test_what_is_given_twice_is_noted():
    positions = Positions("a = 1\n[t]\nx = 1\nx = 2\n[t]\n[[l]]\n[[l]]\n")
    assert [(path, first.key, second.key) for path, first, second in positions.repeated] == [
        (("t", "x"), (3, 1), (4, 1)),
        (("t",), (2, 2), (5, 2)),
    ]


@pytest.mark.parametrize("text", ["", "\n", "[", "a =", "[[[", "\x00", '"""', "[a]\n[a.b]\n= 3"])
def test_any_text_has_positions(text):
    Positions(text).find(("a",))
