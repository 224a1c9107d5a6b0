"""From Postgres' error codes to TaskHarbor's errors, each with its remedy.

The codes are those of the appendix "PostgreSQL Error Codes". An error without one is libpq's own:
the connection could not be made, or broke.
"""

from __future__ import annotations

import psycopg

from taskharbor.errors import (
    ConfigurationError,
    InvalidJob,
    SchemaMismatch,
    StoreError,
    StoreFull,
    StoreReadOnly,
    StoreUnavailable,
    TaskHarborError,
)

_AGAIN = frozenset({"40001", "40P01"})  # serialization failure, deadlock
_AWAY = frozenset(
    {
        "25P03",  # idle for too long in a transaction
        "25P04",  # transaction timeout
        "53300",  # too many connections
        "53200",  # out of memory
        "53400",  # a limit of its configuration
        "55P03",  # lock timeout
        "57014",  # statement timeout, or an operator's pg_cancel_backend
        "57P01",  # shut down by an administrator
        "57P02",  # crash of another backend
        "57P03",  # starting up, shutting down
        "57P05",  # idle for too long
        "58030",  # I/O error
    }
)
_NO_SCHEMA = frozenset({"3F000", "42P01", "42883", "42704", "42703"})
_WRONG_LOGIN = frozenset({"28000", "28P01", "3D000"})


def is_conflict(error: psycopg.Error) -> bool:
    """Whether the transaction lost to another and was rolled back: to send it again is right."""
    return error.sqlstate in _AGAIN


def translate(error: psycopg.Error, url: str) -> TaskHarborError:
    """The error to raise ``from`` this one."""
    code = error.sqlstate or ""
    if code == "TH010":
        return InvalidJob(error.diag.message_primary)  # said by th.enqueue_flow
    what = str(error).strip().partition("\n")[0] or type(error).__name__
    if code in _AGAIN:
        return StoreUnavailable(
            f"other transactions on {url} were in the way again and again ({what}); try again"
        )
    if code in _AWAY or code[:2] == "08":
        return StoreUnavailable(f"Postgres at {url} can't serve this now: {what}")
    if code == "25006":
        return StoreReadOnly(
            f"Postgres at {url} is read-only, a standby perhaps ({what}); name the primary, or all "
            "hosts with ?target_session_attrs=read-write"
        )
    if code == "53100":
        return StoreFull(
            f"no room left on the disk of Postgres at {url} ({what}); free some, then go on: what "
            "was stored before is intact"
        )
    if code in _NO_SCHEMA:
        return SchemaMismatch(
            f"Postgres at {url} has no such schema, or not this version's ({what}); run: "
            "taskharbor migrate"
        )
    return _refused(error, code, what, url)


def _refused(error: psycopg.Error, code: str, what: str, url: str) -> TaskHarborError:
    if code == "42501":
        return StoreError(f"Postgres at {url} forbids it ({what}); GRANT this user what is missing")
    nobody = 'role "' in what and "does not exist" in what
    if nobody or code in _WRONG_LOGIN or "authentication failed" in what:
        return StoreError(f"Postgres at {url} lets nobody in like this: {what}; mend the URL")
    if 'database "' in what and "does not exist" in what:
        return StoreError(f"Postgres at {url}: {what}; create it with createdb, or mend the URL")
    if isinstance(error, psycopg.ProgrammingError) and not code:
        return ConfigurationError(f"{url} can't be used: {what}")
    # (Without a code, InternalError is psycopg's own: a pooler whose server went away in the middle
    # of a COMMIT sends two answers to it.)
    broke = isinstance(error, psycopg.InternalError) and not code
    if broke or isinstance(error, psycopg.OperationalError):
        return StoreUnavailable(f"Postgres at {url} does not answer: {what}")
    return StoreError(f"Postgres at {url} refused a request: {what}")
