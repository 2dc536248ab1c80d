"""The one exception class for errors that a user can cause."""


class UserError(ValueError):
    """Bad input: one line that says what is wrong, where, and what to do. The command line prints it and exits with 2."""


def one_line(error: BaseException) -> str:
    """Return the text of any error without line breaks, or the name of its class where it has no text."""
    return " ".join(str(error).split()) or type(error).__name__
