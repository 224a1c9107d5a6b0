"""A storm over a server whose disk is small, and full for a while.

    unshare --mount --propagation private python -m tests.chaos.small_disk postgres 17 /tmp/storm

The disk is a tmpfs of its own in this process' mount namespace, where it is gone with the process,
however that ends. Prints what was broken, a line for each.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from tests.chaos.faults import FailOver, FillStoreDisk
from tests.chaos.storm import SECONDS, Plan, Storm
from tests.chaos.weather import Blow
from tests.servers.postgres import wheel_binaries

MEGABYTES = 160
"""An empty Postgres takes 40 and a log of up to 80, one storm a few more."""


def plan(site: str, seed: int, disk: Path) -> Plan:
    """The seed's storm with two full disks in it, and on one server: a standby shares the disk."""
    drawn = Plan.draw(site, seed)
    full = [
        Blow(at=at * SECONDS, fault=FillStoreDisk(disk=disk, seconds=0.2 * SECONDS))
        for at in (0.15, 0.6)
    ]
    others = [blow for blow in drawn.blows if not isinstance(blow.fault, FailOver)]
    return replace(drawn, blows=sorted([*others, *full], key=lambda blow: blow.at))


def main(site: str, seed: int, directory: Path) -> list[str]:
    wheel_binaries()  # perhaps a copy, which is not to take room on the small disk
    with tempfile.TemporaryDirectory(prefix="small-disk-") as disk:
        Path(disk).chmod(0o755)  # the server may run under another account
        options = ["-t", "tmpfs", "-o", f"size={MEGABYTES}m,mode=0755", "small-disk", disk]
        subprocess.run(["mount", *options], check=True)
        tempfile.tempdir = disk  # where servers have their data, and nothing else of the storm
        try:
            return Storm(site, plan(site, seed, Path(disk)), directory).run()
        finally:
            tempfile.tempdir = None
            subprocess.run(["umount", "--lazy", disk], check=True)


if __name__ == "__main__":
    found = main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
    print("\n".join(found))
    sys.exit(bool(found))
