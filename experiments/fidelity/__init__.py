"""How faithful the proxy is to the exact model: error, ranks, gradients, stale calibrations (SPEC 8)."""
