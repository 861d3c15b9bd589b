#!/usr/bin/env bash
# Fetch the two libraries that the report bundles into sft_dist/reporting/vendor.
#
# Usage:    launch/vendor.sh
# Needs npm and its registry; the result is committed.
#
# Only what the page uses is kept: minified scripts, styles, woff2 fonts, licences. To move to other
# versions change them here, run the script, then the tests in tests/reporting.
set -euo pipefail

UPLOT_VERSION=1.6.32 # plots: 51 kB, draws 10,000 points in milliseconds
KATEX_VERSION=0.19.1 # mathematics: synchronous, and draws what it cannot read as its source

target="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/sft_dist/reporting/vendor"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

# Unpack package $1 at version $2 into $work/$1.
unpack() {
  local archive
  archive="$(cd "$work" && npm pack --silent "$1@$2")"
  mkdir -p "$work/$1"
  tar -xzf "$work/$archive" -C "$work/$1" --strip-components 1
}

unpack uplot "$UPLOT_VERSION"
unpack katex "$KATEX_VERSION"

rm -rf "${target:?}"/*
mkdir -p "$target/uplot" "$target/katex/fonts"
cp "$work"/uplot/{LICENSE,dist/uPlot.iife.min.js,dist/uPlot.min.css} "$target/uplot/"
cp "$work"/katex/{LICENSE,dist/katex.min.js,dist/katex.min.css} "$target/katex/"
cp "$work"/katex/dist/contrib/auto-render.min.js "$target/katex/"
cp "$work"/katex/dist/fonts/*.woff2 "$target/katex/fonts/"

{
  echo "# Made by launch/vendor.sh: package versions, then SHA-256 of every file."
  echo "# uplot $UPLOT_VERSION (MIT)"
  echo "# katex $KATEX_VERSION (MIT; its fonts: SIL Open Font License 1.1)"
  (cd "$target" && find uplot katex -type f | LC_ALL=C sort | xargs sha256sum)
} >"$target/VERSIONS"
