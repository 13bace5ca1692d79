import pytest

from simulator.words import count_tokens, cut_at, fingerprint, json_pieces, prose


@pytest.mark.parametrize(("text", "tokens"), [("", 0), ("a", 1), ("abcd", 1), ("abcde", 2), ("é" * 4, 2)])
def test_received_text_costs_a_token_per_four_bytes_rounded_up(text: str, tokens: int) -> None:
    assert count_tokens(text) == tokens


def test_same_seed_says_the_same_words_and_another_seed_says_others() -> None:
    assert prose(fingerprint(["a"]), None) == prose(fingerprint(["a"]), None)
    assert prose(fingerprint(["a"]), None) != prose(fingerprint(["b"]), None)


@pytest.mark.parametrize("tokens", [0, 1, 8, 9, 10, 500])
def test_prose_has_as_many_pieces_as_asked_for(tokens: int) -> None:
    assert len(prose(fingerprint(["seed"]), tokens)) == tokens


def test_prose_of_its_own_length_is_whole_sentences() -> None:
    text = "".join(prose(fingerprint(["seed"]), None))

    sentences = text.split(". ")
    assert 2 <= len(sentences) <= 5
    assert text.endswith(".")
    assert text[0].isupper()
    assert "  " not in text


def test_json_is_one_token_per_four_characters() -> None:
    assert json_pieces('{"a":12}!') == ('{"a"', ":12}", "!")


def test_text_ends_before_the_first_stop_sequence_even_inside_a_piece() -> None:
    assert cut_at(("One", " two", " three"), ("hre", "wo")) == (("One", " t"), "wo")
    assert cut_at(("One", " two"), ("One",)) == ((), "One")
    assert cut_at(("One", " two"), ("x", "")) == (("One", " two"), None)


def test_fingerprint_tells_borders_of_parts_apart() -> None:
    assert fingerprint(["ab", "c"]) != fingerprint(["a", "bc"])
