"""Our models beside other libraries' own, with equal weights."""
