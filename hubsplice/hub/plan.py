"""What publishing would do to a repository, before anything is sent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from huggingface_hub import HfApi

from hubsplice.card import edited_card, stale_figures
from hubsplice.checkpoint.companions import CARD, MANIFEST
from hubsplice.checkpoint.manifest import BaseRecord
from hubsplice.errors import ConflictError, HubError, OutputError
from hubsplice.files.space import readable_size
from hubsplice.hub.built import BuiltFolder, LocalFile
from hubsplice.hub.card_check import validate_card
from hubsplice.hub.copies import CopySource, copy_sources
from hubsplice.hub.failures import explained_errors
from hubsplice.hub.plan_content import plan_content
from hubsplice.hub.prediction import predict_upload
from hubsplice.hub.repository import RemoteFile, Repository, RepositoryState, same_tree
from hubsplice.recipe.tags import require_tag
from hubsplice.rendering.content import Part
from hubsplice.rendering.rendered import Rendered

CardChoice = Literal["keep", "rewrite"]
"""Publish a card that was edited by hand as it is, or write it anew."""


@dataclass(frozen=True)
class Target:
    """Where to publish, and how.

    Attributes:
        repo_id: `owner/name`.
        private: whether a new repository is private.
        require_private: whether a repository that is public already is an error.
        require_public: whether one that is private already is an error.
        tag: the tag for the published commit.
        pull_request: propose the commit, rather than put it on main.
        license_id: another licence than the base's.
        replace: publish over what hubsplice did not publish.
        card: what becomes of a card that was edited by hand; None refuses to choose.
    """

    repo_id: str
    private: bool = True
    require_private: bool = False
    require_public: bool = False
    tag: str | None = None
    pull_request: bool = False
    license_id: str | None = None
    replace: bool = False
    card: CardChoice | None = None


@dataclass(frozen=True)
class Changes:
    """How a repository's files differ from those to be published; names, sorted."""

    created: tuple[str, ...]
    changed: tuple[str, ...]
    unchanged: tuple[str, ...]
    deleted: tuple[str, ...]

    @staticmethod
    def between(remote: Mapping[str, RemoteFile], files: Mapping[str, LocalFile]) -> Changes:
        """What has to change in `remote` for it to be exactly `files`."""
        there = [name for name in sorted(files) if name in remote]
        unchanged = tuple(name for name in there if remote[name].holds(files[name]))
        return Changes(
            created=tuple(name for name in sorted(files) if name not in remote),
            changed=tuple(name for name in there if name not in unchanged),
            unchanged=unchanged,
            deleted=tuple(name for name in sorted(remote) if name not in files),
        )

    @property
    def sent(self) -> tuple[str, ...]:
        """The names of what has to come from somewhere."""
        return (*self.created, *self.changed)


@dataclass(frozen=True, repr=False)
class PublishPlan(Rendered):
    """What would be sent, and what is there already.

    Attributes:
        target: where to.
        title: of the commit.
        summary: its description.
        files: everything that is to be there, by name.
        parent: the commit that it is put on; None for a new repository.
        private: whether the repository is, or would be, private.
        changes: how the repository's files differ from these.
        copies: what the Hub copies from the base's repository, by name; the rest is uploaded.
        upload_bytes: predicted bytes to send, after what is stored already.
        published: the commit that holds exactly these files, if there is one already.
        tagged: whether the tag points to it.
        license_id: the licence that the card declares.
        base_license: the base's own.
        verdict: of the fidelity report.
        passed: whether it met what was required; None where nothing was.
        warnings: what the user should know.
    """

    target: Target
    title: str
    summary: str
    files: Mapping[str, LocalFile]
    parent: str | None
    private: bool
    changes: Changes
    copies: Mapping[str, CopySource]
    upload_bytes: int
    published: str | None
    tagged: bool
    license_id: str | None
    base_license: str | None
    verdict: str
    passed: bool | None
    warnings: tuple[str, ...]

    @property
    def total_bytes(self) -> int:
        """Bytes of all files."""
        return sum(file.digest.size for file in self.files.values())

    @property
    def names_by_change(self) -> dict[str, list[str]]:
        """The names of all files, by what happens to them."""
        changes, copied = self.changes, self.copies
        return {
            "created": [name for name in changes.created if name not in copied],
            "changed": [name for name in changes.changed if name not in copied],
            "copied": sorted(copied),
            "unchanged": list(changes.unchanged),
            "deleted": list(changes.deleted),
        }

    def content(self) -> Iterable[Part]:
        """The warnings, the files, the verdict and the licence."""
        return plan_content(self)


