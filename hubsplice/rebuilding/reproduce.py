"""`hubsplice reproduce`: a spliced model built again from its own recipe, and graded."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from safetensors import SafetensorError, safe_open
from torch import Tensor

from hubsplice.building.environment import ENVIRONMENT, read_environment, this_environment
from hubsplice.building.sources import SOURCES, Sources, read_sources
from hubsplice.checkpoint.base import read_weight_map
from hubsplice.checkpoint.companions import CONFIG, MANIFEST, WEIGHTS_INDEX
from hubsplice.checkpoint.manifest import Manifest, read_manifest
from hubsplice.checkpoint.merged import require_merged
from hubsplice.checkpoint.resolve import ResolvedBase, resolve_recorded
from hubsplice.errors import CheckpointError
from hubsplice.files.digest import digest_file
from hubsplice.files.plain import exists
from hubsplice.files.safetensors_header import read_header
from hubsplice.files.staging import refuse_inside, staged_directory
from hubsplice.files.strict_json import read_object
from hubsplice.intervention.saved import INTERVENTION, RECIPE, load_intervention
from hubsplice.rebuilding.function import SiteAgreement, site_agreements
from hubsplice.rebuilding.grade import Reproduction, graded
from hubsplice.rebuilding.rebuild import Rebuilt, rebuild, threads
from hubsplice.rebuilding.records import (
    FieldDifference,
    field_differences,
    intervention_differences,
)
from hubsplice.rebuilding.sources import found_sources, under_their_names
from hubsplice.rebuilding.tensors import TensorDifference, absent, tensor_difference
from hubsplice.recipe.local_paths import local_paths, with_local_paths
from hubsplice.recipe.models import BUILTIN, Recipe
from hubsplice.recipe.reading import recorded_recipe
from hubsplice.streams.precision import exact_products
from hubsplice.terminal import Progress
from hubsplice.verifying.source import Published, find_published

_DESCRIBED = (MANIFEST, CONFIG, WEIGHTS_INDEX, RECIPE, INTERVENTION, ENVIRONMENT, SOURCES)

_RECORDED = (
    "architectures",
    "layer_map",
    "config_changes",
    "zero_tensors",
    "layers",
    "biases",
    "calibration",
    "dtype",
    "seeds",
)
"""What the manifest says that a rebuild says again."""

_COUNTS = frozenset({"edit", "source", "layer_map", "config_changes", "seeds", "neurons"})
"""Where a number that is close is another one all the same."""


@exact_products()
def reproduce(
    model: str,
    *,
    base: str | None,
    revision: str | None,
    sources: Sequence[Path],
    output: Path | None,
    progress: Progress,
) -> Reproduction:
    """Build a spliced model again, and compare everything in it that is not the base's.

    The base's tensors aren't written again. As many threads compute as did for the build.

    Args:
        model: the checkpoint's folder, or its Hub repository.
        base: the base's folder or repository; None takes the one in the manifest, at the commit
            that it names.
        revision: of the checkpoint's repository.
        sources: local files that the recipe needs, or folders that hold them.
        output: a new folder for the rebuilt files; None for one that is gone at the end.
        progress: told of every step.

    Raises:
        RecipeError: a local file is not here, or a revision is gone from the Hub.
        CheckpointError: the checkpoint has no record of its build, or the base or an SAE is
            not what it was made from.
        HubspliceError: the recipe can't be built.
    """
    published = find_published(model, revision, _DESCRIBED)
    if output is not None:
        refuse_inside(published.folder, output)
    manifest = read_manifest(published.folder / MANIFEST)
    require_merged(manifest, "reproduce")
    recorded = read_environment(published.folder)
    _require_readable(published.folder)
    local = read_sources(published.folder)
    resolved = resolve_recorded(manifest.base, base)
    found = found_sources(local, sources)
    with (
        TemporaryDirectory(prefix="hubsplice-sources-") as links,
        _folder(output) as folder,
        threads(recorded.threads),
    ):
        named = under_their_names(local, found, Path(links))
        recipe = _runnable(published, named, resolved, base)
        rebuilt = rebuild(recipe, manifest, folder, progress)
        environment = recorded.differences(this_environment())
        weights = _fetch_weights(published, rebuilt)
        tensors = list(_tensor_differences(weights, folder, rebuilt, progress))
        fields = list(_field_differences(published.folder, manifest, folder, rebuilt, local))
        filled = rebuilt.filled
        sites: tuple[SiteAgreement, ...] = ()
        if not tensors:
            fields += _file_differences(published.folder, folder, rebuilt)
        elif all(difference.problem is None for difference in tensors):
            own = dict.fromkeys(filled, folder / (rebuilt.shard or ""))
            sites = site_agreements(rebuilt, _load(weights, filled), _load(own, filled))
    text = manifest.calibration
    other_text = (
        text is not None and text.token_ids_sha256 != rebuilt.compiled.text.sequences.sha256
    )
    return graded(
        model=published.name,
        base=_named(resolved),
        compared=len(rebuilt.tensors),
        tensors=tensors,
        fields=fields,
        sites=sites,
        filled=filled,
        environment=environment,
        dtype=manifest.dtype,
        other_text=other_text,
        folder=output,
    )


def _require_readable(folder: Path) -> None:
    """Find damaged files before minutes of building; those of a repository are not here yet."""
    read_object(folder / CONFIG)
    for name in sorted(set(read_weight_map(folder / WEIGHTS_INDEX).values())):
        if exists(folder / name):
            read_header(folder / name)


@contextmanager
def _folder(output: Path | None) -> Iterator[Path]:
    if output is not None:
        with staged_directory(output) as folder:
            yield folder
        return
    with TemporaryDirectory(prefix="hubsplice-rebuilt-") as name:
        yield Path(name)


def _runnable(
    published: Published, named: Mapping[str, Path], resolved: ResolvedBase, base: str | None
) -> Recipe:
    """The published recipe with this machine's base and files in it."""
    recipe = recorded_recipe(published.folder / RECIPE)
    # Whoever wrote the recipe must not choose which files of this machine are read.
    unlisted = sorted(set(local_paths(recipe)) - set(named))
    if unlisted:
        raise CheckpointError(
            f"{RECIPE}: {', '.join(unlisted)}: a local file that {SOURCES} does not list, so that "
            "it can't be told which one is meant"
        )
    recipe = with_local_paths(recipe, named)
    if base is None and resolved.repo_id is not None:
        return recipe.model_copy(
            update={"base_model": resolved.repo_id, "revision": resolved.commit}
        )
    return recipe.model_copy(update={"base_model": str(resolved.folder), "revision": None})


