"""The worker: a supervisor, a generation that forks children, and the children that run jobs."""
