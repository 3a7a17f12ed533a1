"""How a picture becomes part of an asset's page."""

from base64 import b64encode

import dagster as dg


def png(picture: bytes, words: str) -> dg.MarkdownMetadataValue:
    """A PNG as metadata that the UI shows in place, with words for those who cannot see it."""
    return dg.MetadataValue.md(f"![{words}](data:image/png;base64,{b64encode(picture).decode()})")
