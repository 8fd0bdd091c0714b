"""Packages, the driver and compilers: what does not go together."""

import re

from r1recipes.machine import gpu, packages

CARD = gpu.Gpu(0, "NVIDIA GeForce RTX 4060", int(7.62 * 2**30), 7 * 2**30, 8.9, "580.1")


def by_name(findings: list[packages.Finding]) -> dict[str, packages.Finding]:
    return {finding.subject: finding for finding in findings if finding.level != "ok"}


def mend(finding: packages.Finding) -> str:
    assert finding.mend is not None
    return finding.mend


def test_the_packages_of_this_environment_fit():
    assert not by_name(packages.examine(None))


def test_versions_outside_the_ranges_are_named_with_reason_and_command(package):
    package("vllm", "0.29.0", "torch==2.11.0", "nothing-of-this-name>=1")
    package("unsloth", "2026.10.7")
    package("trl", "1.15.0")
    faults = by_name(packages.examine(CARD))
    assert "needs `vllm-bnb-plugin`" in faults["vllm"].state and faults["vllm"].stops == "gpu"
    assert faults["vllm"].mend == "python -m pip install 'vllm<0.27,>=0.26'"
    assert faults["unsloth-zoo"].state.startswith("not installed; needed is")
    assert "does not run on a CPU" in faults["trl"].state and faults["trl"].stops == "everything"
    assert "unsloth" not in faults and "nothing-of-this-name" not in faults


def test_what_the_packages_ask_of_each_other_is_compared(package):
    package("vllm", "0.26.0", "rich==1.0", 'rich==2.0; extra == "other"')
    conflicts = [f for f in packages.examine(None) if f.subject == "rich"]
    assert [f.mend for f in conflicts] == ["python -m pip install 'rich==1.0'"]
    assert "but vllm 0.26.0 asks for ==1.0" in conflicts[0].state


def test_a_cpu_build_of_torch_beside_a_gpu(monkeypatch, package):
    """One command mends all: the extra brings its torch, and vLLM works with one version alone."""
    monkeypatch.setattr(packages, "torch_cuda", lambda: None)
    faults = by_name(packages.examine(CARD))
    assert faults["torch"].stops == "gpu" and "'vllm<0.27,>=0.26'" in mend(faults["torch"])
    assert faults["torch"].mend == faults["extra gpu"].mend
    package("vllm", "0.26.0", "torch==2.11.0", "torchvision==0.26.0")
    assert by_name([packages._torch_build(CARD, None)[0]])["torch"].mend == (
        "python -m pip install --force-reinstall 'torch==2.11.0'"
    )


def test_an_old_cpu_build_of_torch_is_not_to_be_installed_again(monkeypatch, package):
    monkeypatch.setattr(packages, "torch_cuda", lambda: None)
    package("torch", "2.4.0")
    (fault,) = packages._torch_build(CARD, None)
    assert fault.mend == "python -m pip install --force-reinstall 'torch<2.14,>=2.11'"


def test_a_driver_that_is_too_old(monkeypatch):
    monkeypatch.setattr(packages, "torch_cuda", lambda: "13.0")
    old = gpu.Gpu(**(vars(CARD) | {"driver": "550.54"}))
    assert mend(by_name(packages.examine(old))["driver"]).endswith("nvidia-driver-580")
    assert "driver" not in by_name(packages.examine(CARD))
    monkeypatch.setattr(packages, "torch_cuda", lambda: "12.8")
    assert "driver" not in by_name(packages.examine(old))


def test_what_triton_compiles_with(package, monkeypatch, tmp_path):
    package("vllm", "0.26.0")
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert by_name(packages.examine(CARD))["compiler"].mend == "sudo apt-get install gcc"
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")
    assert "compiler" not in by_name(packages.examine(CARD))
    monkeypatch.setattr("sysconfig.get_paths", lambda: {"include": str(tmp_path)})
    compiler = by_name(packages.examine(CARD))["compiler"]
    assert re.search(r"python3\.\d+-dev$", mend(compiler))


def test_the_build_of_torch_is_read_without_importing_it():
    import torch

    assert packages.torch_cuda() == torch.version.cuda
