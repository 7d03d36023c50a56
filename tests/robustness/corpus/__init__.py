"""The bad inputs, in blocks. Data only: `tests/robustness/test_corpus.py` sends them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tests.robustness.case import AnyCase
from tests.robustness.corpus import (
    addresses,
    carriers,
    documents,
    fields,
    forms,
    heads,
    messages,
    policies,
    sizes,
)

BLOCKS: Mapping[str, Sequence[AnyCase]] = {
    **carriers.picture_cases(),
    **addresses.cases(),
    **documents.cases(),
    **fields.cases(),
    **messages.cases(),
    **forms.cases(),
    **policies.cases(),
    **heads.cases(),
    **sizes.cases(),
}

# How many different inputs: a picture counts once, however many bodies carry it.
WRITTEN = (
    len(carriers.PICTURES)
    + len(addresses.HOSTS)
    + len(addresses.WHOLE)
    + len(addresses.DATA_URLS)
    + len(documents.PLAIN)
    + len(documents.INSERTED)
    + len(fields.CHAT_VALUES)
    + len(fields.CALL_VALUES)
    + len(messages.MESSAGES)
    + len(forms.BODIES)
    + len(forms.KINDS)
    + len(policies.SECTIONS)
    + len(heads.KINDS)
    + len(heads.HEADERS)
    + len(heads.KEYS)
)
