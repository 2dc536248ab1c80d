"""The one exception class for what a user can cause."""


class UserError(ValueError):
    """Bad input: one line that says what is wrong, where, and what to do. The command line prints it and exits with 2."""


def one_line(error: BaseException) -> str:
    """Text of an error of any library without its line breaks; the name of its class where it has none."""
    return " ".join(str(error).split()) or type(error).__name__
