"""The error that a user can fix."""


class FedSegError(ValueError):
    """A mistake in a config, a data set or a file, reported in one sentence.

    The message names the file, key or client at fault and says what to do.
    The command line tools print it without a traceback and exit with 1.
    """
