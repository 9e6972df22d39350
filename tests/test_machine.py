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


@pytest.fixture
def machine_of_eight(tmp_path, monkeypatch):
    """Eight CPUs, two for each core, no limits; the tests change the files in the folder."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for name in ("_CGROUPS", "_CGROUP_FOLDERS", "_TOPOLOGY"):
        monkeypatch.setattr(machine, name, tmp_path / name)
    for cpu in range(8):
        folder = tmp_path / "_TOPOLOGY" / f"cpu{cpu}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{cpu % 4},{cpu % 4 + 4}\n")
    return tmp_path


def limit(folder, group, file, text):
    (folder / "_CGROUP_FOLDERS" / group).mkdir(parents=True, exist_ok=True)
    (folder / "_CGROUP_FOLDERS" / group / file).write_text(text)


def test_threads_are_as_many_as_cpus_without_limits(machine_of_eight):
    assert machine.default_threads() == 8
    assert machine.usable_core_count() == 4


@pytest.mark.parametrize(("quota", "threads"), [("300000 100000", 3), ("150000 100000", 2), ("1000 100000", 1)])
def test_threads_keep_within_a_containers_share(machine_of_eight, quota, threads):
    (machine_of_eight / "_CGROUPS").write_text("0::/outer/inner\n")
    limit(machine_of_eight, "outer/inner", "cpu.max", "max 100000\n")
    limit(machine_of_eight, "outer", "cpu.max", quota + "\n")
    assert machine.default_threads() == threads


def test_threads_keep_within_the_share_of_the_first_version_of_cgroups(machine_of_eight):
    (machine_of_eight / "_CGROUPS").write_text("3:cpuset:/a\n2:cpu,cpuacct:/a\n0::/\n")
    limit(machine_of_eight, "cpu,cpuacct/a", "cpu.cfs_quota_us", "250000\n")
    limit(machine_of_eight, "cpu,cpuacct/a", "cpu.cfs_period_us", "100000\n")
    limit(machine_of_eight, "cpu,cpuacct", "cpu.cfs_quota_us", "-1\n")
    limit(machine_of_eight, "cpu,cpuacct", "cpu.cfs_period_us", "100000\n")
    assert machine.default_threads() == 3


@pytest.mark.parametrize(
    ("variable", "threads"), [("2", 2), ("3,1", 3), ("64", 8), ("0", 1), ("", 8), ("many", 8), ("-1", 8)]
)
def test_threads_keep_within_openmps_variable(machine_of_eight, monkeypatch, variable, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", variable)
    assert machine.default_threads() == threads


@pytest.mark.parametrize("text", ["", "nonsense", "0::", "::::", "0::/gone"])
def test_control_groups_that_cannot_be_read_limit_nothing(machine_of_eight, text):
    (machine_of_eight / "_CGROUPS").write_text(text)
    limit(machine_of_eight, "", "cpu.max", "what 1 2")
    assert machine.default_threads() == 8


def test_cores_are_counted_among_the_cpus_that_this_process_may_use(machine_of_eight, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 4, 5}, raising=False)
    assert machine.usable_core_count() == 2
