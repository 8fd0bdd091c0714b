"""What a run and its download need of a disk; what a run takes is in test_run.py."""

import shutil

import pytest

from r1recipes import planning, recipe
from r1recipes.errors import RunError
from r1recipes.planning import disk
from r1recipes.planning.disk import Need
from tests.helpers import hint, shape
from tests.training.test_rehearsal import CARD

GB = 10**9


@pytest.fixture
def free(monkeypatch):
    """Set what every disk has free, in GB."""

    def has(size: float):
        usage = shutil._ntuple_diskusage(10**15, 0, round(size * GB))
        monkeypatch.setattr("shutil.disk_usage", lambda path: usage)

    return has


def made(name: str = "phi4", **train) -> planning.Plan:
    loaded = recipe.load(name, [f"{key}={value}" for key, value in train.items()])
    target = planning.Target.elsewhere(CARD)
    return planning.make(loaded.recipe, target, base_dir=loaded.path.parent, preset="16GB")


def downloads(planned: planning.Plan, tmp_path, offline: bool = False) -> list[Need]:
    model_shape = shape(planned.recipe.model.name)
    return disk.needs(planned, model_shape, tmp_path, offline=offline)[1:]


def test_a_disk_has_room_or_says_what_is_missing(tmp_path, free):
    free(1)
    disk.check(Need(tmp_path / "not" / "made" / "yet", GB))
    with pytest.raises(RunError, match=r"needs 2\.0 GB, its disk has 1\.0 GB free$") as caught:
        disk.check(Need(tmp_path, 2 * GB, "HF_HUB_CACHE"))
    assert caught.value.kind == "disk" and "HF_HUB_CACHE" in hint(caught)


def test_needs_on_one_disk_add_up(tmp_path, free):
    free(3)
    run, model = Need(tmp_path / "runs", 2 * GB), Need(tmp_path / "hub", 2 * GB)
    with pytest.raises(RunError, match=r"hub` needs .* 3\.0 GB free, 2\.0 GB of it for the run"):
        disk.check(run, model)
    free(4)
    disk.check(run, model)


def test_a_download_is_needed_once_and_only_what_is_missing_of_it(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    (need,) = downloads(made(), tmp_path)
    assert need.folder == tmp_path and 9 * GB < need.size < 10 * GB
    assert downloads(made(), tmp_path, offline=True) == []
    folder = tmp_path / "models--unsloth--phi-4-bnb-4bit"
    (folder / "blobs").mkdir(parents=True)
    (folder / "blobs" / "a.incomplete").write_bytes(b"0" * 1000)
    assert [rest.size for rest in downloads(made(), tmp_path)] == [need.size - 1000]
    (folder / "snapshots" / "1").mkdir(parents=True)
    (folder / "snapshots" / "1" / "model.safetensors").write_bytes(b"0")
    assert disk.has_model("unsloth/phi-4", four_bit=True)
    assert downloads(made(), tmp_path) == []


def test_a_revision_is_downloaded_in_16_bits(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    planned = made(**{"model.revision": "v1"})
    (need,) = downloads(planned, tmp_path)
    assert need.size == 2 * shape("unsloth/phi-4").parameters
