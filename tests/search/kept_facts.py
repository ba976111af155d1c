"""Facts of this machine that searches under test need not find again: each process of tests finds them once.

KEPT_FACTS: folder of those that were found.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from search.setup import preparation
from search.setup.hardware import FactFinder
from timellm.machine.cores import usable_cores


class KeptFacts(FactFinder):
    """Finds the facts, unless a search that asked for the same has found them."""

    def __init__(self, config: Mapping[str, Any], variants: Sequence[Mapping[str, Any]] = ()) -> None:
        place = [usable_cores(), os.environ.get("TIMELLM_CACHE_DIR")]
        asked = json.dumps([config, list(variants), place], sort_keys=True)
        self._kept = Path(os.environ["KEPT_FACTS"], hashlib.sha256(asked.encode()).hexdigest())
        self._is_known = self._kept.is_file()
        if not self._is_known:
            super().__init__(config, variants)

    def facts(self) -> dict[str, Any]:
        """The facts, as they were found first."""
        if not self._is_known:
            self._kept.write_text(json.dumps(super().facts()))
        return json.loads(self._kept.read_text())


preparation.FactFinder = KeptFacts  # type: ignore[misc]
