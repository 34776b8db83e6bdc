"""Identifiers of what is written: the same input and model give the same ones."""

from __future__ import annotations

import hashlib
import uuid

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_OID, "scrd")


def derived_uid(kind: str, source_uid: str, model_hash: str, part: str = "") -> str:
    """The UID of something made of a source object by a model.

    It is a UUID of version 5 (RFC 4122) of the arguments below the root 2.25 (PS3.5, B.2), so
    that an archive replaces the result of an earlier run instead of keeping both.

    Args:
        kind: What it names, such as "seg" or "seg series".
        source_uid: SOP Instance, Series Instance or Study Instance UID that it is made of.
        model_hash: `Detector.fingerprint`.
        part: Tells several of a kind from one source apart.

    Returns:
        A UID of at most 44 characters.
    """
    name = "\n".join((kind, source_uid, model_hash, part))
    return f"2.25.{uuid.uuid5(_NAMESPACE, name).int}"


def tag(uid: str) -> str:
    """What stands for a UID in log lines and file names: 12 hex digits of its SHA-256."""
    return hashlib.sha256(uid.encode(errors="surrogateescape")).hexdigest()[:12]
