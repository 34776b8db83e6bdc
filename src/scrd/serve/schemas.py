"""What goes over the line, as JSON."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Strict(BaseModel):
    """A body in which nothing is unknown."""

    model_config = ConfigDict(extra="forbid")


class Mark(BaseModel):
    """What a person said of a result."""

    verdict: Literal["right", "wrong"]
    comment: str


class MarkBody(Strict):
    """A mark to be put."""

    verdict: Literal["right", "wrong"] = Field(description="Whether the software was right.")
    comment: str = Field("", max_length=2000)


class Row(BaseModel):
    """A result in short: one picture, or one series of a study."""

    id: str
    job: str
    model: str
    fingerprint: str = Field(description="SHA-256 of the saved model.")
    name: str = Field(description="What the client called the file, or the files together.")
    kind: str = Field(description="picture, a DICOM modality, NIfTI, or file: not readable.")
    created: float = Field(description="Seconds since 1970.")
    score: float | None = Field(description="Larger is more anomalous; null where refused.")
    p_value: float | None = Field(
        description="A normal image has one this small or smaller with at most this probability."
    )
    flag: bool | None = Field(description="The p-value is at most the chosen false-alarm rate.")
    refusal: str | None = Field(description="Why there is no score.")
    doubts: int = Field(description="How many things speak against its being of the known kind.")
    images: int
    mark: Mark | None


class Verdict(BaseModel):
    """The answer for a series or study."""

    score: float
    p_value: float
    flag: bool
    images: int
    how: str = Field(description="calibrated, or bonferroni: valid, but blunt.")


class Image(BaseModel):
    """What came of one image."""

    file: int = Field(description="Number of its file among those of the job.")
    frame: int | None = Field(description="In its file, from 0.")
    score: float | None = None
    p_value: float | None = None
    flag: bool | None = None
    refusal: str | None = None
    doubts: list[str] = []
    statistics: dict[str, float] = Field({}, description="The score under every pooling.")
    scale_weights: list[float] = []
    size: list[int] = Field([], description="Height and width in pixels.")


class Series(BaseModel):
    """The series that a result is."""

    uid: str | None = Field(description="Series Instance UID.")
    problems: list[str]
    format: str
    volume: bool = Field(description="Its slices are evenly spaced: there is a map as NIfTI.")
    verdict: Verdict | None


class Study(BaseModel):
    """The study that it belongs to."""

    uid: str | None = Field(description="Study Instance UID.")
    verdict: Verdict | None


class Result(Row):
    """A result with all that is known of it."""

    shadow: bool = Field(description="Of a model on trial: no verdict.")
    counterpart: str | None = Field(description="The same images by the model on trial.")
    per_image: list[Image]
    series: Series | None
    study: Study | None


class Page(BaseModel):
    """Some of the results that were asked for."""

    total: int
    offset: int
    results: list[Row]


class Search(Strict):
    """Which results, in which order."""

    flag: bool | None = None
    refused: bool | None = None
    doubted: bool | None = None
    model: str | None = None
    job: str | None = None
    marked: Literal["right", "wrong", "any", "none"] | None = None
    since: float | None = None
    name: str | None = Field(None, max_length=200, description="A part of the name.")
    sort: Literal["newest", "oldest", "score", "p_value", "name", "doubts"] = "newest"
    offset: int = Field(0, ge=0, le=10_000_000)
    limit: int = Field(100, ge=1, le=1000)


class Job(BaseModel):
    """Images that were sent together."""

    id: str
    status: Literal["queued", "scoring", "done", "failed"]
    created: float
    ended: float | None
    model: str | None
    files: int
    images_done: int
    images: int
    reason: str = Field(description="Why it failed.")
    notes: list[str]
    results: list[Row] = []


class VersionOut(BaseModel):
    """One version of a model."""

    name: str
    fingerprint: str
    folder: str = Field(description="Name of the folder that it lies in.")
    role: Literal["active", "shadow", "standby"]
    loaded: bool
    silence: str | None = Field(description="Why it can flag nothing.")


class LoadBody(Strict):
    """A version to be loaded."""

    folder: str = Field(max_length=64, description="Plain name of a folder beside the model's.")


class RoleBody(Strict):
    """What a version shall do."""

    role: Literal["active", "shadow", "standby"]


class TokenBody(Strict):
    """To sign in on the page."""

    token: str = Field(max_length=200)


class Session(BaseModel):
    """Who is signed in."""

    name: str
    role: Literal["read", "write", "manage"]
    csrf: str
    tokens: bool = Field(description="Whether there are tokens at all.")


class Failed(BaseModel):
    """A job that failed."""

    id: str
    ended: float | None
    files: int
    reason: str


class Drift(BaseModel):
    """Whether what a model was sent has drifted."""

    name: str = Field(description="Of the model.")
    fingerprint: str = Field(description="Of the version that answers.")
    at: float = Field(description="When that was found, seconds since 1970.")
    since: float | None = Field(description="When the first result of the stream came.")
    line: str = Field(description="All in a line.")
    alarm: int = Field(description="The highest level that the wealth has passed, or 0.")
    alarms: list[str] = Field(description="A sentence each.")
    found: dict[str, Any] | None = Field(
        description="What `scrd monitor` writes, without paths; an alarm names its result."
    )


class Watch(BaseModel):
    """How a `scrd watch` is."""

    state: str = Field(description="Its state file.")
    problem: str = Field(description="Why nothing is known of it; empty where something is.")
    line: str = Field(description="Its drift in a line.")
    alarms: list[str] = Field(description="Of drift, a sentence each.")
    found: dict[str, Any] | None = Field(description="What `scrd status --json` says of today.")


class State(BaseModel):
    """How the service does."""

    ready: bool
    reasons: list[str]
    version: str
    started: float
    queued: int
    today: dict[str, int]
    refusals: list[tuple[str, int]]
    failed: list[Failed] = Field(description="Jobs that failed today.")
    p_values: list[int] = Field(description="How many of the last 1,000 lie in each tenth of 0..1.")
    models: list[VersionOut]
    limits: dict[str, float]
