"""What keeps a stack from being made, seen before the first write: each finding with why, and who repairs it how."""
