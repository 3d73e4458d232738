#!/usr/bin/env bash
# Build and measure. What may publish is not at hand yet: a recipe's code and data come from others.
set -euo pipefail
# shellcheck source=lib.sh
source "$GITHUB_ACTION_PATH/lib.sh"

use_token
options=(--output "$FOLDER")
[[ -z "$INPUT_REQUIRE_FIDELITY" ]] || options+=(--require-fidelity "$INPUT_REQUIRE_FIDELITY")
[[ "$INPUT_ALLOW_MISFIT" != true ]] || options+=(--allow-misfit)
# What misses the requirement is kept for the report; it is refused when it is to be published.
annotated hubsplice build "$INPUT_RECIPE" "${options[@]}" --allow-failed
