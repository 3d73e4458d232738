"""What a failed check of a layer found is shown as in a test."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("tests.constructions.fresh_tokens")
