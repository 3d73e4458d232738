"""Publishing a spliced checkpoint."""

from hubsplice.hub.local import Publication, plan_publication, publish_to_folder

__all__ = ["Publication", "plan_publication", "publish_to_folder"]
