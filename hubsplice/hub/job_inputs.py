"""What a job needs of this machine: the recipe, and the local files that it names, in one folder.

They travel in the bucket that huggingface_hub itself keeps for jobs, which is private. A folder
there is named after its content: the same inputs are sent once, and never overwrite others.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, Volume
from huggingface_hub.constants import HF_JOBS_ARTIFACTS_BUCKET_NAME

from hubsplice.errors import HubError, RecipeError
from hubsplice.files.digest import digest_file
from hubsplice.files.meter import meter
from hubsplice.recipe.local_paths import local_paths, with_local_paths
from hubsplice.recipe.models import Recipe
from hubsplice.recipe.reading import dump_recipe

MOUNT = "/hubsplice"
"""Where a job finds its inputs."""

# Without a suffix: huggingface_hub takes what ends in .yaml for a file of this machine.
RECIPE = "recipe"


@dataclass(frozen=True)
class JobInputs:
    """The inputs of a job.

    Attributes:
        recipe: its text; local paths in it are relative to its own folder.
        files: the local files, by their names in that folder.
        folder: where they are in the bucket.
        size: bytes of all of them.
    """

    recipe: str
    files: Mapping[str, Path]
    folder: str
    size: int


def job_inputs(recipe: Recipe, on_read: Callable[[int, int], None]) -> JobInputs:
    """Gather the inputs, reading every file once.

    Args:
        recipe: with absolute paths, as `load_recipe` gives it.
        on_read: told how many bytes have been read, of how many.

    Raises:
        RecipeError: a file can't be read.
    """
    found = dict(local_paths(recipe))
    if Path(recipe.base_model).is_absolute():
        found["base_model"] = Path(recipe.base_model)
    # The last part of a path stays what it is: the manifest and the card name it.
    places = {field: f"inputs/{i}/{path.name}" for i, (field, path) in enumerate(found.items())}
    moved = with_local_paths(recipe, {field: Path(f"./{name}") for field, name in places.items()})
    texts = {
        section: getattr(moved, section).model_copy(update={"dataset": f"./{places[field]}"})
        for section in ("calibration", "fidelity")
        if (field := f"{section}.dataset") in places
    }
    if "base_model" in places:
        texts["base_model"] = f"./{places['base_model']}"
    text = dump_recipe(moved.model_copy(update=texts))
    files: dict[str, Path] = {}
    for field, path in found.items():
        files |= {f"{places[field]}{name}": file for name, file in _files(path).items()}
    folder, size = _named(text, files, on_read)
    return JobInputs(text, files, folder, size)


def jobs_bucket(namespace: str) -> str:
    """The bucket in which huggingface_hub keeps a namespace's files for jobs."""
    return f"{namespace}/{HF_JOBS_ARTIFACTS_BUCKET_NAME}"


def upload_inputs(api: HfApi, inputs: JobInputs, bucket: str) -> Volume:
    """Send the inputs to a bucket for jobs; gives how a job mounts them.

    Raises:
        HubError: the bucket is public.
    """
    api.create_bucket(bucket, private=True, exist_ok=True)
    if not api.bucket_info(bucket).private:
        raise HubError(
            f"{bucket}: this bucket is public, and what a job reads would be too; make it private "
            f"on {api.endpoint}/buckets/{bucket}"
        )
    sources: dict[str, str | Path | bytes] = {RECIPE: inputs.recipe.encode(), **inputs.files}
    api.batch_bucket_files(
        bucket, add=[(source, f"{inputs.folder}/{name}") for name, source in sources.items()]
    )
    return Volume(
        type="bucket", source=bucket, mount_path=MOUNT, path=inputs.folder, read_only=True
    )


def _files(path: Path) -> dict[str, Path]:
    """The file itself, or those of a folder, by what stands behind the path's own name."""
    if not path.is_dir():
        return {"": path}
    found = {}
    for parent, folders, names in os.walk(path, followlinks=True):
        # Version control and download tools keep theirs in hidden ones.
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(name for name in names if not name.startswith(".")):
            file = Path(parent, name)
            found[f"/{file.relative_to(path).as_posix()}"] = file
    return found


def _named(
    recipe: str, files: Mapping[str, Path], on_read: Callable[[int, int], None]
) -> tuple[str, int]:
    """The folder's name, which is a hash of everything in it, and the bytes of everything."""
    digest = hashlib.sha256(recipe.encode())
    file = None
    try:
        total = sum(path.stat().st_size for path in files.values())
        read = meter(total, on_read)
        for name, file in files.items():
            digest.update(f"\n{name} {digest_file(file, on_read=read).sha256}".encode())
    except OSError as error:
        raise RecipeError(f"{error.filename or file}: cannot be read: {error.strerror}") from None
    return f"hubsplice/{digest.hexdigest()[:16]}", total + len(recipe.encode())
