"""Carriers, and adapters for them."""

from __future__ import annotations

from collections.abc import Sequence
from os import fspath
from typing import TYPE_CHECKING

from hubsplice.interface.progress import ProgressChoice, reporting
from hubsplice.interface.sources import AnyPath, RecipeSource, as_path, as_recipe

if TYPE_CHECKING:
    from hubsplice.adapters.carrier import Carrier
    from hubsplice.building.build import BuildResult
    from hubsplice.building.carrier import CarrierResult
    from hubsplice.building.merge import Merged


def carrier(
    base: AnyPath,
    output: AnyPath,
    *,
    after_layers: Sequence[int],
    revision: str | None = None,
    slots: int | None = None,
    hard_link: bool = False,
    progress: ProgressChoice = True,
) -> CarrierResult:
    """Write a carrier: a base with empty layers that adapters are made for.

    Its logits are the base's, bit for bit.

    Args:
        base: the base model's folder or its Hub repository.
        output: the folder of the carrier; it must be missing or empty.
        after_layers: the base's layers behind each of which an empty one is inserted.
        revision: the repository's commit, branch or tag.
        slots: how many neurons of each empty layer edits can use; as many as common recipes need
            where it is not given.
        hard_link: whether to link unchanged weight files instead of copying them.
        progress: as in `build`.

    Returns:
        The folder, the fingerprint, and what fits into each layer.

    Raises:
        UnsupportedError: the base's family can't be a carrier.
        CheckpointError: files are missing or damaged.
        RecipeError: the base has no such layer.
        OutputError: the folder is not empty, or it can't be written.
    """
    from hubsplice.building.carrier import build_carrier

    with reporting(progress) as report:
        return build_carrier(
            fspath(base),
            revision,
            after_layers,
            output=as_path(output),
            total_slots=slots,
            hard_link=hard_link,
            progress=report,
        )


def build_adapter(
    recipe: RecipeSource,
    output: AnyPath,
    *,
    carrier: AnyPath,
    carrier_revision: str | None = None,
    require_fidelity: float | None = None,
    measure: bool = True,
    allow_failed: bool = False,
    allow_misfit: bool = False,
    progress: ProgressChoice = True,
) -> BuildResult:
    """Compile a recipe into a LoRA adapter for a carrier, and measure it.

    The folder appears whole or not at all.

    Args:
        recipe: a `Recipe`, its fields as a mapping, or the path of a YAML file.
        output: the folder of the new adapter; it must be missing or empty.
        carrier: the carrier's folder or its Hub repository.
        carrier_revision: the repository's commit, branch or tag.
        require_fidelity: as in `build`.
        measure: the same.
        allow_failed: the same.
        allow_misfit: the same.
        progress: the same.

    Returns:
        The folder, the fidelity report, and warnings.

    Raises:
        FidelityError: the requirement is not met. Nothing is left behind.
        UnsupportedError: the carrier has no layer, or no room, for the edits.
        CheckpointError: the carrier is of another base, or it is none.
        HubspliceError: as `build` raises.
    """
    parsed = as_recipe(recipe)
    from hubsplice.building.adapter import build_adapter as build

    with reporting(progress) as report:
        return build(
            parsed,
            open_carrier(carrier, carrier_revision),
            output=as_path(output),
            require_fidelity=require_fidelity,
            measure=measure,
            progress=report,
            allow_failed=allow_failed,
            allow_misfit=allow_misfit,
        )


def merge(
    carrier: AnyPath,
    adapter: AnyPath,
    output: AnyPath,
    *,
    carrier_revision: str | None = None,
    hard_link: bool = False,
    progress: ProgressChoice = True,
) -> Merged:
    """Write the spliced checkpoint that an adapter and its carrier say together.

    Args:
        carrier: the carrier's folder or its Hub repository.
        adapter: the adapter's folder.
        output: the folder of the checkpoint; it must be missing or empty.
        carrier_revision: the repository's commit, branch or tag.
        hard_link: whether to link unchanged weight files instead of copying them.
        progress: as in `build`.

    Returns:
        The folder, and what differs from a direct build of the recipe.

    Raises:
        CheckpointError: the adapter is for another carrier, or was altered.
        OutputError: the folder is not empty, or it can't be written.
    """
    from hubsplice.building.merge import merge as merge_adapter

    with reporting(progress) as report:
        return merge_adapter(
            open_carrier(carrier, carrier_revision),
            as_path(adapter),
            output=as_path(output),
            hard_link=hard_link,
            progress=report,
        )


def places_of_recipe(recipe: RecipeSource) -> tuple[str, str | None, list[int]]:
    """The base of a recipe, its revision, and the layers after which the recipe edits.

    Raises:
        HubspliceError: the recipe can't be planned, or edits between blocks, where carriers have
            no layers.
    """
    parsed = as_recipe(recipe)
    from hubsplice.compiling.plan import make_plan
    from hubsplice.errors import UnsupportedError
    from hubsplice.intervention.place import Block

    plan = make_plan(parsed)
    for planned in plan.splices:
        if planned.place.block is not Block.MLP:
            raise UnsupportedError(
                f"{planned.field}: a carrier has layers behind the base's layers, and none between "
                "attention and MLP; build a merged checkpoint"
            )
    layers = [planned.place.layer for planned in plan.splices]
    return plan.recipe.base_model, plan.recipe.revision, layers


def open_carrier(carrier: AnyPath, revision: str | None) -> Carrier:
    """A carrier in a folder, or downloaded from its Hub repository.

    Raises:
        CheckpointError: it is none.
        RecipeError: there is no such folder or repository.
    """
    from hubsplice.adapters.carrier import Carrier
    from hubsplice.verifying.source import find_published

    found = find_published(fspath(carrier), revision)
    commit = found.folder.name if found.repo_id is not None else None
    return Carrier.open(found.folder, found.repo_id, commit)