def require_agreement(api: HfApi, target: Target) -> None:
    """Refuse early what no build could be published to.

    Raises:
        RecipeError: the tag is no name that git takes.
        ConflictError, HubError: as `make_publish_plan`, but for the tag and the card.
    """
    _require_tag(target)
    with explained_errors(target.repo_id):
        _refuse_conflicts(target, Repository(api, target.repo_id).state())


def make_publish_plan(
    api: HfApi,
    built: BuiltFolder,
    target: Target,
    *,
    on_predicted: Callable[[int, int], None],
    unasked: str | None = None,
) -> PublishPlan:
    """Compare what is to be published with what is there, and have the Hub check the card.

    Nothing is written.

    Args:
        api: the Hub.
        built: what to publish.
        target: where to.
        on_predicted: told of how many bytes the upload is predicted, of how many.
        unasked: why the Hub can't be asked; the plan is then one for a new repository.

    Raises:
        RecipeError: the tag is no name that git takes.
        ConflictError: the tag points to something else, the repository is public and must not
            be, or it holds what hubsplice did not publish.
        HubError: the Hub refuses the card or the token, or can't be reached.
    """
    _require_tag(target)
    with explained_errors(target.repo_id):
        return _compared(api, built, target, on_predicted, unasked)


def _require_tag(target: Target) -> None:
    if target.tag is not None:
        require_tag(target.tag, "tag")


def _compared(
    api: HfApi,
    built: BuiltFolder,
    target: Target,
    on_predicted: Callable[[int, int], None],
    unasked: str | None,
) -> PublishPlan:
    repository = Repository(api, target.repo_id)
    state = None
    if unasked is None:
        state = repository.state()
        _refuse_conflicts(target, state)
    keep = _keeps_card(built, target)
    files = built.files(target.repo_id, target.license_id, keep_card=keep)
    # A pull request is about what main holds, and sets no tag.
    tagged = None
    if state is not None and target.tag is not None and not target.pull_request:
        tagged = state.tags.get(target.tag)
    if tagged is not None and not same_tree(repository.files(tagged), files):
        raise ConflictError(
            f"tag: {target.tag!r} of {target.repo_id} points to {tagged}, which holds other "
            "files; give another tag, or delete that one"
        )
    published = tagged
    if published is None and state is not None and same_tree(state.files, files):
        published = state.head
    there = state.files if state else {}
    changes = Changes.between(repository.files(published) if published else there, files)
    copies = {}
    if published is None and unasked is None:
        validate_card(files[CARD])
        copies = copy_sources(api, built.manifest.base, files, changes.sent)
    warnings = _warnings(built, target, state)
    if unasked is not None:
        warnings.append(
            f"the Hub could not be asked ({unasked}): this is what a new repository would get. "
            "Whether it is there already, what it holds, and whether the Hub takes the card is "
            "not known"
        )
    uploaded = [files[name] for name in changes.sent if name not in copies]
    try:
        upload_bytes = predict_upload(
            uploaded, scratch=built.folder.parent, on_progress=on_predicted
        )
    except OutputError as error:
        # No reason not to publish what is built.
        upload_bytes = sum(file.digest.size for file in uploaded)
        warnings.append(f"{error}; it is at most {readable_size(upload_bytes)}")
    terms = built.manifest.base.terms
    report = built.report
    return PublishPlan(
        target=target,
        title=f"Publish {built.title}",
        summary=_summary(built),
        files=files,
        parent=state.head if state else None,
        private=state.private if state else target.private,
        changes=changes,
        copies=copies,
        upload_bytes=upload_bytes,
        published=published,
        tagged=tagged is not None,
        license_id=target.license_id or terms.license,
        base_license=terms.license,
        verdict=report.verdict if report else "Fidelity was not measured.",
        passed=report.passed if report else None,
        warnings=tuple(warnings),
    )


