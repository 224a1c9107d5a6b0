"""``taskharbor demo``: a file is imported, a worker is killed, and nothing is lost or doubled."""
