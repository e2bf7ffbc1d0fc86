"""The one exception that users see: what is wrong, where, and how to mend it."""


class UserError(ValueError):
    """Something the user can mend. The message names the file, row or parameter, and the fix."""


def one_line(error: BaseException | str) -> str:
    """What a library says, on one line of at most 200 characters."""
    return " ".join(str(error).split())[:200] or type(error).__name__
