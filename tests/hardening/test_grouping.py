"""What belongs together is put together in the order in which it comes."""

from hardening.foundation.grouping import by_key


def test_keys_and_values_keep_their_order() -> None:
    """Each key stands where it was first, and has its values as they came; nothing makes no key."""
    assert list(by_key([("b", 2), ("a", 9), ("b", 1)]).items()) == [("b", [2, 1]), ("a", [9])]
    assert by_key(()) == {}
