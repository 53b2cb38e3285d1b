"""Objects in a bucket: as much of ``s3://``, ``gs://`` and ``hf://`` as a run needs to keep itself there.

In: a URL. Out: `Objects`, whose writes can be bound to a condition (nothing is there yet; what is there is what was
read). Through the filesystems of fsspec, so that keys and addresses are found as they are for input. Knows no run.
"""

from fineinstructions.stores.objects import Objects, is_url, open_objects
from fineinstructions.stores.raw import Entry
from fineinstructions.stores.trouble import Conflict

__all__ = ["Conflict", "Entry", "Objects", "is_url", "open_objects"]
