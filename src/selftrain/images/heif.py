"""HEIC, as phones take pictures: Pillow reads it with the plugin pillow-heif, the extra ``selftrain[heif]``."""

HEIF = "HEIF"
"""As Pillow calls the format when the plugin is registered; before, it knows no such name."""
BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
"""What a HEIF file calls itself; AVIF, which Pillow reads, has brands of its own."""
MISSING = "a HEIC image; `pip install 'selftrain[heif]'` reads those, or convert it to JPEG"


def is_heif(data: bytes) -> bool:
    """Whether a file says that it is HEIF and not AVIF."""
    return data[4:8] == b"ftyp" and data[8:12] in BRANDS and b"avif" not in data[16:40]


def teach_pillow() -> bool:
    """Register the plugin; False if it is not installed."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener(thumbnails=False)
    return True
