"""Find pictures and decode one: the only decoder, shared by train, label, classify and everything that comes later.

The format is taken from the content, never from the file name, and must be on a short list (`FORMATS`): most security
advisories of image libraries concern formats that nobody trains on. Rules, part of every cache key by way of
`DECODER`: the first frame of an animation; EXIF orientation applied; alpha composited on white; 16 bits scaled to 8;
at most 64 megapixels; large JPEGs decoded at a fraction of their size where that is all the caller needs.
"""

from retrain.images.decode import DECODER, MAX_PIXELS, Picture, decode
from retrain.images.files import MAX_BYTES, OUT_OF_MEMORY, Found, find, is_ignored, leads_back, read_bytes
from retrain.images.formats import FORMATS, sniff

__all__ = [
    "DECODER", "FORMATS", "MAX_BYTES", "MAX_PIXELS", "OUT_OF_MEMORY", "Found", "Picture", "decode", "find", "is_ignored",
    "leads_back", "read_bytes", "sniff",
]  # fmt: skip
