"""Who asks: tokens, cookies, log-ins, and what ends with them."""
