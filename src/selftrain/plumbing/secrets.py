"""Passwords in addresses: masked in whatever is printed, logged, tagged or written."""

import re

_USER = re.compile(r"(://[^/@:\s]*):[^@/\s]*@")
_QUERY = re.compile(
    r"([?&;](?:[\w.-]*(?:password|passwd|pwd|secret|token|signature|credential|api_?key)[\w.-]*|sig|key)=)[^&;#\s]+",
    re.IGNORECASE,
)


def masked(text: str) -> str:
    """Text without the passwords of the URIs in it: after the user's name, or in the query."""
    return _QUERY.sub(r"\1***", _USER.sub(r"\1:***@", text))
