#!/bin/sh
# Makes the virtual environment: make-venv.sh PYTHON FOLDER
# Debian and Ubuntu ship python3 without ensurepip, and slim images without OpenMP, which LightGBM needs. Both are
# installed where this user may install packages; elsewhere the command to run is named.
set -eu
python=$1
venv=$2

need() {
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
    else
        echo "missing: $*. Install it first, on Debian and Ubuntu: sudo apt-get install $*" >&2
        exit 1
    fi
}

if ! command -v "$python" >/dev/null 2>&1; then
    need python3
fi
if ! "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))'; then
    echo "$python is $("$python" --version); Python 3.11, 3.12 or 3.13 is needed: make PYTHON=python3.12 ..." >&2
    exit 1
fi
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
"$python" -c 'import ensurepip' 2>/dev/null || need "python$version-venv"

if [ ! -x "$venv/bin/python" ]; then
    echo "creating $venv"
    "$python" -m venv "$venv"
fi
echo "installing the locked packages into $venv"
pip() {
    # Without --no-compile pip would spend a minute on byte code that is mostly never run.
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile --no-deps "$@"
}
# uv needs seconds where pip needs a minute. Where it is not to be had, or fails, pip is the way.
sed -n '/^uv==/,/[^\\]$/p' requirements.lock >"$venv/uv.lock"
sed '/^uv==/,/[^\\]$/d' requirements.lock >"$venv/all.lock"
index=${PIP_INDEX_URL:-$("$venv/bin/python" -m pip config get global.index-url 2>/dev/null || true)}
[ -z "$index" ] || export UV_DEFAULT_INDEX="$index"
uv() {
    "$venv/bin/uv" pip install --quiet --python "$venv/bin/python" --no-deps "$@"
}
if ! { pip --only-binary uv --require-hashes -r "$venv/uv.lock" &&
    uv --require-hashes -r "$venv/all.lock" && uv --no-build-isolation --editable .; }; then
    echo "not with uv, then with pip (a minute or two)"
    pip --require-hashes -r "$venv/all.lock"
    pip --no-build-isolation --editable .
fi
# Its library alone: to import all of LightGBM takes seconds as long as nothing is compiled.
loads_lightgbm() {
    "$venv/bin/python" - <<'END'
import ctypes
from importlib.util import find_spec
from pathlib import Path

(library,) = Path(find_spec("lightgbm").origin).parent.glob("lib/lib_lightgbm.*")
ctypes.CDLL(str(library))
END
}
loads_lightgbm 2>/dev/null || need libgomp1
loads_lightgbm
# Byte code of what nearly every process imports. Several start side by side, and each would compile all of it anew,
# ten seconds' worth; everything would take a minute, most of it for modules that are never run.
"$venv/bin/python" - <<'END'
import compileall
import re
import sysconfig

PACKAGES = """alembic dagster dagster_graphql dagster_shared dagster_webserver evidently graphene graphql hypothesis
_pytest litestar matplotlib nltk numpy pandas pandera playwright plotly/io polars psycopg pydantic scipy sklearn
sqlalchemy statsmodels"""
for package in PACKAGES.split():
    folder = f"{sysconfig.get_path('purelib')}/{package}"
    compileall.compile_dir(folder, quiet=2, workers=0, rx=re.compile("/tests?/"))
END
