"""Words of column names: what they are likely to mean, and names that graft and Feast take."""

import re
from collections.abc import Collection


def _words_of(text: str) -> frozenset[str]:
    return frozenset(text.split())


USER = _words_of(
    "user uid customer client member visitor viewer reader account person buyer shopper player listener patient "
    "subscriber reviewer author employee student"
)
ITEM = _words_of(
    "item iid product sku movie film video book isbn asin article song track listing content ad post doc "
    "document news course game recipe offer business restaurant venue poi show episode app hotel job property "
    "title"
)
TIME = _words_of("time timestamp ts datetime epoch when date at created occurred day unix utc ms")
IMPRESSION = _words_of("impression event request view")
BINARY = _words_of(
    "like liked love loved click clicked buy bought purchase purchased order ordered watched finish finished "
    "label target y converted conversion borrow borrowed rent rented save saved share shared follow followed "
    "completed installed success accepted favorite favourite added cart booked played listened skipped reaction "
    "response positive hit relevant"
)
NUMBER = _words_of(
    "rating score star stars grade amount spent revenue dwell duration seconds minutes playtime watchtime "
    "progress quantity qty value pages chapters listens plays price_paid reward"
)
CONTEXT = _words_of(
    "context device platform os browser country region city language locale lang hour weekday dow page position "
    "pos rank slot shelf surface channel source referrer referer query placement screen tab store network"
)
_EVENT = _words_of("event action behavior behaviour interaction activity")
CODE = _words_of("code id zip zipcode postcode category type class genre gender status group kind brand cluster")
_MEASURES = {
    "mean": _words_of("mean avg average"),
    "count": _words_of("count cnt num total shown"),
    "rate": _words_of("rate share ratio ctr"),
}
_ID = _words_of("id ids key no nr number code hash uuid")
_RESERVED = frozenset(
    {"event_timestamp", "created_timestamp", "user_id", "item_id", "feature_name", "entity_id", "type"}
)


def words(name: str) -> list[str]:
    """The words of a name in lower case: ``movieId`` and ``movie_id`` are movie, id; so is ``movieid``."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    found = re.findall(r"[^\W_]+", spaced.lower())
    return [part for word in found for part in _parts(word)]


def means(name: str, meanings: Collection[str]) -> int:
    """How surely a name has one of these meanings: 3 it is nothing else, 2 its main word, 1 one of its words, 0 no."""
    found = words(name)
    bare = [word for word in found if word not in _ID] or found
    if len(bare) == 1 and bare[0] in meanings:
        return 3
    if bare and bare[-1] in meanings:
        return 2
    return int(any(word in meanings for word in bare))


def is_called_id(name: str) -> bool:
    """Whether a name says that it is an id or a number of something."""
    return bool(_ID.intersection(words(name)))


def is_called_event(name: str) -> bool:
    """Whether a name says what a user did: ``event``, ``event_type``, ``action``, ``type``."""
    found = words(name)
    bare = [word for word in found if word not in ("type", "name", "kind")]
    return found == ["type"] or (bool(bare) and bare[-1] in _EVENT)


def likeness(name: str, other: str) -> float:
    """How alike two names are, in [0, 1]: the share of words in common; users are alike whatever they are called.

    A mean is no share, and a count is nothing else.
    """
    one, two = _canonical(name), _canonical(other)
    measures = one & _MEASURES.keys(), two & _MEASURES.keys()
    if measures[0] != measures[1] and (all(measures) or "count" in one | two):
        return 0.0
    return len(one & two) / max(1, len(one | two))


def identifier(name: str, taken: Collection[str] = (), prefix: str = "column") -> str:
    """A name of lower-case letters, digits and _ that is not `taken`, for a task, a feature or a context."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    plain = re.sub(r"[^a-z0-9]+", "_", spaced).strip("_")[:48]
    if not plain or not plain[0].isalpha() or plain in _RESERVED:
        plain = f"{prefix}_{plain}".rstrip("_")
    found, number = plain, 2
    while found in taken:
        found, number = f"{plain}_{number}", number + 1
    return found


def _parts(word: str) -> list[str]:
    stem = word.removesuffix("id")
    return [stem, "id"] if stem != word and stem in USER | ITEM | IMPRESSION | {"event"} else [word]


def _canonical(name: str) -> set[str]:
    found = words(name)
    kinds = ["user" if word in USER else "item" if word in ITEM and len(found) > 1 else word for word in found]
    return {_measure(word) or _stem(word) for word in kinds}


def _measure(word: str) -> str | None:
    return next((measure for measure, said in _MEASURES.items() if word in said), None)


def _stem(word: str) -> str:
    """Without the endings in which like, liked and likes differ."""
    return word if len(word) < 4 else word.removesuffix("s").removesuffix("d").removesuffix("e")
