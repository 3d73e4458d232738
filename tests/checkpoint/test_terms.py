"""The licence of a base, from its card."""

from __future__ import annotations

from pathlib import Path

import pytest

from hubsplice.checkpoint.manifest import BaseTerms
from hubsplice.checkpoint.resolve import ResolvedBase
from hubsplice.checkpoint.terms import read_terms


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        (None, BaseTerms()),
        ("no metadata", BaseTerms()),
        ("---\nlicense: [unclosed\n---\n", BaseTerms()),
        ("---\n- a list\n---\n", BaseTerms()),
        ("---\nlicense: ''\n---\n", BaseTerms()),
        ("---\nlicense: 3\n---\n", BaseTerms()),
        ("---\nlicense: apache-2.0\ntags: [x]\n---\ntext", BaseTerms(license="apache-2.0")),
        ("---\nlicense: [mit]\n---\n", BaseTerms(license="mit")),
        (
            "---\nlicense: [mit, gemma]\n---\n",
            BaseTerms(license="other", license_name="mit, gemma"),
        ),
        (
            "---\nlicense: other\nlicense_name: own\nlicense_link: LICENSE\n---\n",
            BaseTerms(license="other", license_name="own", license_link="LICENSE"),
        ),
    ],
)
def test_terms_of_a_local_base(tmp_path: Path, card: str | None, expected: BaseTerms) -> None:
    if card is not None:
        (tmp_path / "README.md").write_text(card)
    assert read_terms(ResolvedBase(tmp_path, None, None)) == expected
