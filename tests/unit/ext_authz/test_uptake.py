"""How far a process says it has followed the changes of keys and of the catalogue."""

from ext_authz.uptake import TakenUp, Uptake


class Clock:
    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def test_there_is_nothing_to_tell_before_the_first_look() -> None:
    uptake = Uptake(Clock(), leases_end_s=lambda: 0.0)
    assert uptake.taken_up is None
    uptake.lose_track()
    assert uptake.has_gap
    assert uptake.taken_up is None
    uptake.close_gap(7)
    assert not uptake.has_gap
    assert uptake.taken_up == TakenUp(7, 0.0, 0)


def test_the_highest_change_counts_and_grows_older_from_the_moment_it_was_taken_up() -> None:
    clock = Clock()
    uptake = Uptake(clock, leases_end_s=lambda: 0.0)
    uptake.take_up(3)
    clock.seconds += 2
    uptake.take_up(3)
    uptake.take_up(2)
    assert uptake.taken_up == TakenUp(3, 2.0, 0)
    uptake.take_up(4)
    assert uptake.taken_up == TakenUp(4, 0.0, 0)


def test_a_number_that_was_an_invention_is_forgotten_and_looked_up() -> None:
    uptake = Uptake(Clock(), leases_end_s=lambda: 0.0)
    uptake.close_gap(3)
    uptake.take_up(10**18 - 1)
    uptake.distrust()
    assert uptake.has_gap
    assert uptake.taken_up is None
    assert not uptake.has_taken_up(3)
    uptake.close_gap(4)
    assert uptake.has_taken_up(4)
    assert not uptake.has_taken_up(5)


def test_every_change_and_every_gap_is_news() -> None:
    uptake = Uptake(Clock(), leases_end_s=lambda: 0.0)
    uptake.take_up(1)
    assert uptake.news.is_set()
    uptake.news.clear()
    uptake.lose_track()
    assert uptake.news.is_set()


def test_another_revision_of_the_catalogue_is_news_and_the_same_one_read_again_is_not() -> None:
    uptake = Uptake(Clock(), leases_end_s=lambda: 0.0)
    uptake.take_up(1)
    uptake.read_catalog(5)
    assert uptake.taken_up == TakenUp(1, 0.0, 5)
    uptake.news.clear()
    uptake.read_catalog(5)
    assert not uptake.news.is_set()
    uptake.read_catalog(6)
    assert uptake.news.is_set()
