"""Where a memory cgroup is made, on trees like those that kernels show; their rules are played."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tests.chaos import cgroups
from tests.chaos.cgroups import memory_cgroup

LIMIT = 16 << 20


class Kernel:
    """A tree of version 2: a directory has files of the memory controller if its parent hands
    that out, and one with processes hands nothing out, unless it is the real root."""

    def __init__(self, root: Path, *, real_root: bool = True) -> None:
        self.root = root
        self._real_root = real_root
        self.processes: dict[Path, list[str]] = {}
        root.mkdir(parents=True)
        self._fill(root, "cpu memory")

    def mkdir(self, path: Path) -> Path:
        given = (path.parent / "cgroup.subtree_control").read_text()
        Path.mkdir(path)
        self._fill(path, given)
        if "memory" in given:
            for name, content in (
                ("memory.max", "max"),
                ("memory.swap.max", "max"),
                ("memory.events", "low 0\nhigh 0\nmax 3\noom 2\noom_kill 2\n"),
            ):
                (path / name).write_text(content)
        return path

    def _fill(self, path: Path, controllers: str) -> None:
        (path / "cgroup.controllers").write_text(controllers)
        (path / "cgroup.subtree_control").write_text("")
        (path / "cgroup.procs").write_text("")

    def write(self, path: Path, text: str) -> None:
        if path.name == "cgroup.procs":
            self.processes.setdefault(path.parent, []).append(text)
        elif path.name == "cgroup.subtree_control":
            self._hand_out(path, text.removeprefix("+"))
        else:
            assert path.exists(), f"{path} is no file of that cgroup"
            path.write_text(text)

    def _hand_out(self, path: Path, controller: str) -> None:
        if controller not in (path.parent / "cgroup.controllers").read_text().split():
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        exempt = self._real_root and path.parent == self.root
        if self.processes.get(path.parent) and not exempt:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        path.write_text(controller)
        for child in path.parent.iterdir():
            if child.is_dir():
                (child / "cgroup.controllers").write_text(controller)

    def rmdir(self, path: Path) -> None:
        for file in path.iterdir():
            file.unlink()
        Path.rmdir(path)


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    return play_kernel(Kernel(tmp_path / "cgroup"), monkeypatch)


def play_kernel(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    monkeypatch.setattr(cgroups, "write", kernel.write)
    monkeypatch.setattr("tests.chaos.cgroups.os", _Calls(kernel))
    return kernel


class _Calls:
    """What of ``os`` makes and removes cgroups."""

    def __init__(self, kernel: Kernel) -> None:
        self.mkdir = kernel.mkdir
        self.rmdir = kernel.rmdir


def own(tmp_path: Path, path: str, *others: str) -> Path:
    said = tmp_path / "own"
    said.write_text("".join(f"{line}\n" for line in (*others, f"0::{path}")))
    return said


def test_it_is_made_beside_ours_where_an_ancestor_hands_out_memory(
    kernel: Kernel, tmp_path: Path
) -> None:
    """As systemd leaves it: every slice does, and processes are in the leaves."""
    user = kernel.root / "user.slice"
    kernel.write(kernel.root / "cgroup.subtree_control", "+memory")
    kernel.mkdir(user)
    kernel.write(user / "cgroup.subtree_control", "+memory")
    kernel.mkdir(user / "session-1.scope")
    kernel.write(user / "session-1.scope" / "cgroup.procs", "7")
    with memory_cgroup(kernel.root, own(tmp_path, "/user.slice/session-1.scope")) as cgroup:
        (made,) = user.glob("taskharbor-*")
        cgroup.set_limit(LIMIT)
        cgroup.add(8)
        assert (made / "memory.max").read_text() == str(LIMIT)
        assert (made / "memory.swap.max").read_text() == "0"
        assert kernel.processes[made] == ["8"]
        assert cgroup.kills == 2
    assert not made.exists()


def test_the_ancestors_are_asked_from_the_top_where_none_hands_it_out(
    kernel: Kernel, tmp_path: Path
) -> None:
    """The root may have processes of its own."""
    kernel.write(kernel.root / "cgroup.procs", "1")
    kernel.mkdir(kernel.root / "services")
    kernel.mkdir(kernel.root / "services" / "ours")
    kernel.write(kernel.root / "services" / "ours" / "cgroup.procs", "7")
    with memory_cgroup(kernel.root, own(tmp_path, "/services/ours")) as cgroup:
        cgroup.set_limit(LIMIT)
        assert len(list((kernel.root / "services").glob("taskharbor-*"))) == 1


def test_a_process_in_the_root_gets_one_below_it(kernel: Kernel, tmp_path: Path) -> None:
    kernel.write(kernel.root / "cgroup.procs", "7")
    with memory_cgroup(kernel.root, own(tmp_path, "/")) as cgroup:
        cgroup.set_limit(LIMIT)


def test_a_containers_first_cgroup_with_processes_is_refused_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks like the root, but is none: no processes beside children with controllers."""
    kernel = play_kernel(Kernel(tmp_path / "cgroup", real_root=False), monkeypatch)
    kernel.write(kernel.root / "cgroup.procs", "1")
    with (
        pytest.raises(OSError, match=r"busy.*move them into one below it"),
        memory_cgroup(kernel.root, own(tmp_path, "/")),
    ):
        pass
    assert not list(kernel.root.glob("taskharbor-*"))


def test_a_hierarchy_of_version_2_without_the_controller_leaves_it_to_version_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hybrid: memory is with version 1, and swap is counted together with it."""
    mounts = tmp_path / "mounts"
    unified = Kernel(mounts / "unified")
    (unified.root / "cgroup.controllers").write_text("hugetlb")
    (mounts / "memory").mkdir()

    def mkdir(path: Path) -> None:
        Path.mkdir(path)
        for name in ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"):
            (path / name).write_text("")
        (path / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 1\n")

    monkeypatch.setattr(unified, "mkdir", mkdir)
    play_kernel(unified, monkeypatch)
    with memory_cgroup(mounts, own(tmp_path, "/", "4:memory:/somewhere")) as cgroup:
        (made,) = (mounts / "memory").glob("taskharbor-*")
        cgroup.set_limit(LIMIT)
        assert (made / "memory.memsw.limit_in_bytes").read_text() == str(LIMIT)
        assert cgroup.kills == 1
