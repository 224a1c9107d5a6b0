"""How every ``taskharbor`` command ends."""

from __future__ import annotations

from enum import IntEnum

from taskharbor import errors


class Exit(IntEnum):
    """Exit codes. From 64 up they are those of BSD's sysexits.h."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    REFUSED = 4
    UNFINISHED = 5
    STORE = 69
    INTERNAL = 70
    CONFIGURATION = 78
    INTERRUPTED = 130

    @property
    def meaning(self) -> str:
        return _MEANINGS[self]


_MEANINGS = {
    Exit.OK: "done",
    Exit.FAILED: "the job failed, the proof or a check failed, or running jobs had to be killed",
    Exit.USAGE: "a flag, an argument or a value is wrong",
    Exit.NOT_FOUND: "there is no such job or flow",
    Exit.REFUSED: "the state of the job or flow does not allow it",
    Exit.UNFINISHED: "the job is not finished yet",
    Exit.STORE: "the store can't be reached, or refuses",
    Exit.INTERNAL: "a bug in TaskHarbor",
    Exit.CONFIGURATION: "the app, the URL or a setting can't work",
    Exit.INTERRUPTED: "interrupted with Ctrl-C",
}

# The first type that fits counts.
_BY_ERROR: tuple[tuple[type[errors.TaskHarborError], Exit], ...] = (
    (errors.InvalidJob, Exit.USAGE),
    (errors.InvalidCall, Exit.USAGE),
    (errors.InvalidLease, Exit.USAGE),
    (errors.InvalidCursor, Exit.USAGE),
    (errors.EncodeError, Exit.USAGE),
    (errors.JobNotFound, Exit.NOT_FOUND),
    (errors.ResultTimeout, Exit.UNFINISHED),
    (errors.TaskFailed, Exit.FAILED),
    (errors.JobCancelled, Exit.FAILED),
    (errors.JobError, Exit.REFUSED),
    (errors.StoreError, Exit.STORE),
    (errors.ConfigurationError, Exit.CONFIGURATION),
)


def exit_for(error: errors.TaskHarborError) -> Exit:
    for kind, code in _BY_ERROR:
        if isinstance(error, kind):
            return code
    return Exit.FAILED
