import pytest

from scrd.data.marks import box_mask


def test_box_mask_takes_edges():
    mask = box_mask((6, 8), 2, 1, 5, 3)
    assert mask.shape == (6, 8)
    assert mask.sum() == 3 * 2
    assert mask[1:3, 2:5].all()
    # a pixel belongs to the box when its centre does
    assert box_mask((6, 8), 2.4, 1.6, 4.6, 3.0).nonzero()[1].tolist() == [2, 3, 4]
    assert box_mask((6, 8), 2.4, 1.6, 4.6, 3.0).nonzero()[0].tolist() == [2, 2, 2]
    assert box_mask((6, 8), -5, -5, 100, 100).all()


@pytest.mark.parametrize("box", [(9, 0, 12, 3), (3, 2, 3, 4), (5, 1, 2, 3), (-4, 0, -1, 3)])
def test_box_without_pixels_is_refused(box):
    with pytest.raises(ValueError, match="holds no pixel of an image 8 wide and 6 high"):
        box_mask((6, 8), *box)
