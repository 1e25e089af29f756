"""Where the teacher is and how target features feed it: the `[teacher]` table of graft.toml.

Every input has a `default` in the teacher's own values: for a row whose feature is missing, unknown to the lookup table
or beyond the tensor's type. A scalar fills an input that takes n elements.
"""

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from features.spec import IdType
from runtime.frozen_model import FrozenModel
from stream.tasks import TaskKind

Scalar = int | float | str
_1970 = datetime(1970, 1, 1, tzinfo=UTC)

_FEATURE = "the target feature that feeds it, any of the [features] table"
URL_ALLOWED = "http:// or https://, a host, and a port if need be; no user name, no '?'"
KINDS = ("onnx", "server", "dump")
"""Of a teacher: the keys of which one is given."""

_DEFAULT = "its value, in the teacher's own values, for a row whose feature is missing or does not fit"


def _without_nul(path: Path) -> Path:
    if "\0" in str(path):
        raise ValueError("must be the name of a file, which has no NUL")
    return path


_Path = Annotated[Path, AfterValidator(_without_nul)]


class DefaultInput(FrozenModel):
    """A teacher input without a counterpart in the target: the same value for every row."""

    kind: Literal["default"] = "default"
    default: int | float | str | list[float] = Field(description="the value of every row, in the teacher's own values")


class FeatureInput(FrozenModel):
    """A target feature as it is, under the teacher's name."""

    kind: Literal["feature"] = "feature"
    feature: str = Field(description=_FEATURE)
    default: int | float | str | list[float] = Field(description=_DEFAULT)


class LookupInput(FrozenModel):
    """A target feature's value looked up in a table: inline, or a JSON object in a file of the project folder.

    The feature is a text or an integer; an integer's key is its decimal digits.
    """

    kind: Literal["lookup"] = "lookup"
    feature: str = Field(description=_FEATURE)
    table: dict[str, int | float | str] | None = Field(
        default=None, description="maps the feature's value to the teacher's"
    )
    file: _Path | None = Field(default=None, description="a JSON object in place of `table`, in the project folder")
    default: int | float | str = Field(description=_DEFAULT)


class BucketInput(FrozenModel):
    """A number as the code of its bucket: `codes[i]` for boundaries[i-1] <= x < boundaries[i]."""

    kind: Literal["bucket"] = "bucket"
    feature: str = Field(description=_FEATURE)
    boundaries: list[float] = Field(
        min_length=1, description="the lower ends of all buckets but the first, in rising order"
    )
    codes: list[int | float] = Field(min_length=2, description="one code a bucket: one more than boundaries")
    default: int | float = Field(description=_DEFAULT)


class LinearInput(FrozenModel):
    """`multiply * x + add` of a number, not below `minimum` and not above `maximum`.

    An integer input takes an integer feature and whole numbers only.
    """

    kind: Literal["linear"] = "linear"
    feature: str = Field(description=_FEATURE)
    multiply: float = Field(default=1.0, description="factor of the feature")
    add: float = Field(default=0.0, description="added afterwards")
    minimum: float | None = Field(default=None, description="a smaller result becomes this; none: no bound")
    maximum: float | None = Field(default=None, description="a larger result becomes this; none: no bound")
    default: float = Field(description=_DEFAULT)


class LogInput(FrozenModel):
    """`ln(x + add)` of a number; where x + add is not above 0, the default is used."""

    kind: Literal["log"] = "log"
    feature: str = Field(description=_FEATURE)
    add: float = Field(default=1.0, description="added to the feature before the logarithm")
    default: float = Field(description=_DEFAULT)


class VocabularyInput(FrozenModel):
    """The place of the feature's value in a file of the project folder that has one value a line, in UTF-8.

    The feature is a text or an integer; in the file an integer is its decimal digits.
    """

    kind: Literal["vocabulary"] = "vocabulary"
    feature: str = Field(description=_FEATURE)
    file: _Path = Field(description="one value a line, in the project folder")
    first: int = Field(default=0, ge=0, description="the code of the first line; each line has one more")
    default: int = Field(description=_DEFAULT)


class ConcatInput(FrozenModel):
    """The texts of several features, each a text or an integer, as one text."""

    kind: Literal["concat"] = "concat"
    features: list[str] = Field(min_length=2, description="the target features, in the order of their texts")
    separator: str = Field(default="_", description="stands between two texts")
    default: str = Field(description=_DEFAULT)


class HashInput(FrozenModel):
    """The bucket of a text: MurmurHash3 (32 bits, x86) of its UTF-8, modulo `buckets`, plus `first`.

    The texts of several features are joined first, as `concat` does.
    """

    kind: Literal["hash"] = "hash"
    features: list[str] = Field(min_length=1, description="the target features, each a text or an integer")
    separator: str = Field(default="_", description="stands between two texts")
    buckets: int = Field(ge=1, le=2**31, description="how many buckets there are")
    seed: int = Field(default=0, ge=0, lt=2**32, description="seed of the hash")
    first: int = Field(default=0, ge=0, description="the code of the first bucket")
    default: int = Field(description=_DEFAULT)


FedInput = FeatureInput | LookupInput | BucketInput | LinearInput | LogInput | VocabularyInput | ConcatInput | HashInput
"""An input that target features feed."""

