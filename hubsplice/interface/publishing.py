"""A publication step by step: `build` where needed, `plan`, and `publish`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from hubsplice import __version__
from hubsplice.errors import HubError, RecipeError, UnreachableError
from hubsplice.interface.progress import ProgressChoice, reporting
from hubsplice.interface.publication import Publication
from hubsplice.interface.sources import RecipeSource, as_path, as_recipe

if TYPE_CHECKING:
    from huggingface_hub import HfApi

    from hubsplice.building.build import BuildResult
    from hubsplice.checkpoint.manifest import Manifest
    from hubsplice.compiling.cost import BuildCost
    from hubsplice.hub.built import BuiltFolder
    from hubsplice.hub.plan import CardChoice, PublishPlan, Target
    from hubsplice.recipe.models import Recipe


@dataclass(frozen=True)
class PublishOptions:
    """What `publish` offers beside its source; the arguments are described there."""

    repo_id: str | None = None
    tag: str | None = None
    private: bool | None = None
    pull_request: bool = False
    license_id: str | None = None
    replace: bool = False
    card: CardChoice | None = None
    allow_failed: bool = False
    allow_misfit: bool = False
    require_fidelity: float | None = None
    dry_run: bool = False

    def arguments(self, repo_id: str) -> Iterator[str]:
        """The options of `hubsplice publish` that say the same, but for the dry run."""
        yield from ("--repo-id", repo_id)
        if self.tag is not None:
            yield from ("--tag", self.tag)
        if self.private is not None:
            yield "--private" if self.private else "--public"
        if self.license_id is not None:
            yield from ("--license", self.license_id)
        if self.card is not None:
            yield from ("--card", self.card)
        if self.require_fidelity is not None:
            yield from ("--require-fidelity", str(self.require_fidelity))
        for flag, wanted in {
            "--pr": self.pull_request,
            "--replace": self.replace,
            "--allow-failed": self.allow_failed,
            "--allow-misfit": self.allow_misfit,
        }.items():
            if wanted:
                yield flag


@dataclass(frozen=True, eq=False)
class Publishing:
    """A publication that the target does not refuse.

    Attributes:
        api: the Hub.
        recipe: what is built, or was built.
        folder: the built checkpoint, or where it will be.
        found: whether an earlier run has built the recipe.
        target: where to publish.
        options: what was asked for.
        progress: as in `publish`.
        unasked: why the Hub can't be asked, of a dry run.
    """

    api: HfApi
    recipe: Recipe
    folder: Path
    found: bool
    target: Target
    options: PublishOptions
    progress: ProgressChoice
    unasked: str | None = None

    @staticmethod
    def open(source: RecipeSource, options: PublishOptions, progress: ProgressChoice) -> Publishing:
        """Find what is published, and ask the Hub whether it may be published there.

        Raises:
            HubspliceError: as `publish` raises.
        """
        recipe, folder = _opened(source)
        from huggingface_hub import HfApi

        from hubsplice.hub.builds import build_place
        from hubsplice.hub.plan import require_agreement

        api = HfApi(library_name="hubsplice", library_version=__version__)
        target = _target(api, recipe, options)
        # What forbids publishing is better said before minutes of building.
        unasked = None
        try:
            require_agreement(api, target)
        except UnreachableError as error:
            if not options.dry_run:
                raise
            unasked = str(error).partition(";")[0]
        place = build_place(recipe, target.repo_id) if folder is None else folder
        found = folder is None and place.is_dir()
        return Publishing(api, recipe, place, found, target, options, progress, unasked)

    @property
    def is_built(self) -> bool:
        """Whether the folder is there."""
        return self.folder.is_dir()

    def build(self, on_cost: Callable[[BuildCost], None] | None = None) -> BuildResult:
        """Build the recipe; a result that misses its requirement is kept, and can be read."""
        from hubsplice.building.build import build

        with reporting(self.progress) as report:
            return build(
                self.recipe,
                output=self.folder,
                require_fidelity=self.options.require_fidelity,
                measure=True,
                hard_link=False,
                progress=report,
                allow_failed=True,
                allow_misfit=self.options.allow_misfit,
                on_cost=on_cost,
            )

    def plan(self) -> tuple[BuiltFolder, PublishPlan]:
        """The built folder, verified, and what publishing it would change; nothing is written."""
        from hubsplice.hub.built import open_built
        from hubsplice.hub.namespace import namespace_doubt
        from hubsplice.hub.plan import make_publish_plan

        with reporting(self.progress) as report:
            built = open_built(
                self.folder,
                require_fidelity=self.options.require_fidelity,
                allow_failed=self.options.allow_failed,
                allow_misfit=self.options.allow_misfit,
                on_read=lambda done, total: report("verifying", done, total),
            )
        with reporting(self.progress) as report:
            plan = make_publish_plan(
                self.api,
                built,
                self.target,
                on_predicted=lambda done, total: report("predicting the upload", done, total),
                unasked=self.unasked,
            )
        ask = self.options.dry_run and self.unasked is None
        doubt = namespace_doubt(self.api, self.target, ask=ask)
        if doubt is not None:
            plan = replace(plan, warnings=(doubt, *plan.warnings))
        return built, plan

    def publish(self, built: BuiltFolder, plan: PublishPlan) -> Publication:
        """Carry the plan out, unless this is a dry run."""
        published = None
        if not self.options.dry_run:
            from hubsplice.hub.publish import publish

            with reporting(self.progress):
                published = publish(self.api, plan)
        manifest = built.manifest
        carrier = None if manifest.carrier is None else manifest.carrier.name
        return Publication(
            plan, built.folder, manifest.dtype, self.api.endpoint, published, carrier
        )


def _opened(source: RecipeSource) -> tuple[Recipe, Path | None]:
    """The recipe, and the folder where it is built already."""
    from hubsplice.checkpoint.companions import MANIFEST
    from hubsplice.checkpoint.manifest import read_manifest
    from hubsplice.files.plain import is_folder
    from hubsplice.intervention.saved import RECIPE
    from hubsplice.recipe.reading import recorded_recipe

    if isinstance(source, str | PathLike) and is_folder(as_path(source)):
        if not (as_path(source) / MANIFEST).exists():
            raise RecipeError(
                f"{source}: hubsplice did not build it, for it holds no {MANIFEST}; give a recipe, "
                "or a folder that `hubsplice build` wrote"
            )
        folder = as_path(source)
        if not (folder / RECIPE).exists() and (manifest := read_manifest(folder / MANIFEST)).slots:
            return _of_carrier(manifest), folder
        return recorded_recipe(folder / RECIPE), folder
    return as_recipe(source), None


def _of_carrier(manifest: Manifest) -> Recipe:
    """A recipe that says of a carrier what publishing looks at."""
    from hubsplice.recipe.models import Recipe

    places = [{"after_layer": layer.site} for layer in manifest.layers]
    return Recipe(base_model=manifest.base.name, splices=places)


def _target(api: HfApi, recipe: Recipe, options: PublishOptions) -> Target:
    from huggingface_hub import get_token
    from huggingface_hub.utils._validators import validate_repo_id

    from hubsplice.hub.failures import explained_errors
    from hubsplice.hub.plan import Target

    asked = recipe.publish
    name = options.repo_id or asked.repo_id
    if name is None:
        raise RecipeError("publish.repo_id: missing; give it in the recipe, or use --repo-id")
    with explained_errors(name):
        validate_repo_id(name)
    if "/" not in name and get_token() is None:
        raise RecipeError(
            f"publish.repo_id: {name!r} names no owner, and without a token nothing says who you "
            f"are; give owner/{name}, or log in with `hf auth login`"
        )
    with explained_errors(name):
        if not options.dry_run and get_token() is None:
            raise HubError("no token for the Hub: log in with `hf auth login`, or set HF_TOKEN")
        full_name = name if "/" in name else f"{api.whoami()['name']}/{name}"
    return Target(
        repo_id=full_name,
        private=asked.private if options.private is None else options.private,
        require_private=options.private is True,
        require_public=options.private is False,
        tag=options.tag or asked.tag,
        pull_request=options.pull_request,
        license_id=options.license_id,
        replace=options.replace,
        card=options.card,
    )
