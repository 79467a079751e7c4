"""The one exception for a user's mistake.

Every other exception is ours: it means a bug. The command line catches this one, prints its
message and exits with 2.
"""


class InputError(Exception):
    """A user's mistake; the message says what was given, what is allowed and what to do."""
