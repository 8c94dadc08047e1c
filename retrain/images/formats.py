"""Tell the format of a picture by its first bytes: it must be on a short list."""

from retrain.errors import BadImage

FORMATS = {  # Pillow's name -> (extension of a copy, the Pillow module that reads it)
    "JPEG": ("jpg", "JpegImagePlugin"),
    "PNG": ("png", "PngImagePlugin"),
    "GIF": ("gif", "GifImagePlugin"),
    "WEBP": ("webp", "WebPImagePlugin"),
    "BMP": ("bmp", "BmpImagePlugin"),
    "TIFF": ("tif", "TiffImagePlugin"),
    "AVIF": ("avif", "AvifImagePlugin"),
}
_SIGNATURES = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
)
_UNSUPPORTED = (
    (b"%!PS", "EPS"),
    (b"\xc5\xd0\xd3\xc6", "EPS"),
    (b"%PDF", "PDF"),
    (b"8BPS", "PSD"),
    (b"SIMPLE  =", "FITS"),
    (b"\0\0\1\0", "ICO"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\x89HDF", "HDF5"),
    (b"GRIB", "GRIB"),
    (b"PK\3\4", "ZIP"),
    (b"\x1f\x8b", "gzip"),
)
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")


def sniff(data: bytes) -> str:
    """Return the key of FORMATS that the first bytes belong to.

    Raises BadImage: empty, unsupported-format (naming it), not-an-image.
    """
    if not data:
        raise BadImage("empty")
    for signature, name in _SIGNATURES:
        if data.startswith(signature):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp":
        brands = data[8 : max(16, min(int.from_bytes(data[:4], "big"), 256))]
        if b"avif" in brands or b"avis" in brands:
            return "AVIF"
        if any(brand in brands for brand in _HEIF_BRANDS):
            raise BadImage("unsupported-format", "HEIC; convert it to JPEG")
    for signature, name in _UNSUPPORTED:
        if data.startswith(signature):
            raise BadImage("unsupported-format", name)
    text = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        raise BadImage("not-an-image", "an HTML page")
    if b"<svg" in text:
        raise BadImage("unsupported-format", "SVG")
    raise BadImage("not-an-image")
