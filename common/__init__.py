"""What the three scripts share, and nothing that is a modelling decision."""


class BadInput(ValueError):
    """A flag, a field or a file that cannot be used. Raised before anything is written; exit status 2."""


class RunFailed(RuntimeError):
    """A run that cannot go on, such as a loss that is no longer a number. Exit status 1."""


class Stopped(Exception):
    """A run stopped by Ctrl-C or SIGTERM, its checkpoint written. Exit status 130."""
