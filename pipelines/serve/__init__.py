"""One long-running process in the place of cron: a schedule, webhooks, health and metrics."""
