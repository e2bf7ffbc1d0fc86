"""The one exception that users see: what is wrong, where, and how to mend it."""


class UserError(ValueError):
    """Something the user can mend. The message names the file, row or parameter, and the fix."""