def _keeps_card(built: BuiltFolder, target: Target) -> bool:
    """Whether the folder's card is published as it is.

    Raises:
        ConflictError: it was edited by hand, and nothing says what becomes of it, or it shows
            figures that the files do not give.
    """
    if target.card == "rewrite":
        return False
    diff = edited_card(built.folder)
    if diff is None:
        return False
    if target.card is None:
        raise ConflictError(
            f"{built.folder / CARD}: it was edited by hand:\n{diff}"
            "Give --card keep to publish it as it is, or --card rewrite to write it anew. Words "
            "that shall outlive a build go into a file that the recipe names as card.before or "
            "card.after"
        )
    stale = stale_figures(built.folder)
    if stale:
        shown = "".join(f"  {part}\n" for part in stale)
        raise ConflictError(
            f"{built.folder / CARD}: it was edited by hand, and its figures are not those of the "
            f"model's files:\n{shown}"
            "Put these parts right, or give --card rewrite to write the card anew; words that a "
            "rewritten card shall have go into a file that the recipe names as card.before or "
            "card.after"
        )
    return True


def _summary(built: BuiltFolder) -> str:
    base = built.manifest.base
    lines = [
        f"Base: {base.name}" + (f" at {base.commit}" if base.commit else ""),
        f"Compiled by hubsplice {built.manifest.hubsplice}",
    ]
    if built.report is not None:
        lines.append(built.report.verdict)
    return "\n".join(lines)


def _refuse_conflicts(target: Target, state: RepositoryState | None) -> None:
    if state is None:
        if target.pull_request:
            raise HubError(
                f"{target.repo_id}: no such repository, and a pull request needs one; publish "
                "without --pr first"
            )
        return
    if target.require_private and not state.private:
        raise ConflictError(
            f"private: {target.repo_id} is public; make it private in its settings, or publish "
            "to another repository"
        )
    if target.require_public and state.private:
        raise ConflictError(
            f"public: {target.repo_id} is private; make it public in its settings, or publish "
            "to another repository"
        )
    foreign = sorted(state.files.keys() - {CARD})
    if foreign and MANIFEST not in state.files and not target.replace:
        raise ConflictError(
            f"{target.repo_id} holds {len(foreign)} files that hubsplice did not publish, such as "
            f"{foreign[0]!r}; --replace deletes them, and they stay in the repository's history"
        )


def license_warnings(base: BaseRecord, license_id: str | None) -> Iterator[str]:
    """What the user should know about the licence that the card declares, or does not."""
    known = base.terms.license
    if known is None and license_id is None:
        why = "the base's card names no licence"
        if base.repo_id is None:
            why = f"the base is a local folder, {base.name!r}, in which no card names a licence"
        yield (
            f"{why}, so this card names none; look where the base comes from, and state the "
            "licence with --license ID, such as --license apache-2.0"
        )
    if license_id is not None and license_id != known:
        yield f"licence: {license_id!r} is declared, and the base's is {known or 'not known'!r}"


def _warnings(built: BuiltFolder, target: Target, state: RepositoryState | None) -> list[str]:
    terms = built.manifest.base.terms
    warnings = list(license_warnings(built.manifest.base, target.license_id))
    if terms.gated and (state is None or not state.private) and not target.private:
        warnings.append(
            "the base is gated, and a public repository is not unless you gate it in its settings"
        )
    if state is not None and state.private and not target.private:
        warnings.append(f"{target.repo_id} is private; `private` concerns only a new repository")
    if state is not None and target.private and not state.private and not target.require_private:
        warnings.append(f"{target.repo_id} is public; `private` concerns only a new repository")
    if target.pull_request and target.tag is not None:
        warnings.append(f"tag: {target.tag!r} is not set by a pull request; tag what is merged")
    return warnings
