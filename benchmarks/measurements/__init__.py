"""One module per question. ``measure(store, size)`` answers it once and yields (metric, value)."""
