"""The licence of a base, from its card."""

from __future__ import annotations

from pathlib import Path

import pytest

from hubsplice.card.metadata import card_metadata
from hubsplice.checkpoint.licenses import HUB_LICENSES
from hubsplice.checkpoint.manifest import BaseTerms
from hubsplice.checkpoint.resolve import ResolvedBase
from hubsplice.checkpoint.terms import license_doubt, read_terms
from tests.card import examples
from tests.loopback.card import LICENSES, check_card


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


def test_the_hubs_ids_are_those_that_its_double_knows() -> None:
    assert {*LICENSES} == HUB_LICENSES


@pytest.mark.parametrize(
    ("said", "expected", "doubt"),
    [
        ("license: apache-2.0", {"license": "apache-2.0"}, None),
        ("license: Apache-2.0", {"license": "apache-2.0"}, None),
        ("license: [mit, apache-2.0]", {"license": ["mit", "apache-2.0"]}, None),
        (
            "license: [mit, own]",
            {"license": "other", "license_name": "mit-own"},
            "'mit, own', in a form that the Hub does not take",
        ),
        (
            "license: agpl-3.0-or-later",
            {"license": "other", "license_name": "agpl-3.0-or-later"},
            None,
        ),
        (
            "license: Our Licence (2)",
            {"license": "other", "license_name": "our-licence-2"},
            "'Our Licence (2)', in a form",
        ),
        (
            "license: other\nlicense_name: Llama 3.1 Community",
            {"license": "other", "license_name": "llama-3.1-community"},
            "will say other, 'llama-3.1-community'; to say another, give --license",
        ),
        ("license: other", {"license": "other", "license_name": "base-model-license"}, None),
        ("license: other\nlicense_name: '%%'", {"license_name": "base-model-license"}, "'%%'"),
        ("tags: [x]", {}, None),
    ],
)
def test_a_card_says_of_a_base_what_the_hub_takes(
    tmp_path: Path, said: str, expected: dict[str, object], doubt: str | None
) -> None:
    (tmp_path / "README.md").write_text(f"---\n{said}\n---\n")
    terms = read_terms(ResolvedBase(tmp_path, None, None))
    manifest = examples.manifest()
    manifest = manifest.model_copy(
        update={"base": manifest.base.model_copy(update={"terms": terms})}
    )
    text = f"---\n{card_metadata(manifest, None)}\n---\n"
    findings = check_card(text)
    assert findings.errors == []
    found = {key: findings.metadata.get(key) for key in expected}
    assert found == expected
    told = license_doubt(tmp_path)
    assert (told is None) is (doubt is None)
    assert (doubt or "") in (told or "")
