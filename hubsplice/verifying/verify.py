"""Verifying a spliced checkpoint: what its files prove, and what an engine makes of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from hubsplice.adapters.carrier import Carrier
from hubsplice.adapters.opened import required_carrier
from hubsplice.checkpoint.base import BaseCheckpoint
from hubsplice.checkpoint.companions import MANIFEST
from hubsplice.checkpoint.manifest import Manifest, read_manifest
from hubsplice.checkpoint.resolve import ResolvedBase, resolve_recorded
from hubsplice.errors import RecipeError
from hubsplice.rendering.content import Line, Part, Tone
from hubsplice.rendering.rendered import Rendered
from hubsplice.terminal import Progress
from hubsplice.text.tokenizer import load_tokenizer
from hubsplice.verifying.adapters import adapter_checks
from hubsplice.verifying.behaviour import NAMES, Behaviour, Trial, behaviour_checks
from hubsplice.verifying.claim import Claim
from hubsplice.verifying.contents import Contents
from hubsplice.verifying.engines import Engine
from hubsplice.verifying.integrity import integrity_checks
from hubsplice.verifying.prompts import builtin_prompts, read_prompts
from hubsplice.verifying.response import RESPONSE, response_check
from hubsplice.verifying.result import Check, Record
from hubsplice.verifying.source import Published, find_published
from hubsplice.verifying.statements.check import check_carrier_statements, check_statements
from hubsplice.verifying.statements.ledger import AuthorClaim
from hubsplice.verifying.statements.table import claims_table
from hubsplice.verifying.table import checks_table

NEW_TOKENS = 16

NEEDED_TO_RUN = frozenset({"layer map", "config", "intervention", "report"})
"""The checks without which there is nothing to compare an engine with, or no engine is to be let
near the files."""


class Verification(Rendered, Record):
    """The outcome for one spliced checkpoint.

    Attributes:
        model: the checkpoint: its folder, or its repository and commit.
        base: the base that it was compared with: the folder as it was given, or the repository
            and commit.
        passed: whether all checks passed.
        verdict: one sentence.
        checks: each with its name, its outcome (None where it could not be made), and problems.
        behaviour: what an engine did; None where none was run.
        claims: what the files say that was not shown to be true.
    """

    model: str
    base: str
    passed: bool
    verdict: str = Field(description="One sentence; first on the terminal.")
    checks: tuple[Check, ...]
    behaviour: Behaviour | None = Field(None, description="Null where no engine was run.")
    claims: tuple[AuthorClaim, ...] = Field(
        (), description="What the files say that was not shown: the author's claims."
    )

    def content(self) -> Iterable[Part]:
        """The verdict, every check, and what is the author's claim."""
        yield Line(self.verdict, Tone.of(self.passed))
        yield checks_table(self.checks, all_in="`checks`")
        yield claims_table(self.claims, all_in="`claims`")


@dataclass(frozen=True)
class Run:
    """How an engine is put to the test.

    Attributes:
        engine: the engine.
        dtype: the precision to serve in; None for the one that the layers were compiled for.
        prompts: a text file with one prompt a line; None for text that comes with Python.
        new_tokens: how many are generated after each prompt; one or more.
    """

    engine: Engine
    dtype: str | None = None
    prompts: Path | None = None
    new_tokens: int = NEW_TOKENS


