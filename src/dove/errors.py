"""The one exception class for what a user can cause."""


class UserError(ValueError):
    """Bad input: one line that says what is wrong, where, and what to do. The command line prints it and exits with 2."""
