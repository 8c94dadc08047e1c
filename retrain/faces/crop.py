"""A face with its margin, cut out of the picture: the same for training and for labelling."""

import io

from PIL import Image

from retrain.faces.detect import Box

# Of the box's width on the left and on the right, of its height above and below: the boxes of the detector end at brow and
# chin, and hair and outline of a head tell people apart, too. Models learn from what was cut with it: change it never.
MARGIN = 0.3


def with_margin(box: Box, width: int, height: int) -> Box:
    """Return a box grown by MARGIN on every side, as far as a picture of that size goes."""
    across, down = round(box.width * MARGIN), round(box.height * MARGIN)
    return Box(
        max(box.left - across, 0), max(box.top - down, 0), min(box.right + across, width), min(box.bottom + down, height)
    )


def cut(image: Image.Image, box: Box) -> bytes:
    """Return the face in `box` and its margin as the bytes of a PNG: the pixels as they are, none resampled.

    What is labelled is the very file that `retrain faces` writes, so that a model sees the same in both.
    """
    buffer = io.BytesIO()
    # Quick rather than small: most are looked at once and never written.
    image.crop(with_margin(box, *image.size)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
