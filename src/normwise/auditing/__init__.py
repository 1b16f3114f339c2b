"""Is a claim of robustness real? The audit, its checks, broken defences to try it on, and tests of the attacks."""
