"""The exceptions that the zoo raises for what its user can mend."""

__all__ = ["NotFoundError", "ZooError"]


class ZooError(Exception):
    """Something that the caller can mend.

    The message is one line: what was got, what was expected, and the command or the
    change that mends it. The command line prints it and exits with 2.
    """


class NotFoundError(ZooError):
    """All places were asked, and nothing there has the name."""
