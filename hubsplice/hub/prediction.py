"""How many bytes an upload will send, found out without one.

hf_xet cuts the files into chunks and stores those that are new in a folder instead of on the Hub,
with copies of what earlier uploads recorded about the chunks that the Hub has. What the Hub has
from others is not known here, so that the prediction may be too high.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from huggingface_hub import constants

from hubsplice.errors import OutputError
from hubsplice.hub.built import LARGEST_IN_GIT, LocalFile

# Where a cache keeps records of chunks, and where a session in another folder looks for them:
# those of uploads that ended, and of uploads that were interrupted.
_RECORDS = {
    "shard-cache": "shard-cache",
    "staging/shard-session/xorb_metadata": "shard-session/xorb_metadata",
}


def predict_upload(
    files: Collection[LocalFile], *, scratch: Path, on_progress: Callable[[int, int], None]
) -> int:
    """Bytes that uploading these files will send.

    Args:
        files: what is to be sent.
        scratch: an existing folder with room for the largest file, for a moment.
        on_progress: told how many bytes have been looked at, of how many.

    Raises:
        OutputError: the room is not there.
    """
    large = [f.source for f in files if isinstance(f.source, Path) and _goes_to_storage(f)]
    rest = sum(f.digest.size for f in files if f.source not in large)
    if constants.HF_HUB_DISABLE_XET:
        return rest + sum(path.stat().st_size for path in large)
    sizes = [path.stat().st_size for path in large]
    sent = 0
    on_progress(0, sum(sizes))
    try:
        with TemporaryDirectory(prefix=".predicting-", dir=scratch) as name:
            for done, bytes_sent in enumerate(_sent_by_file(large, Path(name)), start=1):
                sent += bytes_sent
                on_progress(sum(sizes[:done]), sum(sizes))
    except (OSError, RuntimeError) as error:
        raise OutputError(
            f"{scratch}: the size of the upload could not be predicted there: {error}"
        ) from None
    return rest + sent


def _goes_to_storage(file: LocalFile) -> bool:
    assert isinstance(file.source, Path)
    return file.source.suffix == ".safetensors" or file.digest.size > LARGEST_IN_GIT


def _sent_by_file(files: Collection[Path], scratch: Path) -> Iterator[int]:
    import hf_xet

    store = scratch / "xet"
    # Copies, since the session adds records of what was never sent.
    for kept, looked_for in _RECORDS.items():
        (store / looked_for).mkdir(parents=True)
        for record in Path(constants.HF_XET_CACHE).glob(f"*/{kept}/*.mdb"):
            shutil.copyfile(record, store / looked_for / record.name)
    session = hf_xet.XetSession()
    for file in files:
        commit = session.new_upload_commit(endpoint=f"local://{scratch}")
        commit.start_upload_file(str(file), sha256=hf_xet.SKIP_SHA256)
        yield int(commit.wait_to_finish().dedup_metrics.total_bytes_uploaded)
        # The records stay, and the data is not needed again.
        shutil.rmtree(store / "xorbs", ignore_errors=True)
