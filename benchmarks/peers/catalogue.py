"""Who is compared: versions, the jobs to drain, and what becomes of a job whose worker is killed.

``killed`` is about kill -9 of a worker process in mid-job with the settings of this benchmark;
``source`` is where that is documented, or the code of the pinned version that does it. ``jobs`` are
fewer for slower systems: a rate does not depend on it, the length of a run does.
"""

from __future__ import annotations

from typing import NamedTuple

REDIS_PY = "redis==8.1.0"


class Peer(NamedTuple):
    name: str
    store: str
    module: str
    requirements: tuple[str, ...]
    jobs: int
    settings: str
    killed: str
    source: str
    mode: str = ""
    optional_results: bool = False
    """Whether it can run without keeping results."""
    python: tuple[int, int] = (3, 11)
    newest_redis: bool = False
    """Whether it needs Redis 7, which comes from the system's packages; the others get 6.2."""
    work: str = ""
    """Empty: jobs without ties. Those with other work are compared among themselves."""

    @property
    def section(self) -> str:
        return f"{self.store}, {self.work}" if self.work else self.store

    @property
    def subject(self) -> str:
        return f"{self.name}, {self.section}"


TASKHARBOR = "taskharbor"
BATCH_LOOP = "batch loop"

OURS = "runs again in milliseconds"
OUR_SOURCE = "docs/reliability.md"

