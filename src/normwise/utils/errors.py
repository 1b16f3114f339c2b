"""Errors in few words."""

from __future__ import annotations


def one_line(error: BaseException) -> str:
    """Put an error on one line, with its type where the text alone says little."""
    text = " ".join(str(error).split())
    return text if isinstance(error, ValueError | OSError) and text else f"{type(error).__name__}: {text}".removesuffix(": ")
