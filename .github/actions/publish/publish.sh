#!/usr/bin/env bash
# One commit and one tag on the Hub.
set -euo pipefail
# shellcheck source=lib.sh
source "$GITHUB_ACTION_PATH/lib.sh"

use_publisher
publication
annotated hubsplice publish "$FOLDER" "${OPTIONS[@]}" >"$STATE/result.json"
