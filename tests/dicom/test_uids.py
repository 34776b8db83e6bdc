import hashlib
import uuid

from scrd.dicom.uids import derived_uid, tag


def test_a_uid_is_a_valid_one_and_repeats():
    uid = derived_uid("seg", "1.2.3", "ab" * 32)
    assert uid == derived_uid("seg", "1.2.3", "ab" * 32)
    root, number = uid.rsplit(".", 1)
    assert root == "2.25"
    assert uuid.UUID(int=int(number)).version == 5
    assert len(uid) <= 64 and str(int(number)) == number


def test_every_argument_counts_and_none_runs_into_the_next():
    uids = {
        derived_uid(*parts)
        for parts in (
            ("seg", "1.2.3", "ab"),
            ("sc", "1.2.3", "ab"),
            ("seg", "1.2.4", "ab"),
            ("seg", "1.2.3", "ac"),
            ("seg", "1.2.3", "ab", "1"),
            ("seg", "1.2.3a", "b"),
            ("seg1", ".2.3", "ab"),
        )
    }
    assert len(uids) == 7


def test_a_uid_never_changes_between_versions():
    # archives hold objects under it: a change would pile up results instead of replacing them
    assert derived_uid("seg", "1.2.3", "ab") == "2.25.277116400472060738747906170575190909881"


def test_tag():
    assert tag("1.2.3") == hashlib.sha256(b"1.2.3").hexdigest()[:12]
