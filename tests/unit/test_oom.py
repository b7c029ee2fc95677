"""How kills for want of memory are told from others, by the kernel's counters."""

import pytest

from servegrpc.engine.oom import OomKills, counters


@pytest.fixture
def write(tmp_path):
    """Write a file below a folder that stands for /sys/fs/cgroup; returns it."""

    def write(name, text):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    return write


def test_cgroup_of_its_own(write, tmp_path):
    """The process is in a cgroup of version 2 → that one's counter."""
    file = write("a/b/memory.events", "oom 2\noom_kill 1\noom_group_kill 0\n")
    assert counters("0::/a/b\n", tmp_path) == file


def test_cgroup_of_a_container(write, tmp_path):
    """The path in /proc is the host's, and the container sees its own cgroup at the top → that one's counter."""
    file = write("memory.events", "oom_kill 0\n")
    assert counters("0::/docker/1234\n", tmp_path) == file


def test_first_version_of_cgroups(write, tmp_path):
    """The memory controller is one of version 1 → its counter."""
    file = write("memory/a/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n")
    assert counters("9:name=systemd:/\n4:memory:/a\n0::/\n", tmp_path) == file


def test_no_cgroup(tmp_path, write):
    """No cgroup counts → the machine's counter."""
    machine = write("vmstat", "pgfault 7\noom_kill 0\n")
    assert counters("0::/\n", tmp_path, machine) == machine


def test_one_kill_explains_one_end(write):
    """The counter has gone up by one since the start → one end is explained by it, and no second one."""
    file = write("memory.events", "oom_kill 3\n")
    kills = OomKills(file)
    assert not kills.take(True)
    file.write_text("oom_kill 4\n")
    assert kills.take(True)
    assert not kills.take(True)


def test_kill_of_another_process(write):
    """A worker ends by itself after the counter has gone up → that was another process, and explains no later end."""
    file = write("memory.events", "oom_kill 3\n")
    kills = OomKills(file)
    file.write_text("oom_kill 4\n")
    assert not kills.take(False)
    assert not kills.take(True)


def test_counter_that_goes_away(write):
    """The counter cannot be read any more → nothing is explained by it."""
    file = write("memory.events", "oom_kill 3\n")
    kills = OomKills(file)
    file.unlink()
    assert not kills.take(True)


def test_counter_of_this_machine():
    """The real counter → it can be read, and nothing has been killed since."""
    assert not OomKills().take(True)
