"""Every bound on what files of images may cost: each number once; `docs/data.md` lists
them. A file beyond one of them is bad, by name; nothing here is a setting."""

MAX_FILE_BYTES = 1 << 30
"""Size of a file that is still read."""

MAX_PIXELS = 89_478_485
"""Width times height that is still decoded: the level at which Pillow begins to warn
of a decompression bomb."""

MAX_DECODED_BYTES = 1 << 28
"""Bytes of the decoded pixels: `MAX_PIXELS` at 3 bytes each. What has 16 bits or floats
in a channel may have fewer pixels."""

MAX_SCANS = 100
"""Scans of a JPEG: each is a pass over all pixels, and cameras write about ten."""

MAX_SCANNED_PIXELS = 16 * MAX_PIXELS
"""Scans of a JPEG times its pixels."""

MAX_PLAIN_BYTES = 8 << 20
"""Size of a PPM whose numbers stand as text, which Pillow reads slowly."""

CODEC_BYTES = {"WEBP": 16, "AVIF": 14, "HEIF": 14}
"""Bytes a pixel while it is decoded, of formats that hold an image several times."""

MAX_CODEC_BYTES = 3 << 28
"""Of all pixels in such a format."""

HEAD_BYTES = 64
"""What is read of a file to learn whether it is an image."""

MAX_DEPTH = 64
"""Folders within folders that are searched."""

MAX_CSV_BYTES = 1 << 28
"""Size of a CSV of labels, splits or corrections."""

MAX_COMPARED = 50_000
"""Images that are compared with each other for near-identical ones."""

MAX_UPLOAD_BYTES = 1 << 26
"""Size of a file that a browser may send; it is held in memory."""
