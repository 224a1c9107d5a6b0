"""One module per system: ``fill(jobs)`` enqueues no-op jobs, ``send(turns)`` one job for each item
of ``turns`` on connections that stay open, ``COMMANDS`` start its two workers.

``prepare()``, where there is one, makes the tables before that; it does not count as enqueueing.

``catalogue`` says which there are, with their versions and what a killed worker does to a job. Each
runs in an environment of its own (their requirements exclude one another) and sees only this
directory: no module here may import TaskHarbor, but for its own two. All run the same task: it
appends one byte to a file, so that progress is seen the same way for all.

Environment: ``PEER_URL`` the store, ``PEER_RESULTS`` ``yes`` or ``no``, ``PEER_MODE`` which of a
system's ways (see the catalogue), ``PEER_TICKS`` the file, ``PEER_TIMED`` ``yes`` when the file is
to say when each job started.
"""
