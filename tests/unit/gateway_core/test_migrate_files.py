from pathlib import Path

import pytest

from gateway_core.migrate import Migration, MigrationError, missing_migrations, read_migrations
from tests.support.databases import ROOT

FIRST, SECOND, THIRD = (Migration(n, f"000{n}_step.sql", f"SELECT {n}") for n in (1, 2, 3))


def write(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).write_text(f"-- {name}", encoding="utf-8")
    return folder


def test_migrations_are_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    found = read_migrations(write(tmp_path, "0002_b.sql", "0001_z.sql", "0003_a.sql"))
    assert [(migration.number, migration.name) for migration in found] == [
        (1, "0001_z.sql"),
        (2, "0002_b.sql"),
        (3, "0003_a.sql"),
    ]
    assert found[0].sql == "-- 0001_z.sql"


def test_an_empty_folder_has_no_migrations(tmp_path: Path) -> None:
    assert read_migrations(tmp_path) == []


@pytest.mark.parametrize("name", ["1_a.sql", "0001-a.sql", "0001_A.sql", "0001_.sql", "00001_a.sql", "0001_a.b.sql"])
def test_a_file_with_another_kind_of_name_is_refused_by_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(MigrationError, match=name):
        read_migrations(write(tmp_path, name))


def test_a_number_is_given_once(tmp_path: Path) -> None:
    with pytest.raises(MigrationError, match="same number"):
        read_migrations(write(tmp_path, "0001_a.sql", "0001_b.sql"))


def test_what_fills_a_gap_later_is_applied_then(tmp_path: Path) -> None:
    with_gap = read_migrations(write(tmp_path, "0001_a.sql", "0003_c.sql"))
    applied = {migration.number: migration.checksum for migration in with_gap}
    assert [each.number for each in missing_migrations(applied, read_migrations(write(tmp_path, "0002_b.sql")))] == [2]


def test_only_what_is_not_applied_is_missing() -> None:
    assert missing_migrations({}, [FIRST, SECOND]) == [FIRST, SECOND]
    assert missing_migrations({1: FIRST.checksum}, [FIRST, SECOND]) == [SECOND]
    assert missing_migrations({1: FIRST.checksum, 2: SECOND.checksum}, [FIRST, SECOND]) == []


def test_a_file_that_changed_after_it_was_applied_is_refused() -> None:
    changed = Migration(1, FIRST.name, FIRST.sql + " ")
    with pytest.raises(MigrationError, match=r"0001_step\.sql has changed"):
        missing_migrations({1: FIRST.checksum}, [changed, SECOND])


def test_a_database_newer_than_the_code_is_refused() -> None:
    with pytest.raises(MigrationError, match="migration 3"):
        missing_migrations({1: FIRST.checksum, 2: SECOND.checksum, 3: THIRD.checksum}, [FIRST, SECOND])


@pytest.mark.parametrize(
    "folder", sorted(path.parent.relative_to(ROOT) for path in ROOT.glob("*/migrations/**/0001_*.sql")), ids=str
)
def test_every_migration_of_ours_begins_with_what_why_and_whether_the_running_version_survives_it(folder: Path) -> None:
    for migration in read_migrations(ROOT / folder):
        what, why, survives, *_ = migration.sql.splitlines()
        assert what.startswith("-- what: "), migration.name
        assert why.startswith("-- why: "), migration.name
        assert survives.startswith("-- running version survives it: "), migration.name
