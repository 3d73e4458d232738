"""What came of publishing, or would come of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hubsplice.rendering.content import Line, Part, Tone
from hubsplice.rendering.rendered import Rendered

if TYPE_CHECKING:
    from hubsplice.hub.plan import PublishPlan
    from hubsplice.hub.publish import Published


@dataclass(frozen=True, eq=False, repr=False)
class Publication(Rendered):
    """A plan, and what came of it.

    Attributes:
        plan: what would change in the repository, or has changed.
        folder: the built checkpoint.
        dtype: the precision that its layers were compiled for.
        endpoint: the address of the Hub.
        published: what is on the Hub now; None after a dry run.
        carrier: of an adapter, what its carrier is called.
    """

    plan: PublishPlan
    folder: Path
    dtype: str
    endpoint: str
    published: Published | None
    carrier: str | None = None

    @property
    def url(self) -> str | None:
        """The address of the commit; None after a dry run."""
        if self.published is None:
            return None
        return f"{self.endpoint}/{self.plan.target.repo_id}/commit/{self.published.commit}"

    @property
    def serve(self) -> str:
        """The command that serves the published model with vLLM."""
        if self.carrier is not None:
            return f"hubsplice serve {self.carrier} --adapters {self.plan.target.repo_id}"
        return f"vllm serve {self.plan.target.repo_id} --dtype {self.dtype}"

    def lines(self) -> Iterator[str]:
        """Where the published model is, and how to try it; nothing after a dry run."""
        published = self.published
        if published is None:
            return
        yield f"{published.outcome}: {published.pull_request or self.url}"
        if published.tag is not None:
            yield f"tag: {published.tag}"
        yield f"checksums of all {len(self.plan.files)} files: as in {self.folder}"
        if published.pull_request is None:
            yield f"try it: {self.serve}"

    def content(self) -> Iterable[Part]:
        """What came of it; the plan after a dry run."""
        if self.published is None:
            yield from self.plan.content()
            return
        outcome, *lines = self.lines()
        yield Line(outcome, Tone.GOOD)
        for line in lines:
            yield Line(line)
        for note in (*self.plan.warnings, *self.published.notes):
            yield Line(f"warning: {note}", Tone.CAUTION)
