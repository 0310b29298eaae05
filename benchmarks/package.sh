#!/bin/sh
# The wheel works where nothing else is: benchmarks/package.sh [PYTHON]
# Builds it from a copy, installs it into an empty environment and runs the smoke grid from an empty folder.
# Two to five minutes, most of them PyTorch's installation; needs a package index and 8 GB below $TMPDIR.
set -eu
python=${1:-python3}
project=$(cd "$(dirname "$0")/.." && pwd)
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT

mkdir "$room/source" "$room/elsewhere"
cp -R "$project/pyproject.toml" "$project/README.md" "$project/analysis" "$project/dashboard" "$project/models" \
  "$project/sweep" "$room/source"
"$python" -m venv "$room/environment"
"$room/environment/bin/python" -m pip wheel --quiet --no-deps --wheel-dir "$room" "$room/source"
"$room/environment/bin/python" -m pip install --quiet "$room"/*.whl

cd "$room/elsewhere"
unset PYTHONPATH
export PATH="$room/environment/bin:$PATH" SWEEP_CACHE="$room/cache"
sweep list grids
sweep launch smoke --set recipe=tiny
sweep status smoke --json | grep '"finished": 6'
sweep report smoke -o report.html --export tables
test -s report.html
echo "the wheel works: $(basename "$room"/*.whl)"
