"""The key of the customer pseudonyms: from the settings, else from a file that only its owner may read."""

import os
import secrets
from pathlib import Path
from tempfile import mkstemp

from retail_platform.settings import Settings


def customer_key(settings: Settings) -> bytes:
    """The key, 32 random bytes where it had to be made.

    It lies beside the lake and never in it: whoever has the lake alone cannot turn a pseudonym back by trial.
    Raises `PermissionError` where the key file may be read by others, with the remedy.
    """
    if settings.customer_key is not None:
        return settings.customer_key.get_secret_value().encode()
    file = settings.home / "customer.key"
    if not file.exists():
        _create(file)
    if file.stat().st_mode & 0o077:
        raise PermissionError(f"{file} can be read by others than its owner; run: chmod 600 {file}")
    return file.read_bytes()


def _create(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    # For its owner alone from the start, and under a name that no killed process can have left behind.
    descriptor, name = mkstemp(prefix=".customer.key.", dir=file.parent)
    draft = Path(name)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(secrets.token_bytes(32))
        stream.flush()
        os.fsync(stream.fileno())
    try:
        # A hard link fails where another process was quicker; its key is then the one in use.
        os.link(draft, file)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
