"""Whether a repository would be the user's own, as far as that shows before anything is sent."""

from __future__ import annotations

from huggingface_hub import HfApi, get_token

from hubsplice.hub.failures import retried
from hubsplice.hub.plan import Target
from hubsplice.transport import is_failed_fetch

_PLACEHOLDER = "YOU"
"""What the commands that hubsplice prints have for a name."""


def namespace_doubt(api: HfApi, target: Target, *, ask: bool) -> str | None:
    """Why the Hub may refuse a repository under its owner's name; None for no reason.

    Args:
        api: the Hub.
        target: where to publish. Anyone may open a pull request, so of one nothing is asked.
        ask: whether to ask the Hub who the user is, if there is a token.
    """
    owner = target.repo_id.partition("/")[0]
    if owner == _PLACEHOLDER:
        return f"{owner} is a placeholder: give your user name on the Hub, or an organisation's"
    if not ask or target.pull_request or get_token() is None:
        return None
    try:
        user = retried(api.whoami)
        own = [str(user["name"]), *(str(of["name"]) for of in user.get("orgs", ()))]
    except Exception as error:
        # A token for one repository may not ask; whatever else is wrong, publishing will say.
        if is_failed_fetch(error) or isinstance(error, LookupError | TypeError | AttributeError):
            return None
        raise
    if owner.casefold() in {name.casefold() for name in own}:
        return None
    return (
        f"{owner} is neither your user name nor an organisation of yours; the Hub will refuse to "
        f"publish there. This token's user has {', '.join(own)}"
    )
