"""What is known of the programs that serve models: which parts of a checkpoint each ignores.

A program that ignores a bias loads a spliced model without an error and serves another one. The
entries stand beside the classes that they are about, in `hubsplice.families`. What is not listed
there is not known, and never taken to work.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

from hubsplice.families.engines import EXAMINED, EngineKey, ExaminedVersion, Support
from hubsplice.families.registry import model_classes


@dataclass(frozen=True)
class Engine:
    """A program that serves models.

    Attributes:
        key: what the command line calls it.
        examined: the version that everything known is about.
    """

    key: EngineKey
    examined: ExaminedVersion

    @property
    def name(self) -> str:
        """What texts call it."""
        return self.examined.name

    @property
    def version(self) -> str:
        """The version that was examined."""
        return self.examined.version

    @property
    def needs(self) -> str:
        """What has to be done to a checkpoint before it can be served; empty for nothing."""
        return self.examined.needs

    @cached_property
    def classes(self) -> Mapping[str, Support]:
        """What it does with each class that was examined."""
        return {
            name: found.engines[self.key]
            for name, found in model_classes().items()
            if self.key in found.engines
        }


ENGINES: Mapping[EngineKey, Engine] = MappingProxyType(
    {key: Engine(key, examined) for key, examined in EXAMINED.items()}
)
"""By what the command line calls them."""
