"""Tasks whose own writes commit together with the end of their job.

    @app.task(transactional=True)
    def transfer(connection: psycopg.Connection, source: int, target: int, cents: int) -> None:
        connection.execute("UPDATE accounts SET ...")

    transfer.delay(1, 2, 500)

The function's first parameter (after ``self``, with ``bind=True``) is an open transaction of the
store. When it returns, the job is settled in that transaction, by its fence, and both commit; when
it raises, or the lease was lost meanwhile, nothing that it wrote stays. So its effects in the
store's database happen exactly once, whatever is killed when; effects elsewhere do not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from taskharbor.context import current_job, in_job
from taskharbor.errors import ConfigurationError
from taskharbor.message import Message
from taskharbor.task import SyncTask, Task

if TYPE_CHECKING:
    from taskharbor.drivers.base import Driver, Transactional

P = ParamSpec("P")
R = TypeVar("R")


class TransactionalTask(SyncTask[P, R]):
    """A task that gets an open transaction as its first argument."""

    transactional = True

    def message(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Message:
        """Raises ConfigurationError as well, where the store has no such transactions."""
        require(self.app.driver, self.name)
        return super().message(args, kwargs)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function in the transaction of the job that this is called in.

        Anywhere else call ``task.function`` with a connection of your own; ConfigurationError.
        """
        if not in_job():
            raise ConfigurationError(
                f"{self.name} was called outside of a job, where it has no transaction; enqueue "
                f"it, or call {self.name.rpartition('.')[2]}.function with a connection of yours"
            )
        result: R = self.invoke(current_job().connection, *args, **kwargs)
        return result


def require(driver: Driver, task: str) -> Transactional:
    """``driver``, if it can run ``task``, a transactional one. Raises ConfigurationError."""
    from taskharbor.drivers.base import Transactional

    if isinstance(driver, Transactional):
        return driver
    raise ConfigurationError(
        f"{task} has transactional=True, and {driver.url} can't settle jobs in a transaction of "
        "their tasks; use a store that can, Postgres, or drop the option"
    )


def as_transactional(task: type[Task[..., Any]]) -> type[Task[..., Any]]:
    """The kind of task to make with ``transactional=True``. Raises ConfigurationError."""
    if task.is_async:
        raise ConfigurationError(
            "a task with transactional=True can't be async def: what its connection does would "
            "stop the event loop; write def, and it runs in a thread there"
        )
    return TransactionalTask
