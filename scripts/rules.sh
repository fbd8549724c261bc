#!/usr/bin/env bash
# Checks the alert rules, runs their unit tests, and checks the example of a
# configuration, with promtool of Debian's package prometheus.
set -euo pipefail
cd "$(dirname "$0")/../deploy/observability"

promtool check rules rules.yaml
promtool test rules rules_test.yaml
promtool check config prometheus.yml
