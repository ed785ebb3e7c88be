"""Several systems on the same items: compared, gated, joined."""
