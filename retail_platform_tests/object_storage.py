"""An S3-compatible storage that the tests start for themselves: moto's server, in a process of its own, on loopback."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from pydantic import SecretStr

from retail_platform.settings import LakeSettings, Settings

BUCKET = "lakes"
SECRET = "s3cret+key/tests"  # noqa: S105

_SERVE = """
import sys
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

server = make_server("127.0.0.1", 0, DomainDispatcherApplication(create_backend_app), threaded=True)
print(server.port, flush=True)
server.serve_forever()
"""


@dataclass(frozen=True)
class ObjectStorage:
    """A running server with one bucket."""

    endpoint: str

    def settings(self, settings: Settings, **lake: Any) -> Settings:
        """The same settings with their data files under a prefix of their own."""
        place = {"data": f"s3://{BUCKET}/{uuid4().hex}", "s3_endpoint": self.endpoint, "s3_url_style": "path"}
        return settings.model_copy(
            update={
                "lake": LakeSettings.model_validate({**settings.lake.model_dump(), **place, **lake}),
                "s3_access_key": SecretStr("tests"),
                "s3_secret_key": SecretStr(SECRET),
            }
        )


@contextmanager
def running_object_storage() -> Iterator[ObjectStorage]:
    from pyarrow import fs

    server = subprocess.Popen(
        [sys.executable, "-c", _SERVE], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        client = fs.S3FileSystem(
            access_key="tests",
            secret_key=SECRET,
            region="us-east-1",
            endpoint_override=f"127.0.0.1:{port}",
            scheme="http",
            allow_bucket_creation=True,
        )
        client.create_dir(BUCKET)
        yield ObjectStorage(f"http://127.0.0.1:{port}")
    finally:
        server.terminate()
        server.wait()