TeacherInput = Annotated[DefaultInput | FedInput, Field(discriminator="kind")]


def features_of(given: FedInput) -> list[str]:
    """The target features that feed an input."""
    return given.features if isinstance(given, ConcatInput | HashInput) else [given.feature]


class TeacherTask(FrozenModel):
    """One output of the teacher: a logit (binary) or a value in the label's unit (regression)."""

    name: str = Field(description="its name in [[distillation]] and in tasks.teacher_reference")
    kind: TaskKind = Field(description="binary: a logit; regression: a value in the label's unit")
    output: str = Field(description="the name of the output tensor, of shape [B] or [B, 1]")


class TeacherVector(FrozenModel):
    """An output of the teacher that has several numbers a row, such as its own embedding of an item."""

    name: str = Field(description="its name in features.profiles.columns")
    output: str = Field(description="the name of the output tensor, of shape [B, n] with a fixed n")


class ServerConfig(FrozenModel):
    """In place of onnx: a model server that speaks the Open Inference Protocol v2 over HTTP.

    Its token and its certificates are settings: GRAFT_TEACHER_TOKEN_FILE, GRAFT_TEACHER_CA_FILE.
    """

    url: str = Field(
        description="the server's address: all that stands before /v2",
        json_schema_extra={"allowed": URL_ALLOWED},
    )
    model: str = Field(min_length=1, description="the model's name there")
    model_version: str | None = Field(
        default=None,
        min_length=1,
        description="the model's version there; none: the only one that the server has",
    )
    batch_rows: int = Field(default=256, ge=1, le=65_536, description="the most rows of one request")


class DumpConfig(FrozenModel):
    """In place of onnx: logits that the source's team has computed, in Parquet.

    A row that is not in the files has no logit: its example is learnt without the teacher.
    """

    path: _Path = Field(
        description="a Parquet file; or a folder into which such files are delivered: each new one is read"
    )
    model: str = Field(
        min_length=1, description="the name of the model that computed the logits; another model needs another name"
    )
    keys: dict[str, IdType] = Field(
        min_length=1,
        description="the columns that identify a row, with their types; they are the teacher's inputs",
        json_schema_extra={"allowed": 'columns, each "int" or "str"'},
    )
    max_rows: int = Field(
        default=20_000_000, ge=1, description="the most rows of all files; each takes 70 to 150 bytes of memory"
    )


def _moment(value: Any) -> datetime:
    """A time with its zone, as TOML has it or as a text."""
    moment = value
    with suppress(ValueError):
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        raise ValueError(f"must be an ISO 8601 time with its zone such as 2026-01-31T12:00:00Z, got {value!s}")
    return moment


class TeacherConfig(FrozenModel):
    """The teacher. It is used exactly as it is, never trained.

    It is one of three kinds: `onnx`, `[teacher.server]` or `[teacher.dump]`.
    """

    version: str = Field(
        pattern=r"^[A-Za-z0-9._-]{1,64}$",
        description="a name for people; another teacher, domain map, task list or feature spec needs another name",
        json_schema_extra={"allowed": "1 to 64 letters, digits, '.', '_' and '-'"},
    )
    onnx: _Path | None = Field(default=None, description="the teacher's ONNX file")
    server: ServerConfig | None = None
    dump: DumpConfig | None = None
    tasks: list[TeacherTask] = Field(min_length=1)
    vectors: list[TeacherVector] = Field(default=[])
    inputs: dict[str, TeacherInput]
    ttl_seconds: int = Field(
        default=30 * 86_400, ge=1, description="wall clock for which a cached logit is used; an older one is a miss"
    )
    refresh_seconds: float = Field(
        default=0.0,
        ge=0,
        description="wall clock for which a row keeps its logit when it is requested again; after that it is scored "
        "again. 0: it is scored at each request",
    )
    wait_seconds: float = Field(
        default=3.0,
        ge=0,
        description="wall clock for which the learner waits for logits that are not in the cache yet; 0: it does not "
        "wait",
    )
    trained_until: Annotated[datetime, BeforeValidator(_moment)] | None = Field(
        default=None,
        description="the end of the teacher's training data: an example before it may be among them, so the student "
        "learns nothing from the teacher on it",
        json_schema_extra={"allowed": "a time with its zone such as `2026-01-31T12:00:00Z`, not in the future"},
    )
    use_before_trained_until: bool = False
    """For a study, which compares learning with and without those logits."""

    @property
    def logits_from_ms(self) -> int:
        """The event time (ms since 1970) of the first example that may have a logit; 0: all may."""
        if self.trained_until is None or self.use_before_trained_until:
            return 0
        return max(0, -((_1970 - self.trained_until) // timedelta(milliseconds=1)))

    def place(self, folder: Path) -> str:
        """Where the teacher is, for people: a file or a folder, or the model of a server."""
        if self.server is not None:
            return f"{self.server.url}, model {self.server.model}"
        path = self.dump.path if self.dump is not None else self.onnx
        return str(folder / (path or ""))

    @property
    def kind_faults(self) -> list[str]:
        """The fault of a teacher that is not of exactly one kind, with its key; else nothing."""
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(given) == 1:
            return []
        rule = "must have one of onnx, [teacher.server] and [teacher.dump]"
        return [f"teacher: {rule}, got {' and '.join(given) or 'none'}"]
