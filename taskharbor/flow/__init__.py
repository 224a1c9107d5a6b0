"""Durable flows: jobs that wait for other jobs."""
