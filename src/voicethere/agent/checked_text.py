"""What of an agent's text cannot be passed on: the wrong type, too long, or no Unicode."""

from __future__ import annotations


def check_text(function: str, what: str, text: object, limit: int) -> None:
    """Accept a str of at most `limit` characters as argument `what` of the SDK function of this name.

    Raises:
        TypeError: it is not a str.
        ValueError: it is too long, or holds half of a surrogate pair.
    """
    if not isinstance(text, str):
        raise TypeError(f"{function}() takes a str as {what}, not {type(text).__name__}")
    if len(text) > limit:
        raise ValueError(f"{function}() takes at most {limit} characters as {what}, these are {len(text)}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{function}() was given a {what} that is no Unicode text: "
            f"half of a surrogate pair at character {error.start}"
        ) from None
