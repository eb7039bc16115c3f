"""Why a picture cannot be used: the reasons, in the words the summary counts them by."""

from __future__ import annotations

MISSING = "picture missing"
EMPTY = "picture file is empty"
NOT_A_PICTURE = "not a picture"
NOT_A_FILE = "picture is no regular file"
UNREADABLE = "picture cannot be read"
DAMAGED = "picture truncated or damaged"
TOO_LARGE = "picture too large"
OTHER_SIZE = "picture size differs from the document"
AMBIGUOUS = "several pictures fit the name"


class ImageProblem(Exception):
    """One picture that cannot be used: its boxes are skipped, the run goes on.

    reason: a short clause, the same for every picture with this problem. detail: what was seen.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason} ({detail})" if detail else reason)
        self.reason = reason
        self.detail = detail
