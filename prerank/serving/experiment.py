"""An experiment: which users get which model. Dealing is a function of names alone, so that every server deals alike, for ever.

    experiment = read("experiment.yaml")
    experiment.arm_of(42)                    "cs3"

    place = blake2b(name, 0, salt, 0, unit) of 8 bytes, as a big-endian number: its upper 53 bits / 2^53             in [0, 1)

`unit` is the user's id as text (7 and "7" are one user), or the request's id where there is no user. Names and salt are UTF-8, with a zero
byte between them. The arms lie beside each other on [0, 1) in the order of the file, each as long as its share. Another name or salt deals
anew and independently; shares that are changed move the users at the borders alone.
"""

from __future__ import annotations

from hashlib import blake2b
from itertools import accumulate
from pathlib import Path

from pydantic import Field, model_validator

from prerank.config import checked
from prerank.config.file import read as read_yaml
from prerank.config.strict import Strict

_BITS = 53  # of a float's mantissa: no share is rounded up to 1


class Contender(Strict):
    """A model that answers, or is asked without being heard."""

    name: str = Field(min_length=1, max_length=100, description="what answers, logs and metrics call it")
    folder: Path = Field(description="of its generations, which it follows")
    source: str | None = Field(None, description="url that its generations come from; default: they are written into the folder")


class Arm(Contender):
    """One that answers."""

    share: float = Field(gt=0, le=1, description="of the users")


class Experiment(Strict):
    """See the module's first lines; what `prerank serve --experiment` reads."""

    name: str = Field(min_length=1, max_length=100, description="of the experiment: users are dealt by it")
    salt: str = Field("", description="another one deals all users anew")
    arms: tuple[Arm, ...] = Field(min_length=1, description="their shares sum to 1")
    shadow: tuple[Contender, ...] = Field((), description="score the same requests after the answer; only the log hears of them")
    allow_forced: bool = Field(False, description="a request may name its arm: for testing")

    @model_validator(mode="after")
    def _fits(self) -> Experiment:
        names = [one.name for one in (*self.arms, *self.shadow)]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"arms: names must differ; '{name}' comes {names.count(name)} times")
        total = sum(arm.share for arm in self.arms)
        if abs(total - 1) > 1e-6:
            raise ValueError(f"arms: shares must sum to 1; they sum to {total:g}")
        return self

    def arm_of(self, unit: int | str) -> str:
        """The arm of a user's (or request's) id.

        >>> two = [{"name": "a", "folder": "a", "share": 0.5}, {"name": "b", "folder": "b", "share": 0.5}]
        >>> [Experiment(name="first", arms=two).arm_of(user) for user in range(8)]
        ['b', 'b', 'a', 'b', 'b', 'a', 'a', 'a']
        """
        at = dealt(self.name, self.salt, unit)
        for end, arm in zip(accumulate(arm.share for arm in self.arms), self.arms, strict=True):
            if at < end:
                return arm.name
        return self.arms[-1].name  # shares that sum to a little less than 1


def dealt(name: str, salt: str, unit: int | str) -> float:
    """Where a unit lies in [0, 1).

    >>> dealt("first", "", 42), dealt("first", "", 42) == dealt("first", "", "42")
    (0.27930993887516165, True)
    """
    digest = blake2b(f"{name}\0{salt}\0{unit}".encode(), digest_size=8).digest()
    return float((int.from_bytes(digest, "big") >> (64 - _BITS)) / (1 << _BITS))


def read(path: str | Path) -> Experiment:
    """A YAML file. Raises ConfigError naming every problem at once."""
    return checked(Experiment, read_yaml(path), str(path))
