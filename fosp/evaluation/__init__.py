"""How good and how safe is a policy: the same held-out layouts for all, intervals, paired differences, a verdict."""
