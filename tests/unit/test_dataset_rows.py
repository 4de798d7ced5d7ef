"""The rows: the same spec always gives the same rows; and what the load generator needs to know of them."""

import hashlib
import os
import re
import subprocess
import sys
import uuid

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from labkit.errors import BadInput
from labkit.lab import dataset
from labkit.lab.dataset import rows
from labkit.lab.dataset.locales import LOCALES
from labkit.lab.dataset.rows import BLOCK_ROWS

SPEC = dataset.DatasetSpec(users=5000, locale="ru_RU", seed=7)
# With the versions of Faker and numpy in constraints.txt. If it has to change although they have not, so does _FORMAT.
RECORDED = "2495c06806e3c5449f13f1ce5c4f963b3687db967fc1cf12a3430546bad24db6"


def fields(spec: dataset.DatasetSpec) -> list[list[str]]:
    return [line.split("\t") for line in b"".join(dataset.copy_text(spec)).decode().splitlines()]


def checksum(spec: dataset.DatasetSpec) -> str:
    return hashlib.sha256(b"".join(dataset.copy_text(spec))).hexdigest()


def test_the_same_spec_gives_the_same_bytes_in_another_process_and_another_year():
    script = (
        "import hashlib; from labkit.lab import dataset;"
        f"print(hashlib.sha256(b''.join(dataset.copy_text(dataset.{SPEC!r}))).hexdigest())"
    )
    elsewhere = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONHASHSEED": "12345"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout.strip()
    assert checksum(SPEC) == elsewhere == RECORDED


@pytest.mark.parametrize("other", [dataset.DatasetSpec(5000, "ru_RU", 8), dataset.DatasetSpec(5000, "uk_UA", 7)])
def test_another_seed_or_locale_gives_other_rows(other):
    assert checksum(other) != checksum(SPEC)
    assert other.fingerprint != SPEC.fingerprint


@settings(max_examples=25)
@given(st.integers(1, 5000))
@example(BLOCK_ROWS)
@example(BLOCK_ROWS + 1)
def test_a_user_is_the_same_person_in_a_dataset_of_any_size(users):
    text = b"".join(dataset.copy_text(dataset.DatasetSpec(users, SPEC.locale, SPEC.seed)))
    assert text.count(b"\n") == users
    assert b"".join(dataset.copy_text(SPEC)).startswith(text)


def test_ids_and_names_are_those_of_the_rows():
    ids, names = dataset.ids(SPEC), dataset.names(SPEC)
    assert len(ids) == 16 * SPEC.users
    for number, row in enumerate(fields(SPEC)):
        assert uuid.UUID(row[0]).bytes == ids[16 * number : 16 * number + 16]
        assert (row[1], row[2]) == names.of(number)
    assert ids[16:32] == hashlib.md5(b"7:1").digest()
    assert len(names.first) == len(names.second) == SPEC.users


@pytest.mark.parametrize("locale", LOCALES)
def test_an_absent_prefix_begins_no_name_but_almost_does(locale):
    names = dataset.names(dataset.DatasetSpec(10, locale))
    for pool, absent in ((names.first_pool, names.absent_first), (names.second_pool, names.absent_second)):
        prefixes = {name[:length] for name in pool for length in range(1, len(name) + 1)}
        assert len(absent) > 1000
        assert not prefixes & set(absent)
        assert all(prefix[:-1] in prefixes and prefix.isalpha() for prefix in absent)


def test_a_russian_surname_agrees_with_the_first_name():
    people = fields(SPEC)
    pools = dataset.names(SPEC)
    half = len(pools.first_pool) // 2
    men = set(pools.first_pool[:half]) - set(pools.first_pool[half:])
    women = set(pools.first_pool[half:]) - set(pools.first_pool[:half])
    feminine = re.compile("(ова|ева|ёва|ина|ына|ая)$")
    assert 2000 < sum(row[1] in women for row in people) < 3000
    assert all(feminine.search(row[2]) for row in people if row[1] in women)
    assert not any(feminine.search(row[2]) for row in people if row[1] in men)


def test_names_keep_the_frequencies_of_their_language():
    surnames = [row[2] for row in fields(dataset.DatasetSpec(50_000, "en_US"))]
    # Census figures: about one in a hundred is a Smith, and most names are rarer than one in a thousand.
    assert 0.005 < surnames.count("Smith") / len(surnames) < 0.04
    assert len(set(surnames)) > 500


def test_a_password_hash_looks_like_bcrypt_and_is_unique():
    hashes = [row[6] for row in fields(SPEC)]
    assert all(re.fullmatch(r"\$2b\$12\$[./A-Za-z0-9]{53}", text) for text in hashes)
    assert len(set(hashes)) == len(hashes)


@given(st.text())
def test_text_survives_the_copy_format(text):
    escaped = text.translate(rows._COPY_ESCAPES)
    assert not set(escaped) & set("\t\n\r")
    # The server's rule: a backslash and the letter after it stand for one character.
    meaning = {"\\\\": "\\", "\\t": "\t", "\\n": "\n", "\\r": "\r"}
    assert re.sub(r"\\.", lambda pair: meaning[pair.group()], escaped) == text


def test_a_spec_that_cannot_be_names_all_its_problems():
    with pytest.raises(BadInput) as raised:
        dataset.DatasetSpec(users=0, locale="tlh", seed=-1)
    assert len(raised.value.problems) == 3
