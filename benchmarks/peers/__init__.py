"""One module per system: ``fill(jobs)`` enqueues no-op jobs, ``COMMANDS`` start its workers.

Only systems that keep a job whose worker was killed are here. All run the same task: it appends
one byte to a file, so that progress is seen the same way for all.
"""