def verify(
    model: str,
    *,
    base: str | None,
    revision: str | None,
    progress: Progress,
    run: Run | None = None,
    streams: bool = False,
    carrier: Carrier | None = None,
) -> Verification:
    """Verify a spliced checkpoint against its base.

    Args:
        model: the checkpoint's folder, or its Hub repository.
        base: the base's folder or repository; None takes the one in the manifest, at the commit
            that it names.
        revision: of the checkpoint's repository.
        progress: told of every step.
        run: an engine to run beside the checks of files; see `behaviour` for the rules.
        streams: whether the base is run on a short text, for the layers to answer to its streams.
        carrier: of an adapter, what it is for.

    Returns:
        Every check, passed or not; `passed` over all.

    Raises:
        HubspliceError: there is nothing to check: no manifest, no base, no engine, or files that
            can't be read.
    """
    published = find_published(model, revision)
    manifest = read_manifest(published.folder / MANIFEST)
    if (manifest.carrier, manifest.slots) != (None, None) and (streams or run is not None):
        raise RecipeError(
            "--engine, --streams: they need a merged checkpoint; `hubsplice merge` makes one of a "
            "carrier and an adapter"
        )
    if manifest.carrier is not None:
        return _adapter(published, manifest, required_carrier(manifest, carrier))
    resolved = resolve_recorded(manifest.base, base)
    claim = Claim.of(manifest, BaseCheckpoint.open(resolved.folder))
    contents = Contents(published.folder)
    checks = integrity_checks(contents, claim, published.files, progress)
    state = check_statements if manifest.slots is None else check_carrier_statements
    stated = state(contents, claim, resolved, published.repo_id, checks)
    checks += stated.checks
    behaviour = None
    if streams:
        checks += (_response(contents, claim, checks, progress),)
    if run is not None:
        more, behaviour = _run_engine(contents, claim, run, checks, progress)
        checks += more
    passed = all(check.passed for check in checks)
    named = _named(resolved, base)
    return Verification(
        model=published.name,
        base=named,
        passed=passed,
        verdict=_held(named, manifest, behaviour) if passed else _missed(checks),
        checks=checks,
        behaviour=behaviour,
        claims=stated.claims,
    )


def _adapter(published: Published, manifest: Manifest, carrier: Carrier) -> Verification:
    checks = adapter_checks(published, manifest, carrier)
    passed = all(check.passed for check in checks)
    held = (
        f"Verified: the adapter changes nothing of {carrier.name} but its empty layers, and makes "
        "the declared edit in them. Verify the carrier too: hubsplice verify CARRIER."
    )
    return Verification(
        model=published.name,
        base=carrier.name,
        passed=passed,
        verdict=held if passed else _missed(checks),
        checks=checks,
    )


def _response(
    contents: Contents, claim: Claim, checks: Sequence[Check], progress: Progress
) -> Check:
    needed = {"base", "layer map", "intervention", "added tensors"}
    missed = sorted(check.name for check in checks if not check.passed and check.name in needed)
    if missed:
        return Check.impossible(RESPONSE, f"these did not pass: {', '.join(missed)}")
    (stored, _), (intervention, _) = contents.weights, contents.intervention
    return response_check(claim, intervention, stored, progress)


def _run_engine(
    contents: Contents, claim: Claim, run: Run, checks: Sequence[Check], progress: Progress
) -> tuple[tuple[Check, ...], Behaviour | None]:
    needed = {check.name for check in checks if not check.passed} & NEEDED_TO_RUN
    if needed:
        reason = f"not checked, because these did not pass: {', '.join(sorted(needed))}"
        return tuple(Check.impossible(name, reason) for name in NAMES), None
    (intervention, _), (report, _) = contents.intervention, contents.report
    assert intervention is not None
    base = claim.base.folder
    # The base's tokenizer: that the checkpoint has the same is one of the checks.
    tokenizer = load_tokenizer(base)
    trial = Trial(
        contents.folder,
        base,
        intervention,
        claim.inserted,
        report,
        run.dtype or claim.manifest.dtype,
        builtin_prompts(tokenizer) if run.prompts is None else read_prompts(run.prompts, tokenizer),
        run.new_tokens,
        frozenset(bias.place for bias in claim.manifest.biases),
    )
    return behaviour_checks(trial, run.engine, progress)


def _held(base: str, manifest: Manifest, behaviour: Behaviour | None) -> str:
    added = ", ".join(manifest.carriers)
    if manifest.slots is not None:
        added = f"empty slots in {added}"
    files = (
        f"Verified: every tensor of {base} is in it byte for byte, and nothing else "
        f"but {added} and zero biases"
    )
    if behaviour is None:
        return f"{files}."
    return f"{files}; {behaviour.engine} in {behaviour.dtype} serves the edit."


def _missed(checks: Sequence[Check]) -> str:
    missed = [check.name for check in checks if not check.passed]
    return f"NOT verified: {len(missed)} of {len(checks)} checks did not pass: {', '.join(missed)}."


def _named(opened: ResolvedBase, given: str | None) -> str:
    """What was compared, and not what the manifest calls it."""
    if opened.repo_id is None:
        return given or str(opened.folder)
    return f"{opened.repo_id} at {opened.commit}"
