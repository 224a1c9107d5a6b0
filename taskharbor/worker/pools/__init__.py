"""Where attempts run: in the main thread, in threads, or as tasks of an event loop."""
