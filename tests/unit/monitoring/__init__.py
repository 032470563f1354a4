"""What operators get beside the metrics: the dashboard, the alert rules and their runbook fit the product."""
