"""The facts about the machine, from a /proc/cpuinfo of known content."""

import os
import platform

import pytest

from vmp_edge import machine

X86 = "processor\t: 0\nmodel name\t: Some CPU @ 2.0: fast\nflags\t\t: fpu avx2 avx512f\nvmx flags\t: ept\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd\nCPU part\t: 0xd0b\n"


@pytest.mark.parametrize(
    ("content", "model", "features"),
    [
        (X86, "Some CPU @ 2.0: fast", {"fpu", "avx2", "avx512f"}),
        (ARM, platform.machine(), {"fp", "asimd"}),
        (None, platform.machine(), set()),
    ],
    ids=["x86", "arm", "not Linux"],
)
def test_model_and_features_of_the_cpu(tmp_path, monkeypatch, content, model, features):
    monkeypatch.setattr(machine, "_CPUINFO", tmp_path / "cpuinfo")
    if content is not None:
        (tmp_path / "cpuinfo").write_text(content)
    assert machine.cpu_model() == model
    assert machine.cpu_features() == features
    assert machine.missing_cpu_features(["zzz", *sorted(features), "aaa"]) == ["zzz", "aaa"]


def test_the_count_is_of_the_cpus_that_this_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {1, 3, 5}, raising=False)
    assert machine.usable_cpu_count() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    assert machine.usable_cpu_count() == os.cpu_count()
