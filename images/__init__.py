"""HOW an image is planned, built, verified, scanned, judged, dated and published."""
