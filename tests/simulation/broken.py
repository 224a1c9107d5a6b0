"""What a checker raises."""


class Broken(AssertionError):
    """A promise that did not hold."""
