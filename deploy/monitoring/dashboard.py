"""What operators look at: the Grafana dashboard, as code. `make monitoring` writes it to dashboard.json beside it.

In: `rows.py`. Out: a dashboard in Grafana's classic JSON model, which Grafana 9 and later read, newer ones included.
Plain Python and no library, so that whoever changes a panel reads two files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from .rows import POD, ROWS, Panel

FILE: Final = Path(__file__).with_name("dashboard.json")
COLUMNS: Final = 24
"""Of Grafana's grid."""


def _source() -> dict[str, str]:
    return {"type": "prometheus", "uid": "${datasource}"}


def _panel(panel: Panel, id: int, at: Mapping[str, int]) -> dict[str, Any]:
    steps = [{"color": "green", "value": None}, *({"color": c, "value": v} for v, c in panel.steps)]
    defaults: dict[str, Any] = {
        "unit": panel.unit,
        "min": 0,
        "color": {"mode": "thresholds" if panel.kind == "stat" else "palette-classic"},
        "thresholds": {"mode": "absolute", "steps": steps},
        "mappings": [
            {
                "type": "value",
                "options": {
                    str(value): {"text": text, "color": colour, "index": index}
                    for index, (value, (text, colour)) in enumerate(panel.words.items())
                },
            }
        ]
        if panel.words
        else [],
    }
    if panel.highest is not None:
        defaults["max"] = panel.highest
    if panel.kind == "stat":
        options: dict[str, Any] = {
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "colorMode": "value",
            "graphMode": "none" if panel.words else "area",
            "textMode": "value",
            "justifyMode": "auto",
            "orientation": "auto",
        }
    else:
        defaults["custom"] = {
            "drawStyle": "line",
            "lineWidth": 1,
            "fillOpacity": 30 if panel.is_stacked else 5,
            "showPoints": "never",
            "spanNulls": False,
            "stacking": {"mode": "normal" if panel.is_stacked else "none", "group": "A"},
        }
        options = {
            "legend": {
                "displayMode": "table",
                "placement": "bottom",
                "showLegend": True,
                "calcs": ["lastNotNull", "max"],
            },
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    return {
        "id": id,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": _source(),
        "gridPos": dict(at),
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": _source(),
                "expr": expression,
                "legendFormat": legend,
                "range": True,
                "instant": False,
            }
            for index, (expression, legend) in enumerate(panel.lines)
        ],
        "fieldConfig": {
            "defaults": defaults,
            "overrides": [
                {
                    "matcher": {"id": "byName", "options": name},
                    "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": colour}}],
                }
                for name, colour in panel.colours.items()
            ],
        },
        "options": options,
    }


def _panels() -> list[dict[str, Any]]:
    """Rows and what is in them, from left to right and from top to bottom."""
    panels: list[dict[str, Any]] = []
    y = 0
    for row in ROWS:
        panels.append(
            {
                "id": len(panels) + 1,
                "type": "row",
                "title": row.title,
                "collapsed": False,
                "gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": 1},
                "panels": [],
            }
        )
        x, y = 0, y + 1
        for panel in row.panels:
            if x + panel.width > COLUMNS:
                x, y = 0, y + row.height
            at = {"x": x, "y": y, "w": panel.width, "h": row.height}
            panels.append(_panel(panel, len(panels) + 1, at))
            x += panel.width
        y += row.height
    return panels


def _variable(name: str, label: str, query: str) -> dict[str, Any]:
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": _source(),
        "query": {"query": query, "refId": name},
        "definition": query,
        "refresh": 2,  # whenever the time range changes: pods come and go
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",  # also where the label is not there
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "regex": "",
        "hide": 0,
        "options": [],
    }


def _variables() -> list[dict[str, Any]]:
    of_job = 'job=~"$job"'
    of_space = f'{of_job},namespace=~"$namespace"'
    datasource = {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "refresh": 1,
        "regex": "",
        "hide": 0,
        "multi": False,
        "includeAll": False,
        "current": {},
        "options": [],
    }
    return [
        datasource,
        _variable("job", "Job", "label_values(config_last_reload_successful, job)"),
        _variable(
            "namespace", "Namespace", f"label_values(config_last_reload_successful{{{of_job}}}, namespace)"
        ),
        _variable("pod", "Pod", f"label_values(config_last_reload_successful{{{of_space}}}, pod)"),
        _variable("tool", "Tool", f"label_values(tool_calls_total{{{POD}}}, tool)"),
        _variable("tenant", "Tenant", f"label_values(tool_calls_total{{{POD}}}, tenant)"),
    ]


def dashboard() -> dict[str, Any]:
    """The whole of it, as Grafana imports it."""
    return {
        "uid": "mcp-sidecar",
        "title": "mcp-sidecar",
        "description": "What goes through the sidecars that stand beside MCP servers. Each panel says what to do.",
        "tags": ["mcp", "mcp-sidecar"],
        "schemaVersion": 37,  # of Grafana 9; newer ones migrate it when it is loaded
        "version": 1,
        "editable": True,
        "graphTooltip": 1,  # one moment on all panels
        "time": {"from": "now-6h", "to": "now"},
        "refresh": "30s",
        "timezone": "browser",
        "templating": {"list": _variables()},
        "annotations": {
            "list": [
                {
                    "name": "Alerts",
                    "datasource": _source(),
                    "enable": True,
                    "iconColor": "red",
                    "expr": 'ALERTS{alertname=~"McpSidecar.+",alertstate="firing",job=~"$job"}',
                    "titleFormat": "{{alertname}}",
                    "textFormat": "{{tool}} {{tenant}} {{pod}}",
                    "step": "60s",
                }
            ]
        },
        "links": [],
        "panels": _panels(),
    }


def text() -> str:
    """What stands in dashboard.json."""
    return json.dumps(dashboard(), indent=1) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
