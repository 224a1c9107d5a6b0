import os
from pathlib import Path

from taskharbor.worker.reload import FileWatch


def test_changed_created_and_removed_files_are_named_once(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("kept.py", "edited.py", "removed.py", "created.py")]
    for file in files[:3]:
        file.write_text("x = 1\n")
    watch = FileWatch(map(str, files), 0.0)
    assert watch.changed(1.0) == []
    os.utime(files[1], ns=(1, 1))
    files[2].unlink()
    files[3].write_text("y = 2\n")
    assert watch.changed(1.1) == []  # not yet time for a look
    assert watch.changed(2.0) == [str(file) for file in files[1:]]
    assert watch.changed(3.0) == []
