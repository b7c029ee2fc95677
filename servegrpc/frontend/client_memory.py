"""Regions of shared memory that clients have registered: a tensor in one is read and written there instead of being sent."""

from __future__ import annotations

import threading

from servegrpc.compat.open_inference import infer_pb2
from servegrpc.errors import InvalidInput, NotSupported, RegionExists, RegionNotFound
from servegrpc.wire.open_inference_inputs import REGION_PREFIX
from servegrpc.wire.shared_memory import Region

MAX_REGIONS = 1024
MARK = b"shared_memory_region"


class ClientMemory:
    """The table of regions. `prefix` is how the names of shared memory objects must begin; without one, none can be registered."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix.removeprefix("/")
        self._lock = threading.Lock()
        self._regions: dict[str, Region] = {}
        self._encoded = b""  # the regions as parameters of a request

    def register(self, region: Region) -> None:
        """Add a region. Raises NotSupported, RegionExists, or InvalidInput for one that may not be used."""
        if not self._prefix:
            text = "This server takes no tensors in shared memory; start it with --allow-client-shm PREFIX, or send the tensors."
            raise NotSupported(text)
        if not region.name:
            raise InvalidInput("name is empty; name the region.", field="name")
        if not region.key.removeprefix("/").startswith(self._prefix):
            text = f"shared memory region '{region.name}' has the key '{region.key}'; keys must begin with '/{self._prefix}' here."
            raise InvalidInput(text, field="key")
        region.check()
        with self._lock:
            if region.name in self._regions:
                raise RegionExists(f"shared memory region '{region.name}' already in manager", region=region.name)
            if len(self._regions) >= MAX_REGIONS:
                raise InvalidInput(f"{MAX_REGIONS} regions are registered already; unregister some.", field="name")
            self._replace({**self._regions, region.name: region})

    def unregister(self, name: str) -> None:
        """Forget a region, or all when `name` is empty; one that is not there is no error."""
        with self._lock:
            self._replace({other: region for other, region in self._regions.items() if name and other != name})

    def status(self, name: str) -> list[Region]:
        """Return a region, or all when `name` is empty. Raises RegionNotFound."""
        regions = self._regions
        if name and name not in regions:
            raise RegionNotFound(f"Unable to find system shared memory region: '{name}'", region=name)
        return [regions[name]] if name else list(regions.values())

    def describe_to_worker(self, raw: bytes) -> bytes:
        """Return a request with the regions added to its parameters, if it names any: workers know no regions."""
        return raw + self._encoded if self._encoded and MARK in raw else raw

    def _replace(self, regions: dict[str, Region]) -> None:
        request = infer_pb2.ModelInferRequest()
        for region in regions.values():
            request.parameters[REGION_PREFIX + region.name].string_param = f"{region.offset} {region.size} {region.key}"
        self._regions, self._encoded = regions, request.SerializeToString()
