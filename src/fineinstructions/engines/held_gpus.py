"""GPUs that a Ray cluster has and workers do not get, because servers of the driver use them.

In: GPUs of the driver's machine by name. Out: as long as the context lasts, Ray gives them to nobody.
"""

from collections.abc import Collection
from typing import Any, Self

HOLD_SECONDS = 60.0
"""How long GPUs that others have are waited for, to see which they are."""


class Holder:
    """What runs in the process of an actor that keeps a GPU from workers."""

    def gpu(self) -> str:
        """The GPU that it has, as CUDA names it."""
        import ray

        return ",".join(ray.get_runtime_context().get_accelerator_ids()["GPU"])


class HeldGpus:
    """GPUs of the driver's machine that Ray gives to no worker, because servers of the driver have them; a context.

    Ray chooses GPUs by itself, so actors that do nothing take all that are free there, and those that have others end.

    Args:
        ray: The module.
        names: The GPUs, as CUDA names them; none for nothing to hold.
    """

    def __init__(self, ray: Any, names: Collection[str]) -> None:
        self._ray, self._names = ray, names
        self._holders: list[Any] = []
        self.node_id: str = ray.get_runtime_context().get_node_id()

    def __len__(self) -> int:
        return len(self._holders)

    def __enter__(self) -> Self:
        if self._names:
            from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

            mine = next(node for node in self._ray.nodes() if node["NodeID"] == self.node_id)
            here = NodeAffinitySchedulingStrategy(self.node_id, soft=False)
            holder = self._ray.remote(Holder).options(num_cpus=0, num_gpus=1, scheduling_strategy=here)
            started = [holder.remote() for _ in range(int(mine["Resources"].get("GPU", 0)))]
            told = {one.gpu.remote(): one for one in started}
            done, waiting = (
                self._ray.wait(list(told), num_returns=len(told), timeout=HOLD_SECONDS) if told else ([], [])
            )
            self._holders = [told[call] for call in done if self._ray.get(call) in self._names]
            for call in [*done, *waiting]:  # what others have had all the while cannot be given to workers either
                if told[call] not in self._holders:
                    self._ray.kill(told[call])
        return self

    def __exit__(self, *_: object) -> None:
        for holder in self._holders:
            self._ray.kill(holder)
        self._holders = []
