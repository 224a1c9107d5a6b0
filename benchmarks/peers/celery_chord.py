"""A chord on Celery: its members and, once all have ended, its callback, which ticks too."""

from celery import chord

from peers.celery_app import COMMANDS as JOB_COMMANDS
from peers.celery_app import app
from peers.ticks import tick

COMMANDS = [
    [word.replace("peers.celery_app", "peers.celery_chord") for word in command]
    for command in JOB_COMMANDS
]


@app.task(name="peers.member")
def member() -> None:
    tick()


@app.task(name="peers.callback")
def callback(results: list[None]) -> int:
    tick()
    return len(results)


def fill(jobs: int) -> None:
    chord([member.s() for _ in range(jobs - 1)])(callback.s())
