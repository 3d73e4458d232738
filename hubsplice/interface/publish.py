"""Publishing on the Hugging Face Hub."""

from __future__ import annotations

from typing import Literal

from hubsplice.interface.progress import ProgressChoice
from hubsplice.interface.publication import Publication
from hubsplice.interface.publishing import Publishing, PublishOptions
from hubsplice.interface.sources import RecipeSource


def publish(
    source: RecipeSource,
    repo_id: str | None = None,
    *,
    tag: str | None = None,
    private: bool | None = None,
    pull_request: bool = False,
    license_id: str | None = None,
    replace: bool = False,
    card: Literal["keep", "rewrite"] | None = None,
    allow_failed: bool = False,
    allow_misfit: bool = False,
    require_fidelity: float | None = None,
    dry_run: bool = False,
    progress: ProgressChoice = True,
) -> Publication:
    """Publish a built folder, or a recipe, on the Hugging Face Hub: one commit, and a tag.

    A recipe is built and measured first, in a folder under builds/ that a second run finds. The
    same call finishes a run that was interrupted.

    Args:
        source: the folder that `build` wrote, or a recipe as in `build`.
        repo_id: the repository, `name` or `owner/name`; the recipe's `publish.repo_id` where it
            is not given.
        tag: a tag for the published commit.
        private: the visibility of a new repository; True also refuses a public one.
        pull_request: whether to open a pull request, or to update the one that is open.
        license_id: another licence than the base's, such as `apache-2.0`.
        replace: whether to publish over files that hubsplice did not publish.
        card: what becomes of a README.md that was edited by hand: `keep` publishes it as it is,
            and `rewrite` writes it anew.
        allow_failed: whether to publish what missed the fidelity that it requires.
        allow_misfit: whether to build and publish with an SAE that does not fit the model.
        require_fidelity: the largest ratio of splice error to noise floor that passes.
        dry_run: whether to plan alone: nothing is written on the Hub.
        progress: as in `build`.

    Returns:
        The plan, and what came of it; after a dry run, the plan alone.

    Raises:
        FidelityError: the required fidelity was missed, or not measured.
        UnsupportedError: an SAE does not fit the model.
        CheckpointError: hubsplice did not build the folder, or a file was altered.
        ConflictError: the repository or the tag holds something else than expected, or the card
            was edited by hand.
        HubError: no token, or the Hub refuses, or it can't be reached.
        HubspliceError: as `build` raises, where a recipe is built.
    """
    options = PublishOptions(
        repo_id=repo_id,
        tag=tag,
        private=private,
        pull_request=pull_request,
        license_id=license_id,
        replace=replace,
        card=card,
        allow_failed=allow_failed,
        allow_misfit=allow_misfit,
        require_fidelity=require_fidelity,
        dry_run=dry_run,
    )
    publishing = Publishing.open(source, options, progress)
    if not publishing.is_built:
        publishing.build()
    return publishing.publish(*publishing.plan())
