"""The processor as a lock has it: model and widest vector instructions, on each architecture."""

import pytest

from r1recipes.machine import host

X86 = "processor\t: 0\nmodel name\t: AMD  EPYC\nflags\t\t: fpu sse avx avx2 {more}\n\n"
ARM = "processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd evtstrm\nCPU part\t: 0xd0c\n"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (X86.format(more="avx512f avx512dq"), "AMD EPYC, avx512"),
        (X86.format(more=""), "AMD EPYC, avx2"),
        (ARM, "aarch64, neon"),
        ("", "aarch64"),  # macOS has no such file
    ],
)
def test_model_and_widest_vectors(text, shown, tmp_path, monkeypatch):
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(host, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert host.cpu() == shown
