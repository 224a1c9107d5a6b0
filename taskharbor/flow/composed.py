"""What chains, groups, chords and graphs have in common: they are stored as flows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, Unpack

from taskharbor.canvas import Canvas

if TYPE_CHECKING:
    from datetime import datetime

    from taskharbor.backoff import Backoff
    from taskharbor.flow.result import FlowResult

R_co = TypeVar("R_co", covariant=True)


class FlowOptions(TypedDict, total=False):
    """What ``apply_async()`` of a flow can set.

    ``name``: to show. ``idempotency_key``: as long as a flow with this key exists, another one
    is not stored, and the first one is returned. ``expires``: seconds after which the flow, if it
    is not over, is cancelled. ``connection``: an open transaction to enqueue in, where the driver
    can. Everything else is laid over the options of every job, but ``countdown`` and ``eta``: those
    are for the jobs that the flow begins with.
    """

    name: str
    idempotency_key: str | None
    expires: float | None
    connection: Any
    queue: str
    priority: int
    countdown: float
    eta: datetime
    max_attempts: int
    backoff: Backoff
    timeout: float | None
    headers: Mapping[str, Any]


class Composed(Canvas[R_co]):
    """A flow written down."""

    __slots__ = ()

    def delay(self, *args: Any, **kwargs: Any) -> FlowResult[R_co]:
        """Store the flow; ``args`` come before those of the jobs it begins with.

        When it returns, the store has all of it. Raises like :meth:`Task.delay`; InvalidJob for a
        flow that is too large or goes in a circle; ConfigurationError for a store without flows.
        """
        return self._store(args, kwargs, {})

    def apply_async(
        self,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[FlowOptions],
    ) -> FlowResult[R_co]:
        """``delay()`` with options; see :class:`FlowOptions`."""
        return self._store(args, kwargs or {}, options)

    def __call__(self, *args: Any, **kwargs: Any) -> FlowResult[R_co]:
        """``delay()``, as Celery has it."""
        return self.delay(*args, **kwargs)

    async def adelay(self, *args: Any, **kwargs: Any) -> FlowResult[R_co]:
        """``delay()`` for async code."""
        return await self.aapply_async(args, kwargs)

    async def aapply_async(
        self,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[FlowOptions],
    ) -> FlowResult[R_co]:
        """``apply_async()`` for async code."""
        from taskharbor.flow.storing import app_for

        app = app_for(self)
        return await app.bridge.call(self._store, args, kwargs or {}, options)

    def _store(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], options: FlowOptions
    ) -> FlowResult[R_co]:
        from taskharbor.flow.storing import app_for, store_flow

        whole = self.clone(*args, **kwargs) if args or kwargs else self
        return store_flow(app_for(self), whole, options)
