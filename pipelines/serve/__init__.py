"""One long-running process instead of cron: a schedule, webhooks, health and metrics."""
