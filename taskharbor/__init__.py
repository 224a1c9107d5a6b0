"""TaskHarbor runs Python functions as durable background jobs."""

__version__ = "0.1.0"

__all__ = ["__version__"]