def _named(resolved: ResolvedBase) -> str:
    if resolved.repo_id is None:
        return str(resolved.folder)
    return f"{resolved.repo_id} at {resolved.commit}"


def _fetch_weights(published: Published, rebuilt: Rebuilt) -> dict[str, Path]:
    """The published files that hold tensors which are not the base's, by tensor."""
    weight_map = read_weight_map(published.folder / WEIGHTS_INDEX)
    found = {name: weight_map[name] for name in rebuilt.tensors if name in weight_map}
    if published.repo_id is not None:
        wanted = sorted({glob.escape(file) for file in found.values()})
        find_published(published.repo_id, published.folder.name, wanted)
    return {name: published.folder / file for name, file in found.items()}


def _tensor_differences(
    weights: dict[str, Path],
    folder: Path,
    rebuilt: Rebuilt,
    progress: Progress,
) -> Iterator[TensorDifference]:
    for number, name in enumerate(rebuilt.tensors):
        progress("comparing tensors", number, len(rebuilt.tensors))
        assert rebuilt.shard is not None
        if name not in weights:
            yield absent(name, f"the published {WEIGHTS_INDEX} does not list it")
            continue
        try:
            with (
                safe_open(weights[name], framework="pt") as a,
                safe_open(folder / rebuilt.shard, framework="pt") as b,
            ):
                if name not in a.keys():  # noqa: SIM118 - it is no mapping
                    yield absent(name, f"it is not in {weights[name].name}")
                    continue
                difference = tensor_difference(name, a.get_tensor(name), b.get_tensor(name))
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{weights[name]}: {name!r} can't be read: {error}") from None
        if difference is not None:
            yield difference
    progress("comparing tensors", len(rebuilt.tensors), len(rebuilt.tensors))


def _load(weights: Mapping[str, Path], names: Iterable[str]) -> dict[str, Tensor]:
    tensors = {}
    for name in names:
        with safe_open(weights[name], framework="pt") as file:
            tensors[name] = file.get_tensor(name)
    return tensors


def _field_differences(
    published: Path, manifest: Manifest, folder: Path, rebuilt: Rebuilt, local: Sources
) -> Iterator[FieldDifference]:
    found = manifest.model_dump(mode="json")
    expected = rebuilt.manifest.model_dump(mode="json")
    if found["calibration"] and expected["calibration"]:
        dataset = found["calibration"]["dataset"]
        if any(source.field == "calibration.dataset" for source in local.local):
            # Wherever it lies here; its content is known to be the same.
            expected["calibration"]["dataset"] = dataset
        if dataset == BUILTIN:
            # Its versions; whether they gave the same tokens is compared.
            expected["calibration"]["revision"] = found["calibration"]["revision"]
    for key in _RECORDED:
        yield from field_differences(found[key], expected[key], f"manifest.{key}", exact=_COUNTS)
    try:
        yield from intervention_differences(
            load_intervention(published / INTERVENTION), rebuilt.compiled.intervention
        )
    except CheckpointError as error:
        yield FieldDifference(field=INTERVENTION, found=str(error), expected="the exact edit")
    for file in (CONFIG, WEIGHTS_INDEX):
        yield from field_differences(
            read_object(published / file, source=file),
            read_object(folder / file, source=file),
            file,
            measured=False,
        )


def _file_differences(published: Path, folder: Path, rebuilt: Rebuilt) -> list[FieldDifference]:
    """Files whose content is the same, and whose bytes are not."""
    names = [CONFIG, WEIGHTS_INDEX, INTERVENTION, *([rebuilt.shard] if rebuilt.shard else [])]
    pairs = ((name, published / name, folder / name) for name in names)
    return [
        FieldDifference(field=name, found=f"sha256 {a.sha256}", expected=f"sha256 {b.sha256}")
        for name, here, there in pairs
        if here.is_file() and (a := digest_file(here)) != (b := digest_file(there))
    ]
