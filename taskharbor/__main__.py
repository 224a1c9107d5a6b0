"""``python -m taskharbor``: the same as the command ``taskharbor``."""

from taskharbor.cli import main

main()