PEERS = [
    Peer(
        TASKHARBOR,
        "redis",
        "taskharbor_app",
        (),
        40_000,
        "-c 2",
        OURS,
        OUR_SOURCE,
        optional_results=True,
    ),
    Peer(
        "taskiq",
        "redis",
        "taskiq_app",
        ("taskiq==0.13.0", "taskiq-redis==1.2.4", REDIS_PY),
        10_000,
        "Redis streams, 2 workers, 100 tasks at once",
        "runs again after 10 minutes",
        "taskiq_redis.redis_broker.RedisStreamBroker: idle_timeout=600000",
        optional_results=True,
    ),
    Peer(
        "dramatiq",
        "redis",
        "dramatiq_app",
        ("dramatiq==2.2.1", REDIS_PY),
        6_000,
        "2 processes of 8 threads",
        "runs again after 60 seconds",
        "dramatiq.brokers.redis: heartbeat_timeout",
        optional_results=True,
    ),
    Peer(
        "celery",
        "redis",
        "celery_app",
        ("celery[redis]==5.7.0", REDIS_PY),
        2_000,
        "2 prefork processes, default acknowledgement",
        "is lost",
        "https://docs.celeryq.dev/en/v5.6.3/userguide/tasks.html",
        mode="early",
        optional_results=True,
    ),
    Peer(
        "celery, late acks",
        "redis",
        "celery_app",
        ("celery[redis]==5.7.0", REDIS_PY),
        2_000,
        "2 prefork processes, task_acks_late, task_reject_on_worker_lost",
        "runs again: a killed child's at once, a killed worker's after visibility_timeout (1 hour)",
        "https://docs.celeryq.dev/en/v5.6.3/_sources/glossary.rst.txt",
        mode="late",
        optional_results=True,
    ),
    Peer(
        "rq",
        "redis",
        "rq_app",
        ("rq==3.0.0", REDIS_PY),
        1_000,
        "worker-pool of 2, a fork for each job, Retry(max=3)",
        "runs again, when the registry of started jobs is cleaned up (without Retry it fails)",
        "rq.registry.StartedJobRegistry.cleanup",
        optional_results=True,
    ),
    Peer(
        "huey",
        "redis",
        "huey_app",
        ("huey==3.5.4", REDIS_PY),
        6_000,
        "RedisHuey, 2 consumers of one process worker",
        "is lost",
        "huey.storage.RedisStorage.dequeue: BRPOP before the task runs",
        optional_results=True,
    ),
    Peer(
        "arq",
        "redis",
        "arq_app",
        ("arq==0.28.0",),
        2_000,
        "2 workers, max_jobs 100",
        "runs again, after job_timeout + 10 seconds (310 by default)",
        "arq.worker.Worker.start_jobs: the in-progress key's expiry",
        optional_results=True,
    ),
    Peer(
        "saq",
        "redis",
        "saq_app",
        ("saq[redis,hiredis]==0.26.4", "typing_extensions==4.16.0"),
        4_000,
        "2 workers, concurrency 10, retries 5",
        "runs again, in the sweep after its timeout (10 seconds; swept each minute)",
        "saq.queue.redis.RedisQueue.sweep, saq.job.Job.stuck",
        optional_results=True,
    ),
    Peer(
        "streaq",
        "redis",
        "streaq_app",
        # 7.0 and later need Redis 8.4 (XREADGROUP with CLAIM), which no package here brings.
        ("streaq==6.5.2", "coredis==6.6.1"),
        6_000,
        "2 workers, concurrency 16, on Redis 7",
        "runs again after idle_timeout (60 seconds)",
        "streaq.worker.Worker: idle_timeout",
        optional_results=True,
        newest_redis=True,
    ),
    Peer(
        BATCH_LOOP,
        "redis",
        "redis_loop",
        (),
        100_000,
        "2 processes: LPOP 100, run, SET results, one round trip each",
        "is lost",
        "benchmarks/peers/redis_loop.py",
        optional_results=True,
    ),
    Peer(TASKHARBOR, "postgres", "taskharbor_app", (), 20_000, "-c 2", OURS, OUR_SOURCE),
    Peer(
        "pgqueuer",
        "postgres",
        "pgqueuer_app",
        ("pgqueuer==1.6.0", "asyncpg==0.32.0"),
        20_000,
        "2 processes, batch size 100",
        "runs again after heartbeat_timeout (30 seconds)",
        "pgqueuer.core.qm.QueueManager.run",
    ),
    Peer(
        "procrastinate",
        "postgres",
        "procrastinate_app",
        ("procrastinate==3.10.0", "psycopg[binary]==3.3.9"),
        1_000,
        "2 workers, concurrency 10",
        "stays `doing`, until a task of the user's retries stalled jobs",
        "procrastinate.manager.JobManager.get_stalled_jobs",
    ),
    Peer(
        "oban",
        "postgres",
        "oban_app",
        ("oban==0.7.0",),
        4_000,
        "2 nodes, queue limit 10",
        "runs again, rescued after 5 minutes; so does one that runs longer than that",
        "oban._lifeline.Lifeline: rescue_after; oban/queries/rescue_jobs.sql",
        python=(3, 12),
    ),
    Peer(
        "dbos",
        "postgres",
        "dbos_app",
        ("dbos==3.4.0",),
        1_000,
        "2 executors on a queue, worker_concurrency 100, polled every second",
        "runs again when an executor of the same id starts, or by Conductor (a service)",
        "https://docs.dbos.dev/production/workflow-recovery",
    ),
    Peer(
        BATCH_LOOP,
        "postgres",
        "postgres_loop",
        (),
        40_000,
        "2 processes: DELETE 100 … SKIP LOCKED, run, INSERT results, one transaction each",
        "runs again at once: its transaction is undone, with the batch's 99 others",
        "benchmarks/peers/postgres_loop.py",
    ),
    Peer(
        TASKHARBOR,
        "sqlite",
        "taskharbor_app",
        (),
        40_000,
        "-c 2",
        OURS,
        OUR_SOURCE,
        optional_results=True,
    ),
    Peer(
        "huey",
        "sqlite",
        "huey_app",
        ("huey==3.5.4",),
        2_000,
        "SqliteHuey, 2 consumers of one process worker",
        "is lost",
        "huey.storage.SqliteStorage.dequeue: DELETE before the task runs",
        optional_results=True,
    ),
    Peer(
        TASKHARBOR,
        "redis",
        "taskharbor_chord",
        (),
        10_000,
        "-c 2",
        OURS,
        OUR_SOURCE,
        work="a chord",
    ),
    Peer(
        "celery",
        "redis",
        "celery_chord",
        ("celery[redis]==5.7.0", REDIS_PY),
        2_000,
        "2 prefork processes, task_acks_late, task_reject_on_worker_lost",
        "runs again: a killed child's at once, a killed worker's after visibility_timeout (1 hour)",
        "https://docs.celeryq.dev/en/v5.6.3/_sources/glossary.rst.txt",
        mode="late",
        work="a chord",
    ),
]
