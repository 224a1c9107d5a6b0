"""Maintenance: what must happen to jobs while nobody runs them, and after whoever ran them died."""
