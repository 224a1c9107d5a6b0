"""Durable flows: jobs that wait for other jobs, put together as users say it."""

from taskharbor.flow.builder import chain, chord, group
from taskharbor.flow.graph import Graph

__all__ = ["Graph", "chain", "chord", "group"]
