"""The alert rules as an object of the Prometheus operator. `make monitoring` writes it to prometheus-rule.yaml.

In: alerts.yaml beside this file. Out: the same text, comments and all, below `spec` of a PrometheusRule.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Final

RULES: Final = Path(__file__).with_name("alerts.yaml")
FILE: Final = Path(__file__).with_name("prometheus-rule.yaml")
HEAD: Final = """\
# Written by `make monitoring` from alerts.yaml: change that.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: mcp-sidecar
  labels:
    app.kubernetes.io/name: mcp-sidecar
    # Add here what `ruleSelector` of your Prometheus asks for; often `release: <its Helm release>`.
spec:
"""


def text() -> str:
    """What stands in prometheus-rule.yaml. IO: reads alerts.yaml."""
    return HEAD + textwrap.indent(RULES.read_text(encoding="utf-8"), "  ")


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
