"""Sending files to a Hub that has no Xet storage, which every server but the Hub may lack.

The client speaks Xet wherever it can, and where a server knows nothing of it, it asks again and
again for a token. So the server is asked once, before anything is sent.
"""

from __future__ import annotations

import io
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO

from huggingface_hub import HfApi, constants, get_session

from hubsplice.transport import NOT_OFFERED

_OTHERWISE_MISSING = frozenset({"RepoNotFound", "RevisionNotFound"})


def xet_is_used() -> bool:
    """Whether the client would speak Xet."""
    return not constants.HF_HUB_DISABLE_XET and find_spec("hf_xet") is not None


def speaks_xet(api: HfApi, repo_id: str, revision: str, *, opens: bool) -> bool:
    """Whether a server does not deny that files can be sent by Xet.

    Args:
        api: the Hub.
        repo_id: a repository that is there.
        revision: the branch that files are sent to.
        opens: whether a pull request is opened with them.
    """
    address = f"{api.endpoint}/api/models/{repo_id}/xet-write-token/{revision}"
    try:
        answer = get_session().get(
            address,
            params={"create_pr": "1"} if opens else None,
            headers=api._build_hf_headers(),
        )
    except Exception:  # noqa: BLE001
        # The client meets the same, and what it says is handled with all its other failures.
        return True
    missing = answer.headers.get("X-Error-Code") in _OTHERWISE_MISSING
    return answer.status_code not in NOT_OFFERED or missing


def opened(source: Path | bytes) -> BinaryIO:
    """What is sent as a file that is open; it is closed when nothing holds it any more."""
    return io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")
