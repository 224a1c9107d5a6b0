"""A chord on TaskHarbor: its members and, once all have ended, its callback, which ticks too."""

from peers.taskharbor_app import COMMANDS as JOB_COMMANDS
from peers.taskharbor_app import app
from peers.ticks import tick
from taskharbor import chord, group

COMMANDS = [
    [word.replace("peers.taskharbor_app", "peers.taskharbor_chord") for word in command]
    for command in JOB_COMMANDS
]


@app.task
def member() -> None:
    tick()


@app.task
def callback(results: list[None]) -> int:
    tick()
    return len(results)


def fill(jobs: int) -> None:
    chord(group(member.s() for _ in range(jobs - 1)), callback.s()).delay()
