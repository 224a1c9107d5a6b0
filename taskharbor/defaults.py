"""Every default and every limit, in one place. Seconds and bytes unless the name says otherwise."""

from __future__ import annotations

URL = "sqlite:///taskharbor.db"
QUEUE = "default"

MAX_ATTEMPTS = 5
MAX_LOSSES = 10
"""Attempts that ended with a lost worker before the job is given up, charged or not."""

BACKOFF_BASE_SECONDS = 1.0
BACKOFF_FACTOR = 2.0
BACKOFF_CAP_SECONDS = 600.0

TIMEOUT_SECONDS = 3600.0
HARD_TIMEOUT_AFTER_SECONDS = 5.0
"""The child is killed this long after the soft limit was signalled."""

LEASE_SECONDS = 30.0
MAX_LEASE_SECONDS = 86_400.0
GRACE_SECONDS = 30.0

PREFETCH_SECONDS = 0.02
PREFETCH_MAX = 128

UNKNOWN_TASK_SECONDS = 3600.0
"""How long a job waits for a worker that knows its task (a rolling deploy) before it is dead."""

MAX_PAYLOAD_BYTES = 1 << 20
MAX_RESULT_BYTES = 1 << 20
MAX_INPUT_BYTES = 64 << 20
"""Results, encoded, that one job of a flow takes from others in all: it holds them in memory."""
MAX_ERROR_BYTES = 64 << 10
MAX_PROGRESS_BYTES = 4 << 10
MAX_NAME_CHARS = 128
MAX_KEY_CHARS = 255
MAX_HEADERS_BYTES = 8 << 10
MAX_PRIORITY = 100
MAX_DELAY_SECONDS = 10 * 365 * 86_400.0
MAX_HISTORY = 50
"""Entries kept of a job's attempts, the newest."""

KEEP_SUCCEEDED_SECONDS = 3600.0
KEEP_CANCELLED_SECONDS = 7 * 86_400.0
KEEP_DEAD_SECONDS = 30 * 86_400.0

BATCH = 1000
"""Items of one bounded step: a page of reaping, pruning, promoting, one enqueue round trip."""

ENQUEUE_RETRY_SECONDS = (0.05, 0.25)
"""Pauses before an enqueue whose store was unreachable is sent again, with the same ids."""

MAX_FLOW_NAME_CHARS = 255
MAX_FLOW_NODES = 100_000
MAX_FLOW_EDGES = 400_000
MAX_FLOW_DEPTH = 200
"""Parts of a flow in each other. Each takes up to three frames of Python's 1000."""
FLOW_PAGE = 500
"""Nodes or edges of a flow that one call of a driver moves at most; the rest waits for the next."""
KEEP_AWAITED_SECONDS = 86_400.0
"""At least, of an ended flow whose result a job has yet to come back for."""
UNSEALED_SECONDS = 3600.0
"""How long a flow may take to be stored; then its part is taken for left behind and pruned."""
